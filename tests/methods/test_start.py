"""Lite without alignment is one network: the identity, and where it ends."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import Headed, ZooBackbone
from zoo_lightning.sources.zoo import without_weights

SOURCES = ["random:1", "random:2", "random:3"]
GATES = [0.5, 0.3, 0.2]
STEPS = 20


class FixedGate(nn.Module):
    """The same gates for every sample, in double precision: they sum to one to the last digit."""

    def forward(self, x):
        """``(B, m)``."""
        return torch.tensor(GATES, dtype=torch.float64).expand(len(x), -1)


def lite_and_one_network(**options):
    """A lite zoo with fixed gates, and the one network it starts as, in float64 with one head."""
    torch.manual_seed(0)
    zoo = ZooBackbone(
        "test_resnet", SOURCES, mode="lite", gate_init=GATES,
        norm_weights="gates", **{"align": "none", **options},
    ).double()  # fmt: skip
    for layer in zoo.aggregated_layers().values():
        layer.gate = FixedGate()
        layer.update_gate_ema(torch.tensor(GATES, dtype=torch.float64), 1.0)
    head = nn.Linear(zoo.num_features, 4).double()
    one = zoo.architecture.build().double()
    one.load_state_dict(zoo.folded_state())
    return zoo, Headed(zoo.architecture, one, copy.deepcopy(head)), head


def train(zoo, one, head, make, steps=STEPS):
    """Train both on the same images; returns the relative distance of their backbones' weights."""
    zoo_head = copy.deepcopy(head)
    sides = [
        (lambda x: zoo_head(zoo(x)), [*zoo.parameters(), *zoo_head.parameters()]),
        (one, list(one.parameters())),
    ]
    optimizers = [make([p for p in params if p.requires_grad]) for _, params in sides]
    generator = torch.Generator().manual_seed(1)
    before = {key: value.clone() for key, value in zoo.folded_state().items()}
    for _ in range(steps):
        images = torch.randn(8, 3, 32, 32, generator=generator, dtype=torch.float64)
        labels = torch.randint(4, (8,), generator=generator)
        for (network, _), optimizer in zip(sides, optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(network(images), labels).backward()
            optimizer.step()
    folded, single = zoo.folded_state(), one.net.state_dict()
    weights = [key for key, value in single.items() if value.is_floating_point()]

    def norm(first, second):
        return sum(float((first[key] - second[key]).square().sum()) for key in weights) ** 0.5

    return norm(folded, single) / norm(folded, before)


def adamw(eps):
    return lambda parameters: torch.optim.AdamW(parameters, lr=2e-3, weight_decay=0.05, eps=eps)


def test_lite_with_fixed_gates_follows_the_one_network_it_starts_as_under_adamw():
    # Epsilon out of the way: Adam's step is then the same for gradients of any scale.
    assert train(*lite_and_one_network(), adamw(1e-30)) < 1e-9


def test_what_remains_with_adams_usual_epsilon_is_small():
    assert train(*lite_and_one_network(), adamw(1e-8)) < 0.2


def test_the_identity_ends_where_rates_depend_on_the_gradients_scale():
    zoo, one, head = lite_and_one_network()
    made = {"zoo": [], "one": []}

    def sgd(parameters):
        made["zoo" if not made["zoo"] else "one"].append(1)
        return torch.optim.SGD(parameters, lr=1e-2)

    name = "conv1.0.weight"
    start = zoo.folded_state()[name].clone()
    assert train(zoo, one, head, sgd, steps=1) > 0.01
    moved = [state[name] - start for state in (zoo.folded_state(), one.net.state_dict())]
    # The zoo's network moves at the rate times the sum of the gates' squares.
    torch.testing.assert_close(moved[0], moved[1] * sum(g**2 for g in GATES))


def test_the_identity_ends_with_alignment():
    zoo, one, head = lite_and_one_network(align="spatial")
    assert train(zoo, one, head, adamw(1e-30)) > 0.1


def test_unequal_weights_start_as_the_folded_lite_zoo():
    zoo, _, _ = lite_and_one_network()
    plain = PlainBackbone("test_resnet", SOURCES, weights=[5.0, 3.0, 2.0])
    assert plain.method == "start"
    assert PlainBackbone("test_resnet", SOURCES).method == "soup"
    for key, value in plain.net.state_dict().items():
        if value.is_floating_point() and "running" not in key:
            expected = zoo.folded_state()[key].float()
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([0.0, 0.0, 0.0], "must not all be 0"),
        ([0.5, 0.5], "2 numbers for 3 sources"),
        ([0.5, 0.6, -0.1], "weights must lie between"),
        ("best", "weights must be one of uniform"),
        ("greedy", "informed_start"),
    ],
)
def test_weights_that_cannot_be_right_are_refused(weights, words):
    with pytest.raises(ConfigError, match=words):
        PlainBackbone("test_resnet", SOURCES, weights=weights)


def test_a_checkpoint_needs_no_numbers_for_its_weights():
    with without_weights():
        assert PlainBackbone("test_resnet", SOURCES, weights="greedy").method == "start"


def test_a_source_may_weigh_nothing():
    plain = PlainBackbone("test_resnet", SOURCES, weights=[0.0, 1.0, 0.0])
    single = PlainBackbone("test_resnet", SOURCES[1:2])
    torch.testing.assert_close(
        plain.net.state_dict()["conv1.0.weight"], single.net.state_dict()["conv1.0.weight"]
    )
