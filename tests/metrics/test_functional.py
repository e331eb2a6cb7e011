"""Landmark errors against hand-computed values and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson

from zoo_lightning.metrics.functional import (
    cumulative_error_curve,
    error_auc,
    failure_rate,
    per_image_nme,
)


def test_nme_of_a_hand_computed_example():
    target = torch.zeros(2, 2, 2)
    pred = torch.tensor([[[3.0, 4.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 2.0]]])
    nme = per_image_nme(pred, target, torch.tensor([10.0, 4.0]))
    assert nme.tolist() == pytest.approx([0.3, 0.25])


def test_nme_equals_a_loop_over_images_and_points():
    rng = np.random.default_rng(0)
    pred, target = rng.normal(size=(2, 6, 68, 2))
    distance = rng.uniform(1, 5, 6)
    loop = [
        np.mean([np.hypot(*(pred[i, k] - target[i, k])) for k in range(68)]) / distance[i]
        for i in range(6)
    ]
    tensors = map(torch.from_numpy, (pred, target, distance))
    assert per_image_nme(*tensors).tolist() == pytest.approx(loop)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_unusable_distances_are_counted(value):
    points = torch.zeros(3, 5, 2)
    with pytest.raises(ValueError, match="2 of 3"):
        per_image_nme(points, points, torch.tensor([value, 1.0, value]))


@pytest.mark.parametrize("distance", [torch.ones(2), torch.ones(3, 1), torch.tensor(1.0)])
def test_distances_of_another_shape_are_refused(distance):
    with pytest.raises(ValueError, match="Shapes disagree"):
        per_image_nme(torch.zeros(3, 5, 2), torch.zeros(3, 5, 2), distance)


def test_failures_exceed_the_threshold_or_are_nan():
    nme = torch.tensor([0.05, 0.10, 0.11, float("nan")], dtype=torch.float64)
    assert failure_rate(nme, 0.10) == 0.5


def test_auc_of_hand_computed_examples():
    assert error_auc(torch.zeros(3), 0.1) == 1
    assert error_auc(torch.ones(3), 0.1) == 0
    assert error_auc(torch.tensor([0.05, 0.0, 0.2, 0.1]), 0.1) == pytest.approx(1.5 / 4)


@given(st.lists(st.floats(0, 0.3), min_size=1, max_size=60), st.sampled_from([0.05, 0.08, 0.1]))
@settings(max_examples=40, deadline=None)
def test_auc_is_the_integral_of_the_cumulative_curve(errors, threshold):
    nme = torch.tensor(errors, dtype=torch.float64)
    grid = torch.arange(0, threshold + 1e-9, 1e-4, dtype=torch.float64)
    curve = cumulative_error_curve(nme, grid)
    numeric = simpson(curve.numpy(), x=grid.numpy()) / threshold
    # Simpson's rule smears each step over one interval of 1e-4.
    assert float(error_auc(nme, threshold)) == pytest.approx(numeric, abs=1e-4 / threshold)


def test_cumulative_curve_counts_errors_up_to_and_including_each_value():
    nme = torch.tensor([0.3, 0.1, 0.2, 0.2])
    curve = cumulative_error_curve(nme, torch.tensor([0.0, 0.1, 0.2, 0.25, 1.0]))
    assert curve.tolist() == [0, 0.25, 0.75, 0.75, 1]


def test_gradients_of_the_error_are_finite_where_the_prediction_differs():
    pred = torch.rand(2, 3, 2, requires_grad=True)
    per_image_nme(pred, pred.detach() + 1, torch.ones(2)).sum().backward()
    assert torch.isfinite(pred.grad).all()
