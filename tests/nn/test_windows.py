"""A sample has one set of gates, whatever windows the network divides it into."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from zoo_lightning.deployment.mixtures import as_mixtures
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn import ZooConv2d, ZooLinear
from zoo_lightning.nn.aggregated import SampleCount

SOURCES = ["random:0", "random:1"]


class Windowed(nn.Module):
    """A network that divides 8x8 pixels into four windows, and looks up a table of fixed size."""

    input_size = (3, 8, 8)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 1)
        self.inside = nn.Linear(6, 6)
        self.across = nn.Conv2d(6, 6, 3, padding=1)
        self.table = nn.Linear(2, 6)

    def forward(self, x):
        """Map ``(B, 3, 8, 8)`` to ``(B, 6)``."""
        x = self.stem(x)
        windows = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        windows = F.relu(self.across(windows))
        tokens = self.inside(windows.flatten(2).transpose(1, 2))  # (4 B, 16, 6)
        places = torch.linspace(-1, 1, 10, device=x.device).reshape(5, 2)
        return tokens.reshape(len(x), -1, 6).mean(1) + self.table(places).mean(0)


@pytest.fixture
def zoo():
    torch.manual_seed(0)
    return ZooBackbone(Windowed, SOURCES, mode="full").eval()


def gates_in(backbone, x):
    """Number of the gates' rows in each layer."""
    rows = {}
    for name, layer in backbone.aggregated_layers().items():
        layer.gate.register_forward_hook(lambda _, __, y, name=name: rows.update({name: len(y)}))
    backbone(x)
    return rows


def test_gates_are_those_of_samples_and_not_of_windows(zoo):
    assert {n for n, layer in zoo.aggregated_layers().items() if layer.windowed} == {
        "inside", "across",
    }  # fmt: skip
    rows = gates_in(zoo, torch.randn(3, 3, 8, 8))
    assert rows == {"stem": 3, "inside": 3, "across": 3, "table": 5}


def test_a_windowed_layer_pools_all_windows_of_a_sample():
    samples, like = SampleCount(), nn.Linear(4, 5)
    layer = ZooLinear(like, torch.randn(2, 5, 4), torch.randn(2, 5))
    x = torch.randn(6, 7, 4)  # three windows of each of two samples
    samples.value, layer.samples, layer.windowed = 2, samples, True
    torch.testing.assert_close(layer.pool(x), x.reshape(2, 21, 4).mean(1))
    conv = ZooConv2d(nn.Conv2d(4, 5, 3), torch.randn(2, 5, 4, 3, 3), None)
    conv.samples, conv.windowed = samples, True
    images = torch.randn(6, 4, 5, 5)
    torch.testing.assert_close(conv.pool(images), images.reshape(2, 3, 4, 25).mean(dim=(1, 3)))


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_windows_compute_by_the_definition(mode):
    x = torch.randn(3, 3, 8, 8)
    torch.manual_seed(0)
    zoo = ZooBackbone(Windowed, SOURCES, mode=mode)
    reference = ZooBackbone(Windowed, SOURCES, mode=mode, plan="reference")
    reference.load_state_dict(zoo.state_dict())
    torch.testing.assert_close(zoo(x), reference(x))
    zoo(x).square().mean().backward()
    reference(x).square().mean().backward()
    for own, wanted in zip(zoo.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(own.grad, wanted.grad, rtol=1e-4, atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch(zoo):
    x = torch.randn(4, 3, 8, 8)
    whole = zoo(x)
    torch.testing.assert_close(zoo(x[1:2]), whole[1:2])
    torch.testing.assert_close(zoo(x.flip(0)), whole.flip(0))


def test_mixtures_of_outputs_count_samples_too(zoo):
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(as_mixtures(zoo)(x), zoo(x))


def test_a_network_without_windows_counts_nothing():
    layers = ZooBackbone("test_vit", SOURCES).aggregated_layers().values()
    assert all(layer.samples is None and not layer.windowed for layer in layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobilevit_xxs", "swin_tiny_patch4_window7_224"])
def test_timms_windowed_transformers_have_gates_of_samples(name):
    zoo = ZooBackbone(name, SOURCES, mode="full").eval()
    x = torch.randn(3, 3, *(2 * [256 if name == "mobilevit_xxs" else 224]))
    assert any(layer.windowed for layer in zoo.aggregated_layers().values())
    with torch.no_grad():
        assert set(gates_in(zoo, x).values()) == {3}
        torch.testing.assert_close(zoo(x[1:2]), zoo(x)[1:2], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(as_mixtures(zoo)(x), zoo(x), rtol=1e-4, atol=1e-5)
