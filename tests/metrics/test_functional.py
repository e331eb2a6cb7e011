"""Landmark errors against hand-computed values and plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import simpson

from zoo_lightning.metrics.functional import (
    auc_share,
    cumulative_error_curve,
    error_auc,
    failure_rate,
    per_image_nme,
    per_point_error,
)

ERRORS = st.lists(st.floats(0, 0.3), min_size=1, max_size=60)
THRESHOLDS = st.sampled_from([0.05, 0.07, 0.08, 0.1])


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


def test_errors_of_points_and_images_where_some_points_do_not_count():
    target = torch.zeros(2, 3, 2)
    target[0, 2] = torch.nan
    pred = torch.tensor([[[3.0, 4.0], [0, 1], [9, 9]], [[0, 0], [0, 2], [0, 6]]])
    visible = torch.tensor([[True, True, False], [False, True, True]])
    distance = torch.tensor([10.0, 4.0])
    points = per_point_error(pred, target, distance, visible)
    assert points.isnan().tolist() == (~visible).tolist()
    assert points[visible].tolist() == pytest.approx([0.5, 0.1, 0.5, 1.5])
    assert per_image_nme(pred, target, distance, visible).tolist() == pytest.approx([0.3, 1.0])


def test_all_points_counting_is_the_same_as_no_mask():
    pred, target = torch.rand(2, 4, 5, 2)
    distance, everything = torch.rand(4) + 1, torch.ones(4, 5, dtype=torch.bool)
    for error in (per_point_error, per_image_nme):
        masked = error(pred, target, distance, everything)
        torch.testing.assert_close(masked, error(pred, target, distance))


def test_images_without_a_counted_point_are_refused():
    points = torch.zeros(3, 2, 2)
    visible = torch.tensor([[True, False], [False, False], [False, False]])
    with pytest.raises(ValueError, match="2 of 3 images have no point"):
        per_image_nme(points, points, torch.ones(3), visible)


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


def test_exact_auc_of_hand_computed_examples():
    assert error_auc(torch.zeros(3), 0.1, rule="exact") == 1
    assert error_auc(torch.ones(3), 0.1, rule="exact") == 0
    nme = torch.tensor([0.05, 0.0, 0.2, 0.1])
    assert error_auc(nme, 0.1, rule="exact") == pytest.approx(1.5 / 4)


def test_simpson_auc_of_hand_computed_examples():
    assert error_auc(torch.zeros(3), 0.1) == 1
    assert error_auc(torch.ones(3), 0.1) == 0
    # Two intervals: the weights 1/6, 4/6, 1/6 of the grid points 0, 0.5, 1 from the error on.
    nme = torch.tensor([0.0, 0.1, 0.5, 0.7, 1.0, 1.1, float("nan")], dtype=torch.float64)
    shares = auc_share(nme, threshold=1.0, step=0.5)
    assert (6 * shares).tolist() == pytest.approx([6, 5, 5, 1, 1, 0, 0])


@given(ERRORS, THRESHOLDS)
@settings(max_examples=40, deadline=None)
def test_auc_is_simpsons_sum_over_the_cumulative_curve(errors, threshold):
    nme = torch.tensor(errors, dtype=torch.float64)
    grid = torch.linspace(0, threshold, round(threshold / 1e-4) + 1, dtype=torch.float64)
    curve = cumulative_error_curve(nme, grid)
    numeric = simpson(curve.numpy(), x=grid.numpy()) / threshold
    assert float(error_auc(nme, threshold)) == pytest.approx(numeric, abs=1e-3 * 1e-4)


@given(ERRORS, st.floats(1e-3, 0.5), st.floats(1e-3, 0.1))
@settings(max_examples=40, deadline=None)
def test_auc_equals_a_loop_for_any_threshold_and_step(errors, threshold, step):
    intervals = 2
    while threshold / intervals > step * (1 + 1e-9):
        intervals += 2
    area = 0.0
    for j in range(intervals + 1):
        share = sum(error <= threshold * (j / intervals) for error in errors) / len(errors)
        area += share * (1 if j in (0, intervals) else 4 if j % 2 else 2)
    nme = torch.tensor(errors, dtype=torch.float64)
    expected = area / (3 * intervals)
    assert float(error_auc(nme, threshold, step)) == pytest.approx(expected, abs=1e-12)


@given(ERRORS, THRESHOLDS)
@settings(max_examples=40, deadline=None)
def test_the_two_rules_differ_by_less_than_a_grid_step(errors, threshold):
    nme = torch.tensor(errors, dtype=torch.float64)
    difference = auc_share(nme, threshold) - auc_share(nme, threshold, rule="exact")
    assert difference.abs().max() <= 2 / 3 * 1e-4 / threshold + 1e-12


def test_the_two_rules_agree_on_average():
    nme = torch.linspace(0, 0.2, 20001, dtype=torch.float64)
    assert float(error_auc(nme, 0.1) - error_auc(nme, 0.1, rule="exact")) == pytest.approx(
        0, abs=2e-5
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threshold": 0.0}, "greater than 0"),
        ({"threshold": 0.1, "step": 0.0}, "greater than 0"),
        ({"threshold": 0.1, "rule": "trapezoid"}, "simpson, exact"),
    ],
)
def test_areas_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        error_auc(torch.zeros(3), **options)


def test_cumulative_curve_counts_errors_up_to_and_including_each_value():
    nme = torch.tensor([0.3, 0.1, 0.2, 0.2])
    curve = cumulative_error_curve(nme, torch.tensor([0.0, 0.1, 0.2, 0.25, 1.0]))
    assert curve.tolist() == [0, 0.25, 0.75, 0.75, 1]


@pytest.mark.parametrize("shape", [(3, 4), (3, 5, 1), (5,)])
def test_masks_of_another_shape_are_refused(shape):
    points = torch.zeros(3, 5, 2)
    for error in (per_point_error, per_image_nme):
        with pytest.raises(ValueError, match="Shapes disagree"):
            error(points, points, torch.ones(3), torch.ones(shape, dtype=torch.bool))


def test_gradients_of_the_error_are_finite_where_the_prediction_differs():
    pred = torch.rand(2, 3, 2, requires_grad=True)
    per_image_nme(pred, pred.detach() + 1, torch.ones(2)).sum().backward()
    assert torch.isfinite(pred.grad).all()
