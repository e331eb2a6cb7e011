"""Sources taken out of a zoo for a while."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo_lightning.analysis.removing import (
    keep_only,
    keeping,
    kernel_norms,
    norms_restored,
    recorded_gates,
)
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn.norm_statistics import estimate_norms

MODES = ("full", "lite")


def zoo(mode, sources=("random:1", "random:2", "random:3")):
    return ZooBackbone("test_resnet", list(sources), mode).eval()


@pytest.fixture
def images():
    return torch.randn(3, 3, 32, 32)


def without(backbone, images, index, names=None):
    """Features without one source, in some of the layers or in all."""
    kept = torch.arange(len(backbone.sources)) != index
    layers = backbone.aggregated_layers()
    chosen = [layers[name] for name in names or layers]
    with torch.no_grad(), keeping(chosen, kept):
        return backbone(images)


@given(
    st.lists(st.floats(0.0, 1.0, width=32), min_size=2, max_size=6),
    st.data(),
)
def test_the_sum_and_the_proportions_of_the_others_stay(values, data):
    gates = torch.tensor([values, values[::-1]])
    kept = torch.tensor([data.draw(st.booleans()) for _ in values])
    found = keep_only(gates, kept)
    assert found.isfinite().all()
    assert (found[:, ~kept] == 0).all()
    for row, before in zip(found, gates, strict=True):
        left = before[kept].sum()
        if left > 0:
            torch.testing.assert_close(row.sum(), before.sum())
            expected = before[kept] / left * before.sum()
            torch.testing.assert_close(row[kept], expected)
        else:
            assert (row == 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_keeping_all_sources_changes_nothing_and_all_is_as_before_afterwards(mode, images):
    backbone = zoo(mode)
    with torch.no_grad():
        before = backbone(images)
        with keeping(backbone.aggregated_layers().values(), torch.ones(3, dtype=torch.bool)):
            assert torch.equal(backbone(images), before)
        assert not torch.equal(without(backbone, images, 1), before)
        assert torch.equal(backbone(images), before)


@pytest.mark.parametrize("mode", MODES)
def test_a_source_whose_gates_are_zero_can_be_removed_for_nothing(mode, images):
    backbone = zoo(mode)
    for layer in backbone.aggregated_layers().values():
        with torch.no_grad():
            layer.gate.expand.weight[1] = 0.0
            layer.gate.expand.bias[1] = -200.0
            layer.gate_ema[1] = 0.0
    with torch.no_grad():
        expected = backbone(images)
    torch.testing.assert_close(without(backbone, images, 1), expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(without(backbone, images, 0), expected, rtol=1e-2)


@pytest.mark.parametrize("mode", MODES)
def test_one_of_two_equal_sources_can_be_removed_for_nothing(mode, images):
    names = [{"name": name, "weights": "random:1"} for name in ("one", "other")]
    backbone = zoo(mode, names)
    with torch.no_grad():
        expected = backbone(images)
    for index in (0, 1):
        torch.testing.assert_close(without(backbone, images, index), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_removing_all_others_leaves_one_kernel_at_the_sum_of_the_gates(mode, images):
    backbone = zoo(mode)
    name, layer = next(iter(backbone.aggregated_layers().items()))
    gates = torch.full((3,), 0.5)
    with torch.no_grad():
        layer.gate.expand.weight.zero_()
        layer.gate_ema.copy_(gates)
        with keeping([layer], torch.tensor([False, True, False])):
            found = layer(images)
        expected = layer.aggregated(
            layer.pad(images), torch.tensor([0.0, 1.5, 0.0]), layer.geometry
        )
    assert name == "conv1.0"
    torch.testing.assert_close(found, expected)


def test_only_the_layers_that_are_named_lose_a_source(images):
    backbone = zoo("full")
    names = list(backbone.aggregated_layers())
    one = without(backbone, images, 0, names[:1])
    assert not torch.equal(one, without(backbone, images, 0))
    assert not torch.equal(one, without(backbone, images, 0, names[1:2]))


def test_gates_of_full_layers_are_recorded_for_every_sample(images):
    backbone = zoo("full")
    with torch.no_grad(), recorded_gates(backbone.aggregated_layers()) as seen:
        backbone(images)
        backbone(images[:2])
    assert list(seen) == list(backbone.aggregated_layers())
    for rows in seen.values():
        assert [tuple(row.shape) for row in rows] == [(3, 3), (2, 3)]
        torch.testing.assert_close(rows[0][:2], rows[1], rtol=1e-4, atol=1e-5)
    with recorded_gates(zoo("lite").aggregated_layers()) as seen:
        assert seen == {}


def test_norm_statistics_are_given_back(images):
    backbone = zoo("lite")
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with norms_restored(backbone):
        estimate_norms(backbone, [images])
        assert not torch.equal(
            backbone.state_dict()["net.bn1.running_mean"], before["net.bn1.running_mean"]
        )
    after = backbone.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_a_kernels_norm_is_that_of_the_aligned_kernel():
    layer = zoo("lite").aggregated_layers()["layer1.0.conv1"]
    before = kernel_norms(layer)
    torch.testing.assert_close(before, layer.weight.detach().flatten(1).norm(dim=1))
    with torch.no_grad():
        layer.alignment[2] *= 3
    torch.testing.assert_close(kernel_norms(layer), before * torch.tensor([1.0, 1.0, 3.0]))
    layer.train()  # which keeps no aligned kernels
    torch.testing.assert_close(kernel_norms(layer), before * torch.tensor([1.0, 1.0, 3.0]))
