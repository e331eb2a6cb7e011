"""Matching finds permutations that are known, and leaves what sources compute alone."""

import sys

import pytest
import torch
from torch import nn

from zoo_lightning.errors import ArchitectureError, ConfigError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.rebasin.activations import (
    Correlation,
    match_activations,
    mean_correlation,
)
from zoo_lightning.rebasin.assignment import assign
from zoo_lightning.rebasin.channels import channel_groups, permute, random_permutation
from zoo_lightning.rebasin.sources import kernel_cosines, match_sources
from zoo_lightning.rebasin.weights import BIAS, folded_norms, match_weights
from zoo_lightning.sources.spec import parse_sources

NAMES = ["builtin:tiny-imagenet50", "builtin:rotation", "builtin:faces5"]


@pytest.fixture(scope="module")
def architecture():
    return Architecture("test_resnet")


@pytest.fixture(scope="module")
def graph(architecture):
    return channel_groups(architecture)


@pytest.fixture(scope="module")
def shipped(architecture):
    return load_architecture(architecture, parse_sources(NAMES))


@pytest.fixture(scope="module")
def images():
    return torch.randn(48, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def disturbed(graph, state, noise=0.0, seed=0):
    """The state with noise on its kernels and channels permuted, and the way back."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: value + noise * value.std() * torch.randn(value.shape, generator=generator)
        if value.dim() > 1
        else value
        for key, value in state.items()
    }
    permutation = random_permutation(graph, generator)
    return permute(graph, state, permutation), permutation.argsort()


def rescaled(graph, state):
    """The state with kernels of other scales before norms, which computes the same."""
    state = {key: value.clone() for key, value in state.items()}
    generator = torch.Generator().manual_seed(0)
    for key, norm in graph.norms.items():
        scale = 0.3 + 3 * torch.rand(len(state[key]), generator=generator)
        state[key] *= scale[:, None, None, None]
        state[norm.keys["running_mean"]] *= scale
        state[norm.keys["running_var"]] *= scale**2
    return state


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.5])
def test_weights_find_a_known_permutation(graph, shipped, noise):
    for seed, source in enumerate(shipped):
        state, back = disturbed(graph, source.state, noise, seed)
        assert torch.equal(match_weights(graph, source.state, state), back)
        assert torch.equal(match_weights(graph, source.state, rescaled(graph, state)), back)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_activations_find_a_known_permutation(architecture, graph, shipped, images, noise):
    for seed, source in enumerate(shipped):
        state, back = disturbed(graph, source.state, noise, seed)
        found = match_activations(graph, architecture, source.state, state, images)
        assert torch.equal(found, back)


def grouped_net():
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, bias=False),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        nn.Conv2d(12, 8, 3, groups=4),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Flatten(),
        nn.Linear(8 * 4, 5),
    )
    net.input_size = (3, 8, 8)
    return net


def test_layers_with_norms_folded_in_compute_what_both_compute():
    net = grouped_net().eval()
    for norm in (net[1], net[4]):
        for values in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(values)
        nn.init.uniform_(norm.running_var, 0.5, 4.0)
    folded = folded_norms(channel_groups(Architecture(grouped_net)), net.state_dict())
    images = torch.randn(2, 3, 8, 8)
    for place, groups in ((0, 1), (3, 4)):
        with torch.no_grad():
            wanted = net[place + 1](net[place](images))
        kernel, bias = (folded[f"{place}.weight{end}"].float() for end in ("", BIAS))
        found = nn.functional.conv2d(images, kernel, bias, groups=groups)
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        images = wanted.relu()


@pytest.mark.parametrize("seed", range(5))
def test_blocks_of_grouped_convolutions_are_found(seed):
    architecture = Architecture(grouped_net)
    graph = channel_groups(architecture)
    assert [(group.blocks, group.size) for group in graph.groups] == [(4, 3), (4, 2), (1, 5)]
    torch.manual_seed(seed)
    reference = architecture.plain().state_dict()
    state, back = disturbed(graph, reference, 0.05, seed)
    images = torch.randn(200, 3, 8, 8)
    assert torch.equal(match_weights(graph, reference, state), back)
    clean, back = disturbed(graph, reference, 0.0, seed)
    assert torch.equal(match_activations(graph, architecture, reference, clean, images), back)


def test_matched_sources_compute_what_they_did(architecture, graph, shipped, images):
    by_activations = match_sources(architecture, shipped, "activations", images, reference=1)
    by_weights = match_sources(architecture, shipped, "weights", reference=1, graph=graph)
    for matched in (by_activations, by_weights):
        assert matched[1] is shipped[1]
        for old, new in zip(shipped, matched, strict=True):
            assert list(new.state) == list(old.state)
            assert new.source == old.source
            with torch.inference_mode():
                y = architecture.plain(old.state).eval()(images[:4]).sort(1).values
                other = architecture.plain(new.state).eval()(images[:4]).sort(1).values
            assert torch.allclose(y, other, atol=1e-4)
    wanted = shipped[1].state
    before, weights, activations = (
        mean_correlation(graph, architecture, wanted, each[0].state, images)
        for each in (shipped, by_weights, by_activations)
    )
    assert before < weights < activations


def test_agreement_grows_where_kernels_were_in_another_order(graph, shipped):
    state, back = disturbed(graph, shipped[0].state, 0.3)
    before = kernel_cosines(shipped[0].state, state)
    after = kernel_cosines(shipped[0].state, permute(graph, state, back))
    assert all(after[key] > before[key] for key in before)
    assert all(value == pytest.approx(1) for value in kernel_cosines(state, state).values())


def test_kernels_that_point_the_other_way_disagree():
    kernels = torch.tensor([[3.0, 4.0], [1.0, 0.0], [1.0, 1.0]])
    other = torch.tensor([[-6.0, -8.0], [0.0, 2.0], [1.0, 1.0]])
    found = kernel_cosines({"weight": kernels, "bias": kernels[0]}, {"weight": other})
    assert found == {"weight": pytest.approx((-1 + 0 + 1) / 3, abs=1e-9)}


def test_correlation_in_batches_is_that_of_all(images):
    x, y = images.flatten(1)[:6, :1000], images.flatten(1)[6:12, :1000] + 100
    y[0] = 7.0  # never varies
    batches = Correlation()
    for part in range(4):
        batches.add(x[:, part * 250 : (part + 1) * 250], y[:, part * 250 : (part + 1) * 250])
    wanted = torch.corrcoef(torch.cat([x, y]).double())[:6, 6:]
    assert not batches.matrix()[:, 0].any()
    assert torch.allclose(batches.matrix()[:, 1:], wanted[:, 1:], atol=1e-6)


def test_assignment_needs_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    with pytest.raises(ConfigError, match=r"zoo-lightning\[match\]"):
        assign(torch.eye(2))


def test_bad_ways_of_matching_are_refused(architecture, shipped):
    with pytest.raises(ConfigError, match="how"):
        match_sources(architecture, shipped, "names")
    with pytest.raises(ConfigError, match="images"):
        match_sources(architecture, shipped, "activations")
    with pytest.raises(ArchitectureError, match="XCA"):
        match_sources(Architecture("xcit_nano_12_p16_224"), shipped)


@pytest.mark.parametrize("how", ["weights", "activations"])
def test_heads_of_a_transformer_are_found_again(how):
    architecture = Architecture("test_vit")
    graph = channel_groups(architecture)
    torch.manual_seed(0)
    state = architecture.plain().state_dict()
    permuted, _ = disturbed(graph, state)
    if how == "weights":
        found = match_weights(graph, state, permuted, 0)
    else:
        images = torch.randn(8, 3, 160, 160, generator=torch.Generator().manual_seed(0))
        found = match_activations(graph, architecture, state, permuted, images)
    for key, value in permute(graph, permuted, found).items():
        torch.testing.assert_close(value, state[key])
