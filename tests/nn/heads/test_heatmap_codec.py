"""Points to heat maps and back."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo_lightning.nn.heads.heatmap_codec import (
    DECODINGS,
    argmax,
    encode_heatmaps,
    soft_argmax,
    taylor,
)


def decoded(name, points, size, sigma):
    """Points from the maps of points; soft-argmax reads scores, the logarithms of Gaussians."""
    maps = encode_heatmaps(points, size, sigma)
    return DECODINGS[name]((maps + 1e-30).log() if name == "soft_argmax" else maps)


@given(
    st.integers(8, 40),
    st.integers(8, 40),
    st.floats(1.0, 2.0),
    st.integers(0, 2**31),
)
def test_points_come_back(height, width, sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    # Far enough from the edge for the whole Gaussian to be on the map.
    margin = torch.tensor([4 * sigma / width, 4 * sigma / height]).clamp(max=0.45)
    points = margin + torch.rand(2, 3, 2, generator=generator) * (1 - 2 * margin)
    cell = torch.tensor([1 / width, 1 / height])
    # soft-argmax and the parabola are exact for Gaussians; the quarter is within a quarter cell.
    for name, tolerance in (("taylor", 0.02), ("argmax", 0.2501)):
        error = (decoded(name, points, (height, width), sigma) - points).abs() / cell
        assert error.max() <= tolerance, name
    if min(height, width) >= 8 * sigma:
        error = (decoded("soft_argmax", points, (height, width), sigma) - points).abs() / cell
        assert error.max() <= 0.02


def test_a_cells_centre_is_half_a_cell_from_its_corner():
    maps = encode_heatmaps(torch.tensor([[[0.625, 0.25]]]), (2, 4), 0.3)
    assert maps[0, 0, 0, 2] == 1
    assert maps.sum() < 1.1
    for decode in (argmax, taylor):
        assert decode(maps)[0, 0].tolist() == pytest.approx([0.625, 0.25], abs=1e-6)


def test_a_map_falls_as_the_density_of_a_normal_distribution_does():
    maps = encode_heatmaps(torch.tensor([[[0.5 / 8, 1.5 / 4]]]), (4, 8), 2.0)
    across, down = math.exp(-0.5), math.exp(-1 / 8)  # one deviation, and half of one
    found = [maps[0, 0, 1, 2].item(), maps[0, 0, 2, 0].item(), maps[0, 0, 2, 2].item()]
    assert found == pytest.approx([across, down, across * down])


def test_the_quarter_goes_towards_the_brighter_neighbour():
    maps = torch.zeros(1, 1, 5, 5)
    maps[0, 0, 2, 2], maps[0, 0, 2, 3], maps[0, 0, 1, 2] = 1.0, 0.6, 0.4
    assert argmax(maps)[0, 0].tolist() == pytest.approx([2.75 / 5, 2.25 / 5])


def test_nothing_moves_beyond_the_edge_of_a_map():
    maps = torch.zeros(1, 1, 3, 3)
    maps[0, 0, 0, 2] = 1.0
    for decode in (argmax, taylor):
        assert decode(maps)[0, 0].tolist() == pytest.approx([2.5 / 3, 0.5 / 3])


def test_empty_and_flat_maps_give_finite_points():
    for maps in (torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 4, 4), -torch.ones(1, 2, 4, 4)):
        for name, decode in DECODINGS.items():
            points = decode(maps)
            assert torch.isfinite(points).all(), name
            assert ((points > 0) & (points < 1)).all(), name


def test_soft_argmax_is_the_mean_position():
    scores = torch.full((1, 1, 2, 2), -torch.inf)
    scores[0, 0, 0, 0], scores[0, 0, 0, 1] = 0.0, torch.log(torch.tensor(3.0))
    # A quarter of the weight at x = 1/4, three quarters at x = 3/4; all of it at y = 1/4.
    assert soft_argmax(scores)[0, 0].tolist() == pytest.approx([0.625, 0.25])


def test_soft_argmax_has_gradients():
    scores = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(soft_argmax, (scores,))
