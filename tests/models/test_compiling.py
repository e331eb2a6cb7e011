"""Whole backbones compile without a graph break, forward and backward, and compute the same."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.testing._internal.distributed.fake_pg import FakeStore

from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn import ZooConv2d

SOURCES = ["random:1", "random:2"]


def step(network, x):
    """Output and gradients of one training step, by parameter."""
    y = network(x)
    y.square().mean().backward()
    return [y.detach(), *(p.grad for p in network.parameters())]


def check(architecture, mode, size, backend, **options):
    backbone = ZooBackbone(architecture, SOURCES, mode=mode, **options)
    x = torch.randn(2, 3, size, size).contiguous(memory_format=torch.channels_last)
    eager = copy.deepcopy(backbone)
    torch.compiler.reset()
    compiled = torch.compile(backbone, fullgraph=True, dynamic=False, backend=backend)
    for found, expected in zip(step(compiled, x), step(eager, x), strict=True):
        if expected is None:
            assert found is None
            continue
        scale = expected.abs().max().item()
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3 * scale + 3e-7)
    for ours, theirs in zip(
        backbone.aggregated_layers().values(), eager.aggregated_layers().values(), strict=True
    ):
        assert ours.gate_count == theirs.gate_count == 2
        torch.testing.assert_close(ours.gate_sum, theirs.gate_sum, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("architecture", "mode", "size"), [("test_resnet", "full", 32), ("test_vit", "lite", 160)]
)
def test_a_training_step_of_a_small_backbone_has_no_graph_break(architecture, mode, size):
    check(architecture, mode, size, "aot_eager")


def test_a_layer_that_averages_over_processes_has_no_graph_break():
    dist.init_process_group("fake", rank=0, world_size=2, store=FakeStore())
    try:
        conv = nn.Conv2d(4, 4, 3)
        layer = ZooConv2d(conv, torch.randn(2, *conv.weight.shape), None, mode="lite")
        x = torch.randn(2, 4, 5, 5)
        expected = layer(x)
        torch.compiler.reset()
        found = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
        found.sum().backward()
        torch.testing.assert_close(found, expected)
        assert layer.gate.expand.bias.grad is not None
    finally:
        dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize(
    ("architecture", "size"), [("resnet50", 64), ("vit_small_patch16_224", 224)]
)
def test_a_training_step_of_a_large_backbone_has_no_graph_break(architecture, mode, size):
    check(architecture, mode, size, "aot_eager")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["full", "lite"])
@pytest.mark.parametrize(
    ("architecture", "size"),
    [("test_resnet", 32), ("test_vit", 160), ("resnet50", 64), ("vit_small_patch16_224", 224)],
)
def test_the_default_compiler_computes_the_same(architecture, mode, size):
    check(architecture, mode, size, "inductor")
