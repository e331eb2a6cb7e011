"""The Nature CNN as an architecture of a zoo, and the heads on it."""

import pytest
import torch

from zoo_lightning import PlainBackbone, ZooBackbone
from zoo_lightning.errors import ArchitectureError
from zoo_lightning.models.nature_cnn import PolicyValueHead, nature_cnn
from zoo_lightning.nn import ZooConv2d, ZooLinear


@pytest.fixture
def pixels():
    return torch.randint(0, 256, (3, 4, 84, 84), dtype=torch.uint8)


def test_bytes_and_floats_between_zero_and_one_give_the_same(pixels):
    net = nature_cnn()
    torch.testing.assert_close(net(pixels), net(pixels.float() / 255))


def test_weights_start_orthogonal():
    weight = nature_cnn().hidden.weight
    torch.testing.assert_close(weight @ weight.T, 2 * torch.eye(512), atol=1e-4, rtol=0)


def test_a_zoo_aggregates_all_four_layers_and_its_gates_sum_to_one(pixels):
    zoo = ZooBackbone("nature_cnn", ["random:1", "random:2", "random:3"], mode="full")
    layers = zoo.aggregated_layers()
    kinds = {name: type(layer) for name, layer in layers.items()}
    assert kinds == {
        "conv1": ZooConv2d,
        "conv2": ZooConv2d,
        "conv3": ZooConv2d,
        "hidden": ZooLinear,
    }
    assert zoo.num_features == 512
    assert zoo(pixels).shape == (3, 512)
    for layer in layers.values():
        torch.testing.assert_close(layer.gate_ema.sum(), torch.tensor(1.0))
    # The hidden layer's gate sees the map's 64 channels.
    assert layers["hidden"].gate.reduce.in_features == 64


@pytest.mark.parametrize("mode", ["full", "lite"])
def test_a_zoo_of_one_network_three_times_computes_what_it_computes(pixels, mode):
    single = PlainBackbone("nature_cnn", ["random:1"])
    zoo = ZooBackbone("nature_cnn", ["random:1"] * 3, mode=mode)
    torch.testing.assert_close(zoo(pixels), single(pixels), atol=1e-5, rtol=1e-4)


def test_a_folded_zoo_is_a_nature_cnn(pixels):
    zoo = ZooBackbone("nature_cnn", ["random:1", "random:2"], mode="lite").eval()
    folded = zoo.fold()
    assert set(folded.state_dict()) == set(nature_cnn().state_dict())
    torch.testing.assert_close(folded(pixels), zoo(pixels), atol=1e-5, rtol=1e-4)


def test_a_gate_sees_the_channels_of_a_flattened_map(pixels):
    layer = ZooBackbone("nature_cnn", ["random:1", "random:2"]).aggregated_layers()["hidden"]
    image = torch.randn(2, 64, 7, 7)
    torch.testing.assert_close(layer.pool(image.flatten(1)), image.mean(dim=(2, 3)))


def test_heads_start_almost_uniform():
    logits, values = PolicyValueHead(512, 6)(torch.randn(40, 512))
    assert logits.shape == (40, 6)
    assert values.shape == (40,)
    assert logits.softmax(dim=-1).sub(1 / 6).abs().max() < 0.05


def test_a_mistyped_name_of_ours_is_suggested():
    with pytest.raises(ArchitectureError, match="Did you mean 'nature_cnn'"):
        PlainBackbone("nature_cn")
