"""Orbits: sets of channels that may change places, from the ties of a traced forward pass.

Atoms that are tied become one *channel*. Two channels may change places if they occur equally often
in each axis, and in each part of an axis that an operation cut out. Such channels form a group, all
of whose permutations leave the network's function unchanged. Grouped convolutions divide axes into
blocks; each block moves as a whole, in the input and in the output.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo_lightning.rebasin.labels import FIXED, Labels

Occurrences = tuple[tuple[int, int], ...]
"""Pairs of an index in ``Labels.uses`` and the number of occurrences of a channel there."""


@dataclass(frozen=True)
class Orbit:
    """Set of channels that may change places.

    Attributes:
        members: smallest atom of each channel, ``(blocks, size)``. Within a block all channels
            may change places; each block moves as a whole.
        bundle: number of the bundle of orbits whose blocks move together; -1 for a single block.
    """

    members: Tensor
    bundle: int = -1


def components(count: int, ties: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Connected components: smallest atom that each of ``count`` atoms is tied to, ``(count,)``.

    Each round takes the smaller label on both sides of every tie and then follows labels to their
    ends, so few rounds are needed even for long chains.
    """
    label = torch.arange(count)
    if not ties:
        return label
    first, second = (torch.cat(side) for side in zip(*ties, strict=True))
    while True:
        smaller = torch.minimum(label[first], label[second])
        new = label.clone()
        # Present representatives are lowered, too, and with them all atoms that point to them.
        for place in (first, second, label[first], label[second]):
            new.scatter_reduce_(0, place, smaller, "amin")
        while not torch.equal(new, new[new]):
            new = new[new]
        if torch.equal(new, label):
            return label
        label = new


def find_orbits(labels: Labels) -> tuple[Tensor, list[Orbit]]:
    """Find the channels and the orbits in which they may be permuted.

    Returns:
        The channel of each atom, ``(count,)``; and the orbits, in the order of their first atoms.
        Channels outside all orbits keep their places.
    """
    channel = components(labels.count, labels.ties)
    occurrences = _occurrences(channel, labels)
    # First by uses alone, then by the block of each.
    families: dict[Occurrences, dict[tuple[int, ...], list[int]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for member in sorted(occurrences):
        if member != FIXED:
            entries = sorted(occurrences[member].items())
            uses = tuple((use, count) for (use, _), count in entries)
            families[uses][tuple(block for (_, block), _ in entries)].append(member)
    bundles = _bundles(families, channel, labels)
    orbits = []
    for uses, by_block in families.items():
        bundle = next((bundles[use] for use, _ in uses if bundles.get(use, -1) >= 0), -1)
        if bundle >= 0:
            ordered = sorted(by_block, key=max)
            orbits.append(Orbit(torch.tensor([by_block[each] for each in ordered]), bundle))
        else:
            orbits += [Orbit(torch.tensor([each])) for each in by_block.values() if len(each) > 1]
    return channel, sorted(orbits, key=lambda orbit: int(orbit.members.min()))


def _occurrences(channel: Tensor, labels: Labels) -> dict[int, dict[tuple[int, int], int]]:
    """Count the occurrences of each channel in each block of each use."""
    found: dict[int, dict[tuple[int, int], int]] = defaultdict(dict)
    for use, (atoms, block) in enumerate(labels.uses):
        pairs = torch.stack([channel[atoms], block])
        unique, counts = pairs.unique(dim=1, return_counts=True)
        for (member, own), count in zip(unique.T.tolist(), counts.tolist(), strict=True):
            found[member][use, own] = count
    return found


def _bundles(
    families: dict[Occurrences, dict[tuple[int, ...], list[int]]], channel: Tensor, labels: Labels
) -> dict[int, int]:
    """Number the sets of uses whose blocks move together; -1 for blocks that cannot move.

    Blocks can move if each channel is in the same block in all uses of the set, and all blocks have
    the same number of channels.
    """
    blocks = {use: int(block.max()) + 1 for use, (_, block) in enumerate(labels.uses)}
    divided = {use for use, count in blocks.items() if count > 1}
    parent = {use: use for use in divided}

    def root(use: int) -> int:
        while parent[use] != use:
            use = parent[use]
        return use

    for first, second in labels.links:
        parent[root(first)] = root(second)
    bad: set[int] = set()
    for uses, by_block in families.items():
        own = [use for use, _ in uses if use in divided]
        for use in own:
            parent[root(use)] = root(own[0])
        if own and not _regular(uses, by_block, own, blocks):
            bad.add(own[0])
    for use in divided:
        if (channel[labels.uses[use][0]] == FIXED).any():
            bad.add(use)
    broken = {root(use) for use in bad}
    return {use: -1 if root(use) in broken else root(use) for use in divided}


def _regular(
    uses: Occurrences,
    by_block: dict[tuple[int, ...], list[int]],
    own: list[int],
    blocks: dict[int, int],
) -> bool:
    """Whether channels of the same uses form blocks of one size, numbered the same in all uses."""
    places = [index for index, (use, _) in enumerate(uses) if use in own]
    if len({use for use, _ in uses}) != len(uses):  # a channel in two blocks of one use
        return False
    numbers = [{each[place] for place in places} for each in by_block]
    alike = all(len(number) == 1 for number in numbers)
    complete = {blocks[use] for use in own} == {len(by_block)}
    distinct = len(set().union(*numbers)) == len(by_block)
    return alike and complete and distinct and len(set(map(len, by_block.values()))) == 1
