"""Landmarks between fractions, network pixels and original pixels."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.data.landmarks.codec import FractionCodec, to_original


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_decoding_undoes_encoding(width, height, seed):
    generator = torch.Generator().manual_seed(seed)
    size = (width, height)
    points = torch.rand(3, 7, 2, generator=generator) * torch.tensor(size) * 1.4 - 10
    codec = FractionCodec()
    decoded = codec.decode(codec.encode(points, size), size)
    torch.testing.assert_close(decoded, points, rtol=1e-5, atol=1e-4)


def test_corners_of_the_image_are_zero_and_one():
    corners = torch.tensor([[[0.0, 0.0], [64.0, 32.0], [16.0, 16.0]]])
    fractions = FractionCodec().encode(corners, (64, 32))
    assert fractions.tolist() == [[[0, 0], [1, 1], [0.25, 0.5]]]


def test_to_original_applies_each_image_its_own_affine():
    points = torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]]])
    affine = torch.tensor([[[2.0, 0, 5], [0, 3, 7]], [[0, 1, 0], [1, 0, 0]]])
    assert to_original(points, affine).tolist() == [[[7, 13]], [[2, 1]]]


def test_autocast_does_not_round_points_in_the_original_image():
    points = torch.tensor([[[100.3, 200.7], [31.1, 250.9]]])
    affine = torch.tensor([[[4.01, 0.3, 12.3], [-0.2, 3.97, 5.7]]])
    expected = to_original(points, affine)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = to_original(points, affine)
    assert torch.equal(found, expected)


def test_gradients_flow_through_decoding():
    fractions = torch.rand(2, 3, 2, requires_grad=True)
    FractionCodec().decode(fractions, (64, 32)).sum().backward()
    assert fractions.grad[..., 0].unique().item() == 64
    assert fractions.grad[..., 1].unique().item() == 32
