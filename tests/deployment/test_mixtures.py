"""Full layers as mixtures of their sources' outputs."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import nn

from zoo_lightning import ZooBackbone
from zoo_lightning.deployment.mixtures import ConvMixture, LinearMixture, as_mixtures
from zoo_lightning.nn import ZooConv2d, ZooLinear

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3, padding=1, bias=False),
    "bias, stride": nn.Conv2d(4, 6, 3, stride=2),
    "grouped": nn.Conv2d(4, 6, 3, groups=2),
    "depthwise": nn.Conv2d(4, 4, 3, groups=4, padding=1),
    "pointwise": nn.Conv2d(4, 6, 1),
    "reflected": nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"),
    "same": nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    "timm's same": Conv2dSame(4, 6, 3, stride=2),
}


def randomised(layer):
    """A layer whose gates, alignment and kernels are far from their start."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return layer.eval()


def sources_of(like, m=3):
    weight = torch.randn(m, *like.weight.shape)
    return weight, None if like.bias is None else torch.randn(m, *like.bias.shape)


@pytest.mark.parametrize("kind", CONVOLUTIONS)
@pytest.mark.parametrize("aligned", [True, False])
def test_a_convolution_computes_what_the_full_layer_does(kind, aligned):
    like = CONVOLUTIONS[kind]
    layer = randomised(ZooConv2d(like, *sources_of(like), mode="full", aligned=aligned))
    x = torch.randn(5, 4, 9, 7)
    with torch.no_grad():
        assert torch.allclose(ConvMixture(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gating", ["softmax", "constant"])
def test_gates_of_other_kinds_are_taken_over(gating):
    like = CONVOLUTIONS["bias, stride"]
    layer = randomised(ZooConv2d(like, *sources_of(like), mode="full", gating=gating))
    x = torch.randn(5, 4, 9, 7)
    with torch.no_grad():
        assert torch.allclose(ConvMixture(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 6), (5, 3, 6), (5, 2, 3, 6)])
def test_a_linear_layer_computes_what_the_full_layer_does(shape):
    like = nn.Linear(6, 4)
    layer = randomised(ZooLinear(like, *sources_of(like), mode="full", aligned=True))
    x = torch.randn(shape)
    with torch.no_grad():
        assert torch.allclose(LinearMixture(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


def test_gates_of_a_flattened_map_see_its_channels():
    like = nn.Linear(12, 4)
    like.positions = 3
    layer = randomised(ZooLinear(like, *sources_of(like), mode="full", aligned=False))
    x = torch.randn(5, 12)
    with torch.no_grad():
        assert torch.allclose(LinearMixture(layer)(x), layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("gating", ["sigmoid", "shared"])
def test_a_network_of_mixtures_has_no_aggregated_layer_and_the_zoo_stays_as_it_was(gating):
    sources = ["random:1", "random:2"]
    backbone = randomised(ZooBackbone("test_resnet", sources, mode="full", gating=gating))
    before = copy.deepcopy(backbone.state_dict())
    net = as_mixtures(backbone)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = backbone(x)
        scale = float(expected.abs().max())
        assert torch.allclose(net(x) / scale, expected / scale, rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, (ZooConv2d, ZooLinear)) for module in net.modules())
    assert before.keys() == backbone.state_dict().keys()
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())
