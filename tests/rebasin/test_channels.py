"""Permuted networks compute what they computed, and what cannot be followed is refused by name."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from zoo_lightning.errors import ArchitectureError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.rebasin.channels import (
    channel_groups,
    permute,
    permute_outputs,
    random_permutation,
    source_index,
    verify,
)

SMALL = [
    "mobilenetv3_small_050",
    "test_byobnet",
    "test_convnext",
    "test_efficientnet",
    "test_resnet",
]
LARGE = [
    "convnext_atto",
    "densenet121",
    "dla34",
    "efficientnet_b0",
    "efficientnet_lite0",
    "ghostnet_100",
    "hrnet_w18",
    "mixnet_s",
    "mobilenetv2_100",
    "mobilenetv3_large_100",
    "regnetx_002",
    "regnety_002",
    "res2net50_26w_4s",
    "resnest14d",
    "resnet18",
    "resnet50",
    "resnet50d",
    "resnetblur18",
    "resnetv2_50",
    "resnext50_32x4d",
    "seresnet50",
    "skresnet18",
    "vgg11_bn",
]


def randomise(network, seed=0):
    """Give biases, norms and their statistics values that tell channels apart."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in network.state_dict().items():
        if key.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif value.dim() <= 1 and value.is_floating_point():
            value.add_(0.3 * torch.randn(value.shape, generator=generator))
    return network.double().eval()


def relative_error(architecture, graph, network, image, seed=0):
    """How far a randomly permuted network's output is from what it should be, by its spread."""
    permutation = random_permutation(graph, torch.Generator().manual_seed(seed))
    state = permute(graph, network.state_dict(), permutation)
    assert list(state) == list(network.state_dict())
    permuted = architecture.plain().double().eval()
    permuted.load_state_dict(state)
    with torch.inference_mode():
        (wanted,) = permute_outputs(graph, [network(image)], permutation)
        return float((permuted(image) - wanted).abs().max() / wanted.std())


def check(name, size):
    architecture = Architecture(name)
    network = randomise(architecture.plain())
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    graph = channel_groups(architecture, network.float(), image)
    network.double()
    assert graph.num_channels > 100
    assert relative_error(architecture, graph, network, image.double()) < 1e-5
    kept = channel_groups(architecture, network.float(), image, keep_output=True)
    assert kept.outputs == [[]]
    assert 0 < kept.num_channels < graph.num_channels
    assert relative_error(architecture, kept, network.double(), image.double()) < 1e-5
    return graph


@pytest.mark.parametrize("name", SMALL)
def test_a_permuted_network_computes_the_same(name):
    check(name, 64)


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_a_large_permuted_network_computes_the_same(name):
    check(name, 224 if name == "vgg11_bn" else 96)


@pytest.mark.parametrize("name", ["test_vit", "test_vit3"])
def test_a_permuted_transformer_computes_the_same(name):
    size = Architecture(name).plain().pretrained_cfg["input_size"][-1]
    graph = check(name, size)
    assert any(group.blocks > 1 for group in graph.groups)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "mobilevit_xxs", "maxvit_nano_rw_256"]
)
def test_a_permuted_windowed_transformer_computes_the_same(name):
    graph = check(name, 256 if name == "mobilevit_xxs" else int(name[-3:]))
    assert any(group.blocks > 1 for group in graph.groups)


def test_heads_move_as_wholes_with_queries_keys_and_values_together():
    architecture = Architecture("test_vit")  # 6 blocks of 2 heads of 32 channels
    graph = channel_groups(architecture)
    blocks = [group for group in graph.groups if group.blocks > 1]
    assert {(group.blocks, group.size) for group in blocks} == {(2, 32)}
    assert len({group.bundle for group in blocks}) == 6
    [axis] = [axis for axis in graph.axes["blocks.0.attn.qkv.weight"] if axis.dim == 0]
    query, key, value = axis.channels.reshape(3, 64)
    assert torch.equal(query, key)
    assert not set(query.tolist()) & set(value.tolist())
    [given] = [axis for axis in graph.axes["blocks.0.attn.proj.weight"] if axis.dim == 1]
    assert torch.equal(given.channels, value)


def test_all_channels_of_a_residual_stage_are_one_group():
    graph = channel_groups(Architecture("resnet18"), image=torch.zeros(1, 3, 32, 32))
    assert [group.channels for group in graph.groups].count(512) == 3
    having = [k for k, axes in graph.axes.items() for a in axes if 0 in a.channels.tolist()]
    assert {"conv1.weight", "layer1.0.conv2.weight", "layer1.1.bn2.running_var"} <= set(having)
    assert "layer1.0.conv1.bias" not in having
    assert all(axis.dim == 0 for axis in graph.axes["conv1.weight"])  # the image's channels stay


def test_blocks_of_grouped_convolutions_move_as_wholes():
    architecture = Architecture("regnetx_002")
    graph = channel_groups(architecture, image=torch.zeros(1, 3, 32, 32))
    blocks = [group for group in graph.groups if group.blocks > 1]
    assert len(blocks) == 26  # input and output of each of 13 blocks
    assert len({group.bundle for group in blocks}) == 13


def test_a_permutation_that_is_wrong_is_noticed():
    architecture = Architecture("test_resnet")
    graph = channel_groups(architecture)
    state = randomise(architecture.plain()).float().state_dict()
    permutation = random_permutation(graph, torch.Generator())
    verify(graph, architecture, state, permutation)
    del graph.axes["layer2.0.conv2.weight"]
    with pytest.raises(ArchitectureError, match="something else"):
        verify(graph, architecture, state, permutation)


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("xcit_nano_12_p16_224", "'blocks.0.attn' (XCA)", "has spread over two axes"),
        ("ecaresnet26t", "'layer1.0.se.conv' (Conv1d)", "convolves along the channels"),
    ],
)
def test_a_refusal_names_layer_and_reason(name, layer, reason):
    with pytest.raises(ArchitectureError) as error:
        channel_groups(Architecture(name), image=torch.zeros(1, 3, 224, 224))
    assert layer in str(error.value)
    assert reason in str(error.value)


class Made(nn.Module):
    """A network put together from a list of layers, for images of 8x8 pixels."""

    input_size = (3, 8, 8)

    def __init__(self, *layers, forward=None):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.steps = forward

    def forward(self, x):
        """Call the steps with the image and the layers."""
        return self.steps(x, *self.layers)


def error_of(make, seed=0):
    """Relative error of a hand-made network under a random permutation, and its graph."""
    architecture = Architecture(make)
    network = randomise(make(), seed)
    graph = channel_groups(architecture, network.float())
    image = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed)).double()
    return relative_error(architecture, graph, network.double(), image, seed), graph


def chain(x, *layers):
    for layer in layers:
        x = layer(x)
    return x


@settings(max_examples=20, deadline=None)
@given(
    width=st.integers(2, 9), depth=st.integers(1, 3), spread=st.booleans(), seed=st.integers(0, 99)
)
def test_residual_networks_stay_the_same(width, depth, spread, seed):
    def make():
        def steps(x, stem, *blocks):
            x = stem(x)
            for block in blocks:
                x = F.relu(x + block(x)) if spread else x + block(x) * x.mean((2, 3), keepdim=True)
            return x

        blocks = [
            nn.Sequential(nn.Conv2d(width, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, width, 1))
            for _ in range(depth)
        ]
        return Made(nn.Conv2d(3, width, 3), *blocks, forward=steps)

    error, graph = error_of(make, seed)
    assert error < 1e-9
    assert sorted(group.channels for group in graph.groups) == sorted([4] * depth + [width])


@settings(max_examples=20, deadline=None)
@given(widths=st.lists(st.integers(2, 6), min_size=2, max_size=4), seed=st.integers(0, 99))
def test_concatenated_branches_are_permuted_each_by_itself(widths, seed):
    def make():
        def steps(x, norm, last, *branches):
            return last(norm(torch.cat([branch(x) for branch in branches], 1)))

        total = sum(widths)
        layers = [nn.BatchNorm2d(total), nn.Conv2d(total, 5, 1)]
        return Made(*layers, *(nn.Conv2d(3, width, 3) for width in widths), forward=steps)

    error, graph = error_of(make, seed)
    assert error < 1e-9
    assert sorted(group.channels for group in graph.groups) == sorted([*widths, 5])


@settings(max_examples=20, deadline=None)
@given(
    groups=st.integers(2, 4),
    inside=st.integers(1, 3),
    out=st.integers(1, 3),
    squeeze=st.booleans(),
    seed=st.integers(0, 99),
)
def test_grouped_convolutions_and_squeeze_and_excitation(groups, inside, out, squeeze, seed):
    def make():
        def steps(x, first, grouped, norm, reduce, expand, last):
            x = norm(grouped(F.relu(first(x))))
            if squeeze:
                x = x * torch.sigmoid(expand(F.relu(reduce(x.mean((2, 3), keepdim=True)))))
            return last(x)

        made, given = groups * out, groups * inside
        layers = [
            nn.Conv2d(3, given, 3),
            nn.Conv2d(given, made, 3, groups=groups),
            nn.BatchNorm2d(made),
            nn.Conv2d(made, 2, 1),
            nn.Conv2d(2, made, 1),
            nn.Conv2d(made, 4, 1),
        ]
        return Made(*layers, forward=steps)

    error, graph = error_of(make, seed)
    assert error < 1e-9
    shapes = {(group.blocks, group.size) for group in graph.groups}
    if inside * out > 1:
        assert {(groups, inside), (groups, out)} <= shapes
    else:
        assert (1, groups) in shapes  # depthwise: one group before and after


@pytest.mark.parametrize("split", ["chunk", "slice", "shuffle"])
def test_parts_of_a_tensor_are_permuted_each_by_itself(split):
    def make():
        def steps(x, stem, one, two, last):
            x = stem(x)
            if split == "chunk":
                a, b = x.chunk(2, 1)
            elif split == "slice":
                x = x[:, :10]  # all of it
                a, b = x[:, :5], x[:, 5:]
            else:
                n, c, h, w = x.shape
                a, b = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w).chunk(2, 1)
            return last(torch.cat([F.relu(one(a)) + a, two(b)], 1))

        layers = [nn.Conv2d(3, 10, 1), nn.Conv2d(5, 5, 1), nn.Conv2d(5, 4, 1), nn.Conv2d(9, 6, 1)]
        return Made(*layers, forward=steps)

    error, graph = error_of(make)
    assert error < 1e-9
    assert sorted(group.channels for group in graph.groups) == [4, 5, 5, 6]


def nature_net():
    return Made(
        nn.Conv2d(3, 6, 3),
        nn.ReLU(),
        nn.Conv2d(6, 5, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * 4 * 4, 7),
        forward=chain,
    )


def test_flattened_channels_are_blocks_of_a_linear_layers_columns():
    error, graph = error_of(nature_net)
    assert error < 1e-9
    assert [group.channels for group in graph.groups] == [6, 5, 7]
    axis = next(axis for axis in graph.axes["layers.5.weight"] if axis.dim == 1)
    assert axis.channels.tolist() == [6 + channel for channel in range(5) for _ in range(16)]


def test_an_index_that_occurs_again_moves_with_its_channel():
    index = source_index(torch.tensor([0, 0, -1, 1, 1, 2, 2]), torch.tensor([2, 0, 1]))
    assert index.tolist() == [5, 6, 2, 0, 1, 3, 4]


def test_order_of_neighbours_matters_to_a_convolution_along_channels():
    def make():
        def steps(x, stem, across):
            return across(stem(x).mean((2, 3))[:, None])

        return Made(nn.Conv2d(3, 6, 3), nn.Conv1d(1, 1, 3), forward=steps)

    with pytest.raises(ArchitectureError, match=r"'layers\.1' \(Conv1d\) calls conv1d"):
        error_of(make)


def test_constants_and_unused_layers_keep_their_places():
    def make():
        def steps(x, stem, last, unused):
            return last(stem(x) * torch.linspace(0, 1, 4)[:, None, None])

        layers = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.Conv2d(4, 5, 1)]
        return Made(*layers, forward=steps)

    error, graph = error_of(make)
    assert error < 1e-9
    assert set(graph.axes) == {"layers.1.weight", "layers.1.bias"}
