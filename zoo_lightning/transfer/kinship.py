"""Which networks descend from which, from their weights alone.

A network that is trained on from another's weights keeps the direction of its kernels for long, so
their cosine is high. Trainings from one ancestor change it in directions of their own: seen from
the ancestor, the differences of its descendants are nearly orthogonal, and seen from a descendant
they share its own difference. Batch norms count their batches, and go on counting after a change of
data: a descendant has counted more.

Nothing runs here; :mod:`zoo_lightning.transfer.relations` compares what networks know on data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

Relation = Literal["relatives", "distant", "strangers"]

RELATED = 0.6
"""Smallest cosine of kernels at which two sources are relatives. Measured: five descendants of one
ImageNet network (MobileNetV1 of width 0.25), it and one another, 0.77 to 0.997; the shipped
descendants of ``tiny-imagenet50`` 0.83 to 0.95; networks and the random weights that they were
trained from 0.43 to 0.50; networks of one random start trained on different data 0.17 to 0.27."""

STRANGE = 0.1
"""Cosine of kernels below which two sources have nothing in common, not even the random weights
before training. Measured for independent weights of both architectures: at most 0.005."""

ORTHOGONAL = 0.3
"""Largest mean cosine of the differences of relatives from their ancestor. Measured on the same
MobileNets: 0.18 from the ImageNet network, 0.35 to 0.76 from its descendants, but for one that
differs little from it."""

TIED = 0.01
"""Difference of cosines within which two networks may both be what a third descends from."""

COUNTER = "num_batches_tracked"
"""Last part of the key of a batch norm's counter of batches."""


@dataclass(frozen=True)
class Kinship:
    """Relation of two networks of one architecture by their weights.

    Attributes:
        first: name of the network that comes first.
        second: name of the other network.
        cosine: cosine of their kernels, the median over the layers, in [-1, 1].
        relation: ``relatives``, ``strangers``, or ``distant`` in between, as for networks that were
            trained from the same random weights.
        equal: number of kernels that are the same, as in layers that were frozen.
        kernels: number of kernels.
    """

    first: str
    second: str
    cosine: float
    relation: Relation
    equal: int
    kernels: int


@dataclass(frozen=True)
class Descent:
    """Descent of a network among its relatives.

    Attributes:
        name: name of the network.
        parents: what it descends from: one network, or several that are equally near; empty for an
            ancestor, and where nothing tells.
        remark: explanation in a few words.
    """

    name: str
    parents: list[str]
    remark: str


@dataclass(frozen=True)
class Kin:
    """Kinship of several networks.

    Attributes:
        pairs: relation of each pair, in the order of the networks.
        descents: descent of each network that has relatives.
    """

    pairs: list[Kinship]
    descents: list[Descent]


def relation_of(cosine: float) -> Relation:
    """Name the relation of two sources by the median cosine of their kernels."""
    if cosine >= RELATED:
        return "relatives"
    return "strangers" if cosine < STRANGE else "distant"


def kin_of(states: Mapping[str, Mapping[str, Tensor]]) -> Kin:
    """Compare the weights of networks of one architecture.

    Args:
        states: tensors of each network by name; kernels that all of them have are compared.
    """
    kernels = {name: unit_kernels(state) for name, state in states.items()}
    names = list(states)
    pairs = [_pair(a, b, kernels, states) for a, b in combinations(names, 2)]
    counts = {name: _batches(state) for name, state in states.items()}
    descents: list[Descent] = []
    copies: dict[str, str] = {}
    for pair in pairs:
        if pair.equal == pair.kernels > 0 and pair.first not in copies:
            copies.setdefault(pair.second, pair.first)
    descents += [Descent(k, [], f"the same kernels as {v}") for k, v in copies.items()]
    for family in _families([name for name in names if name not in copies], pairs):
        descents += _descents(family, pairs, kernels, counts)
    return Kin(pairs, sorted(descents, key=lambda each: names.index(each.name)))


def unit_kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Kernels with the length of each output channel's part scaled to 1, ``(C_out, ...)``.

    Scales are arbitrary before a norm layer.
    """
    return {
        key: normalize(tensor.float().flatten(1), dim=1)
        for key, tensor in state.items()
        if tensor.dim() >= 2 and tensor.is_floating_point()
    }


def _pair(
    first: str,
    second: str,
    kernels: Mapping[str, Mapping[str, Tensor]],
    states: Mapping[str, Mapping[str, Tensor]],
) -> Kinship:
    """Relation of two networks."""
    ours, theirs = kernels[first], kernels[second]
    shared = [k for k in ours if k in theirs and ours[k].shape == theirs[k].shape]
    cosines = [float((ours[k] * theirs[k]).sum(1).mean()) for k in shared]
    equal = sum(torch.equal(states[first][k], states[second][k]) for k in shared)
    cosine = median(cosines) if cosines else 0.0
    return Kinship(first, second, cosine, relation_of(cosine), equal, len(shared))


def _batches(state: Mapping[str, Tensor]) -> int | None:
    """Number of batches that a network's norms have counted; ``None`` without a counter."""
    counts = [
        int(tensor)
        for key, tensor in state.items()
        if key.endswith(COUNTER) and tensor.numel() == 1 and not tensor.is_floating_point()
    ]
    return max(counts) if counts and max(counts) > 0 else None


def _families(names: Sequence[str], pairs: Sequence[Kinship]) -> list[list[str]]:
    """Groups of two or more networks that are connected by relatives."""
    family = {name: {name} for name in names}
    for pair in pairs:
        if pair.relation == "relatives" and pair.first in family and pair.second in family:
            joined = family[pair.first] | family[pair.second]
            family |= dict.fromkeys(joined, joined)
    unique: list[set[str]] = []
    unique += [group for group in family.values() if group not in unique and len(group) > 1]
    seen: list[list[str]] = []
    for group in unique:
        members = [name for name in names if name in group]
        if members not in seen:
            seen.append(members)
    return seen


def _descents(
    family: Sequence[str],
    pairs: Sequence[Kinship],
    kernels: Mapping[str, Mapping[str, Tensor]],
    counts: Mapping[str, int | None],
) -> list[Descent]:
    """Descent of the members of one family, the ancestor first."""
    near = {frozenset((p.first, p.second)): p.cosine for p in pairs}
    ancestor, remark = _ancestor(family, kernels, counts)
    if ancestor is None:
        return [Descent(name, [], remark) for name in family]
    found = [Descent(ancestor, [], remark)]
    for name in family:
        if name == ancestor:
            continue
        # A network is nearer to its ancestor than to those that came after itself.
        older = [ancestor]
        for other in family:
            ours, theirs = counts[name], counts[other]
            if other not in (name, ancestor) and ours and theirs and theirs < ours:
                older.append(other)
        best = max(near[frozenset((name, other))] for other in older)
        parents = [o for o in older if near[frozenset((name, o))] >= best - TIED]
        found.append(Descent(name, parents, f"cosine {best:.3f}"))
    return found


def _ancestor(
    family: Sequence[str],
    kernels: Mapping[str, Mapping[str, Tensor]],
    counts: Mapping[str, int | None],
) -> tuple[str | None, str]:
    """The member that the others descend from, and why; ``None`` if nothing tells."""
    known = [count for name in family if (count := counts[name]) is not None]
    counted = len(known) == len(family) and len(set(known)) > 1
    if len(family) == 2:
        if counted:
            first = min(family, key=lambda name: counts[name] or 0)
            return first, f"the ancestor: its norms have counted fewer batches ({counts[first]})"
        return None, "one descends from the other, or both from a third: nothing tells which"
    shared = {name: _shared_difference(name, family, kernels) for name in family}
    central = [name for name in family if shared[name] <= ORTHOGONAL]
    if not central:
        least = min(shared.values())
        return None, (
            f"all descend from a network that is not here: seen from each, the others differ alike "
            f"(mean cosine of the differences at least {least:.2f})"
        )
    key = (lambda name: counts[name] or 0) if counted else shared.__getitem__
    first = min(central, key=key)
    remark = (
        "the ancestor: seen from it, the others differ independently (mean cosine "
        f"{shared[first]:.2f})"
    )
    return first, remark + (f"; fewest batches ({counts[first]})" if counted else "")


def _shared_difference(
    name: str, family: Sequence[str], kernels: Mapping[str, Mapping[str, Tensor]]
) -> float:
    """Mean cosine of the differences of pairs of relatives from one network."""
    own = kernels[name]
    others = [kernels[other] for other in family if other != name]
    cosines = []
    for one, two in combinations(others, 2):
        layers = [
            float(cosine_similarity((one[k] - own[k]).flatten(), (two[k] - own[k]).flatten(), 0))
            for k in own
            if k in one and k in two and own[k].shape == one[k].shape == two[k].shape
        ]
        cosines.append(median(layers) if layers else 0.0)
    return sum(cosines) / len(cosines)
