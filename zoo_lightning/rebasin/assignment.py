"""Linear assignment of channels to channels by scores, also for blocks of channels.

Needs SciPy, which the extra ``match`` installs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from zoo_lightning.errors import ConfigError
from zoo_lightning.rebasin.channels import ChannelGraph, Group

Inside = Callable[[int, list[Tensor]], Tensor | float]
"""Function from a group's index and the assignments of earlier groups to additional scores."""


def assign(scores: Tensor) -> Tensor:
    """Solve a linear assignment: the column of each row with the largest total score, ``(n,)``.

    Args:
        scores: scores of all pairs, ``(n, n)``.

    Raises:
        ConfigError: SciPy is not installed.
    """
    return assign_each(scores[None])[0]


def assign_each(scores: Tensor) -> Tensor:
    """Solve many assignments, each as in :func:`assign`: scores ``(..., n, n)`` to ``(..., n)``.

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
    size = scores.shape[-1]
    result = torch.zeros(scores.shape[:-1], dtype=torch.long)
    if size > 1:
        problems = scores.detach().cpu().double().reshape(-1, size, size).numpy()
        for row, problem in zip(result.view(-1, size).numpy(), problems, strict=True):
            row[:] = linear_sum_assignment(problem, maximize=True)[1]
    return result


def bundles(graph: ChannelGraph) -> list[list[Group]]:
    """List the sets of groups that are assigned together because their blocks move together."""
    together: dict[int, list[Group]] = {}
    for group in graph.groups:
        # A group outside all bundles is identified by its first channel.
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
        groups: groups of one bundle.
        scores: scores ``(channels, channels)`` of each group: entry ``[p, s]`` is the score of
            channel ``s`` at the place of channel ``p``.
        inside: function for scores that depend on several groups' assignments within a pair of
            blocks: from a group's index and the assignments of the groups before it, ``(blocks,
            blocks, size)`` each, to ``(blocks, blocks, size, size)``. The first block is the one
            whose place is taken, the second the one that takes it.

    Returns:
        Number of the channel at each place of each group, ``(channels,)``, as in a permutation.

    Raises:
        ConfigError: SciPy is not installed.
    """
    blocks = groups[0].blocks
    if len(groups) == 1 and blocks == 1:
        return [groups[0].start + assign(scores[0])]
    values = torch.zeros(blocks, blocks, dtype=scores[0].dtype)
    within: list[Tensor] = []
    for index, (group, each) in enumerate(zip(groups, scores, strict=True)):
        own = each.reshape(blocks, group.size, blocks, group.size).transpose(1, 2)
        if inside is not None:
            own = own + inside(index, within)
        within.append(assign_each(own))
        values += own.gather(-1, within[-1][..., None]).sum(dim=(-2, -1))
    moved = assign(values).tolist()
    result = []
    for index, group in enumerate(groups):
        parts = [s * group.size + within[index][p, s] for p, s in enumerate(moved)]
        result.append(group.start + torch.cat(parts))
    return result


def assign_within(group: Group, scores: Tensor, current: Tensor) -> Tensor:
    """Reassign a group's channels within blocks that keep their places: numbers ``(channels,)``.

    Args:
        group: group of one or more blocks.
        scores: scores of all pairs of channels, ``(channels, channels)``.
        current: present assignment, numbers of channels ``(channels,)``.
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
