"""Assign channels to channels by scores: linear assignment, and its form for blocks of channels.

Needs SciPy, which the extra ``match`` installs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zoo_lightning.errors import ConfigError
from zoo_lightning.matching.channels import ChannelGraph, Group

Inside = Callable[[int, int, int, dict[int, Tensor]], Tensor | float]
"""What the blocks at two places add to a group's scores, given the assignments of other groups."""


def assign(scores: Tensor) -> Tensor:
    """The assignment of most total score: for each row its column, ``(n,)``.

    Args:
        scores: ``(n, n)``.

    Raises:
        ConfigError: SciPy is not installed.
    """
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise ConfigError(
            "matching sources needs SciPy, which is not installed; "
            "pip install 'zoo-lightning[match]'"
        ) from error
    if len(scores) == 1:
        return torch.zeros(1).long()
    _, columns = linear_sum_assignment(scores.detach().cpu().double().numpy(), maximize=True)
    return torch.from_numpy(columns).long()


def bundles(graph: ChannelGraph) -> list[list[Group]]:
    """Groups that must be assigned together, because their blocks move together."""
    together: dict[int, list[Group]] = {}
    for group in graph.groups:
        # A group by itself is known by its first channel.
        together.setdefault(group.bundle if group.bundle >= 0 else -1 - group.start, []).append(
            group
        )
    return list(together.values())


def assign_bundle(
    groups: Sequence[Group], scores: Sequence[Tensor], inside: Inside | None = None
) -> list[Tensor]:
    """Assign the channels of groups whose blocks move together.

    For every pair of blocks the best assignment within them is found first, for one group after the
    other; their values are the scores by which blocks are assigned.

    Args:
        groups: of one bundle.
        scores: for each group ``(channels, channels)``: of the channel (column) that would take the
            place of each (row).
        inside: what depends on several groups' assignments within a pair of blocks: called with a
            group's index, the block whose place is taken, the block that takes it, and what has
            been assigned within them by group.

    Returns:
        For each group ``(channels,)``, numbers of channels as in a permutation of the graph.
    """
    blocks = groups[0].blocks
    if len(groups) == 1 and blocks == 1:
        return [groups[0].start + assign(scores[0])]
    shaped = [
        each.reshape(blocks, group.size, blocks, group.size).transpose(1, 2)
        for group, each in zip(groups, scores, strict=True)
    ]
    values = torch.zeros(blocks, blocks, dtype=scores[0].dtype)
    within: dict[tuple[int, int], dict[int, Tensor]] = {}
    for place in range(blocks):
        for source in range(blocks):
            chosen = within[place, source] = {}
            for index in range(len(groups)):
                own = shaped[index][place, source]
                if inside is not None:
                    own = own + inside(index, place, source, chosen)
                chosen[index] = assign(own)
                rows = torch.arange(len(own))
                values[place, source] += own[rows, chosen[index]].sum()
    moved = assign(values).tolist()
    result = []
    for index, group in enumerate(groups):
        parts = [s * group.size + within[p, s][index] for p, s in enumerate(moved)]
        result.append(group.start + torch.cat(parts))
    return result


def assign_within(group: Group, scores: Tensor, current: Tensor) -> Tensor:
    """Assign a group's channels anew within the blocks as they are assigned now: ``(channels,)``.

    Args:
        group: of one or more blocks.
        scores: ``(channels, channels)``.
        current: ``(channels,)`` numbers of channels.
    """
    if group.blocks == 1:
        return group.start + assign(scores)
    result = current.clone()
    for place in range(group.blocks):
        rows = slice(place * group.size, (place + 1) * group.size)
        first = int(current[rows].min()) - group.start
        columns = slice(first, first + group.size)
        result[rows] = group.start + first + assign(scores[rows, columns])
    return result
