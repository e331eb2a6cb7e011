"""Losses against hand-computed values and against their papers' formulas in NumPy."""

import math

import numpy as np
import pytest
import torch

from zoo_lightning.nn.heads.losses import (
    COORDINATE_LOSSES,
    HEATMAP_LOSSES,
    adaptive_wing,
    heatmap_mse,
    l1,
    mse,
    smooth_l1,
    wing,
)


def fractions(*pixels: float) -> torch.Tensor:
    """Fractions of the image ``(1, K, 2)`` from coordinates in a 256-pixel image."""
    return torch.tensor(pixels).view(1, -1, 2) / 256


def test_wing_is_logarithmic_below_its_width_and_linear_above():
    # By hand: 10 ln(1 + 1/2) = 4.0547; at 10 pixels both branches give 10 ln 6 = 17.9176.
    zero = fractions(0, 0)
    assert wing(fractions(1, -1), zero).item() == pytest.approx(10 * math.log(1.5), rel=1e-5)
    assert wing(fractions(9.9999, 9.9999), zero).item() == pytest.approx(17.9176, abs=1e-3)
    assert wing(fractions(10.0001, 10.0001), zero).item() == pytest.approx(17.9176, abs=1e-3)
    assert wing(fractions(30, 30), zero).item() == pytest.approx(20 + 17.9176, abs=1e-3)
    assert wing(fractions(30, 0), zero).item() == pytest.approx((20 + 17.9176) / 2, abs=1e-3)


def test_l1_and_smooth_l1_count_in_pixels_of_a_256_pixel_image():
    zero = fractions(0, 0)
    assert l1(fractions(3, -1), zero).item() == pytest.approx(2)
    assert smooth_l1(fractions(0.5, 3), zero).item() == pytest.approx((0.125 + 2.5) / 2)


def reference(name: str, error: np.ndarray) -> np.ndarray:
    """The losses as their papers write them, of errors in pixels."""
    size = np.abs(error)
    if name == "l1":
        return size
    if name == "mse":
        return size**2
    if name == "smooth_l1":
        return np.where(size < 1, 0.5 * size**2, size - 0.5)
    constant = 10 - 10 * np.log(1 + 10 / 2)
    return np.where(size < 10, 10 * np.log(1 + size / 2), size - constant)


@pytest.mark.parametrize("name", sorted(COORDINATE_LOSSES))
def test_losses_agree_with_numpy(name):
    rng = np.random.default_rng(0)
    pred, target = rng.uniform(0, 1, (2, 4, 7, 2))
    expected = reference(name, 256 * (pred - target)).mean()
    found = COORDINATE_LOSSES[name](torch.from_numpy(pred), torch.from_numpy(target))
    assert found.item() == pytest.approx(expected, rel=1e-12)
    assert COORDINATE_LOSSES[name](torch.from_numpy(pred), torch.from_numpy(pred)).item() == 0


@pytest.mark.parametrize("name", sorted(COORDINATE_LOSSES))
def test_losses_have_finite_gradients_everywhere(name):
    pred = torch.linspace(-0.1, 0.1, 42, dtype=torch.float64).view(1, 21, 2).requires_grad_()
    COORDINATE_LOSSES[name](pred, torch.zeros_like(pred)).backward()
    assert torch.isfinite(pred.grad).all()
    assert (pred.grad * pred.detach() >= 0).all()  # towards the target


def test_mse_counts_in_pixels_of_a_256_pixel_image():
    assert mse(fractions(3, -1), fractions(0, 0)).item() == pytest.approx((9 + 1) / 2)


@pytest.mark.parametrize("name", sorted(COORDINATE_LOSSES))
def test_points_that_do_not_count_do_not_count(name):
    pred, target = torch.rand(2, 3, 5, 2, dtype=torch.float64)
    visible = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=torch.bool)
    kept = COORDINATE_LOSSES[name](pred[visible][None], target[visible][None])
    target[~visible] = float("nan")
    torch.testing.assert_close(COORDINATE_LOSSES[name](pred, target, visible), kept)
    assert COORDINATE_LOSSES[name](pred, target, torch.zeros_like(visible)).item() == 0


def adaptive_wing_reference(pred, target, foreground):
    """Equations 4 and 7 of Wang et al., one pixel after the other."""
    omega, theta, epsilon, alpha = 14.0, 0.5, 1.0, 2.1
    total, (maps, height, width) = 0.0, target.shape
    for k, i, j in np.ndindex(maps, height, width):
        y, d = target[k, i, j], abs(pred[k, i, j] - target[k, i, j])
        power = alpha - y
        slope = (
            omega
            * (1 / (1 + (theta / epsilon) ** power))
            * power
            * (theta / epsilon) ** (power - 1)
            / epsilon
        )
        constant = theta * slope - omega * math.log(1 + (theta / epsilon) ** power)
        value = omega * math.log(1 + (d / epsilon) ** power) if d < theta else slope * d - constant
        around = target[k, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2].max()
        total += value * (1 + foreground * (around > 0.2))
    return total / target.size


def test_adaptive_wing_agrees_with_its_paper():
    rng = np.random.default_rng(0)
    target = rng.uniform(0, 1, (2, 6, 5)) ** 3
    pred = target + rng.uniform(-1, 1, target.shape)
    found = adaptive_wing(torch.from_numpy(pred)[None], torch.from_numpy(target)[None])
    expected = adaptive_wing_reference(pred, target, 10.0)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_adaptive_wing_has_finite_gradients_everywhere():
    target = torch.linspace(0, 1, 50, dtype=torch.float64).view(1, 2, 5, 5)
    for shift in (0.0, 1e-9, 0.5, 3.0):
        pred = (target + shift).requires_grad_()
        adaptive_wing(pred, target).backward()
        assert torch.isfinite(pred.grad).all()


@pytest.mark.parametrize("name", sorted(HEATMAP_LOSSES))
def test_heat_maps_of_points_that_do_not_count_do_not_count(name):
    pred, target = torch.rand(2, 1, 3, 4, 4, dtype=torch.float64)
    visible = torch.tensor([[True, False, True]])
    kept = HEATMAP_LOSSES[name](pred[:, [0, 2]], target[:, [0, 2]])
    torch.testing.assert_close(HEATMAP_LOSSES[name](pred, target, visible), kept)


def test_heatmap_mse_is_the_mean_over_all_cells():
    pred = torch.zeros(1, 1, 2, 2)
    pred[0, 0, 0, 0] = 2.0
    assert heatmap_mse(pred, torch.zeros_like(pred)).item() == 1.0
