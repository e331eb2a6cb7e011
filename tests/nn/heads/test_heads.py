"""Heads on features of every form, and what mirroring and decoding do with their outputs."""

import math

import pytest
import torch
import torch.nn.functional as F

from zoo_lightning.data.landmarks.schemes import FACES5
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.nn.heads import CoordinateHead, HeatmapHead
from zoo_lightning.nn.heads.maps import Deconvolutions, Fusion


def test_fusing_is_a_convolution_of_the_joined_maps():
    # Sun et al.: enlarge all to the finest, join, 1x1 convolution, norm, ReLU.
    torch.manual_seed(0)
    fusion = Fusion([3, 5, 2], 7).eval()
    maps = [torch.randn(2, 3, 9, 8), torch.randn(2, 5, 5, 4), torch.randn(2, 2, 3, 2)]
    joined = [maps[0], *(F.interpolate(m, (9, 8), mode="bilinear") for m in maps[1:])]
    kernel = torch.cat([layer.weight for layer in fusion.mix], dim=1)
    expected = F.relu(fusion.norm(F.conv2d(torch.cat(joined, dim=1), kernel)))
    torch.testing.assert_close(fusion(maps), expected)


def head_for(architecture, output, stride=4, points=5, **options):
    backbone = PlainBackbone(architecture, output=output)
    channels = [shape[0] for shape in backbone.feature_shapes]
    return backbone, HeatmapHead(channels, backbone.reductions, points, stride=stride, **options)


@pytest.mark.parametrize(
    ("architecture", "output", "stride", "size"),
    [
        ("test_resnet", "stages", 4, (16, 24)),
        ("test_resnet", "stages", 2, (32, 48)),
        ("test_resnet", "stages", 1, (32, 48)),  # nothing finer than half the image is there
        ("test_resnet", "stages", 32, (2, 3)),
        ("test_resnet", "map", 4, (16, 24)),
        ("test_resnet", "map", 32, (2, 3)),
        ("hrnet_w18_small", "stages", 4, (16, 24)),
        ("mobilenetv3_small_050", "stages", 4, (16, 24)),
        ("convnext_atto", "stages", 4, (16, 24)),
    ],
)
def test_maps_have_the_stride_that_was_asked_for(architecture, output, stride, size):
    backbone, head = head_for(architecture, output, stride)
    with torch.no_grad():
        raw = head(backbone.eval()(torch.randn(1, 3, 64, 96)))
    assert raw.shape == (1, 5, *size)
    assert head.points(raw).shape == (1, 5, 2)


def test_autocast_does_not_round_coordinates():
    head, features = CoordinateHead(8, 3), torch.rand(4, 8)
    expected = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(features)
    assert torch.equal(found, expected)


def test_autocast_does_not_round_scores():
    head, features = HeatmapHead([8], [4], 3), torch.rand(2, 8, 16, 16)
    expected = head(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = head(features)
    assert torch.equal(found, expected)


def test_images_of_odd_sizes_have_heat_maps_too():
    backbone, head = head_for("test_resnet", "stages")
    raw = head(backbone.eval()(torch.randn(1, 3, 75, 81)))
    assert raw.shape[-2:] == (19, 21)


def test_hrnet_shows_its_four_branches():
    backbone, head = head_for("hrnet_w18_small", "stages")
    assert backbone.reductions == [2, 4, 8, 16, 32]
    assert [shape[0] for shape in backbone.feature_shapes] == [64, 16, 32, 64, 128]
    assert head.used == [1, 2, 3, 4]
    assert head.final.in_channels == 16 + 32 + 64 + 128  # as many as are joined


def test_a_single_map_is_enlarged_by_transposed_convolutions():
    _, head = head_for("test_resnet", "map")
    assert isinstance(head.join, Deconvolutions)
    assert sum(isinstance(layer, torch.nn.ConvTranspose2d) for layer in head.join) == 3


def test_heat_maps_to_look_at_are_not_negative():
    _, soft = head_for("test_resnet", "stages")
    _, hard = head_for("test_resnet", "stages", loss="heatmap_mse", decode="argmax")
    raw = torch.randn(2, 5, 8, 8)
    torch.testing.assert_close(soft.heatmaps(raw).sum((-2, -1)), torch.ones(2, 5))
    assert hard.heatmaps(raw).min() == 0


def test_narrow_maps_cost_less():
    _, head = head_for("test_resnet", "stages", heatmap_weight=1.0, sigma=1.0)
    target = torch.full((1, 5, 2), 0.5)
    grid = (torch.arange(16) + 0.5) / 16
    distance = (grid[:, None] - 0.5) ** 2 + (grid[None, :] - 0.5) ** 2
    narrow, wide = (-(distance * 256) / (2 * s**2) for s in (1.0, 4.0))
    losses = [head.loss(m.expand(1, 5, 16, 16), target) for m in (narrow, wide)]
    assert losses[0] < losses[1]


def test_even_maps_cost_the_logarithm_of_their_cells_times_the_weight():
    _, head = head_for("test_resnet", "stages", heatmap_weight=0.25, sigma=1.0)
    # Even maps point at the middle, where the points are: nothing else is to pay.
    loss = head.loss(torch.zeros(2, 5, 16, 16), torch.full((2, 5, 2), 0.5))
    assert loss.item() == pytest.approx(0.25 * math.log(256), rel=1e-4)


def test_a_point_outside_the_image_has_no_map_but_a_place():
    _, head = head_for("test_resnet", "stages", heatmap_weight=1.0)
    raw = torch.randn(1, 5, 16, 16, requires_grad=True)
    target = torch.rand(1, 5, 2)
    target[0, 0] = torch.tensor([-3.0, 7.0])
    head.loss(raw, target).backward()
    assert torch.isfinite(raw.grad).all()
    assert (raw.grad[0, 0] != 0).any()


@pytest.mark.parametrize("kind", ["coordinates", "heatmaps"])
def test_mirroring_moves_points_to_the_other_side_and_back(kind):
    if kind == "coordinates":
        head, raw = CoordinateHead(8, 5), torch.rand(2, 10)
    else:
        _, head = head_for("test_resnet", "stages")
        raw = torch.randn(2, 5, 8, 8)
    flip = torch.tensor(FACES5.flip)
    points, mirrored = head.points(raw), head.points(head.mirrored(raw, flip))
    torch.testing.assert_close(mirrored[..., 0], 1 - points[:, flip, 0])
    torch.testing.assert_close(mirrored[..., 1], points[:, flip, 1])
    twice = head.mirrored(head.mirrored(raw, flip), flip)
    torch.testing.assert_close(twice, raw)
