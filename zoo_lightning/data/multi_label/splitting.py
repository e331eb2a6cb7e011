"""Validation split of images with several labels that keeps every label on both sides.

Iterative stratification after Sechidis, Tsoumakas and Vlahavas, *On the Stratification of
Multi-Label Data*, ECML PKDD 2011, algorithm 1, for two sides and groups of images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import DataError


def split_by_labels(
    groups: Sequence[str], present: np.ndarray, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split images in two without dividing groups, with similar fractions of every label.

    The rarest label is distributed first. Each group that has it goes to the side that lacks the
    larger part of what it is to get of it; the second side is to get at least one group of every
    label that two groups have.

    Args:
        groups: group of each image.
        present: whether an image has a label, bool ``(n, L)``.
        fraction: approximate fraction of each label's images, and of all images, on the second
            (validation) side, in (0, 1).
        seed: seed of the order of the groups.

    Returns:
        Increasing indices of the first and of the second side.

    Raises:
        DataError: there is a single group.
    """
    names, members = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        raise DataError(
            f"{len(members)} training images of {len(names)} group (`group_pattern`) cannot be "
            "split for validation; give validation images of your own, or another pattern."
        )
    # The last column counts the images: those without labels, too, are to be divided.
    columns = np.concatenate([present, np.ones((len(present), 1), bool)], axis=1)
    counts = np.zeros((len(names), columns.shape[1]), np.int64)
    np.add.at(counts, members, columns)
    order = torch.randperm(len(names), generator=sample_generator(seed, 0, -2)).numpy()
    second = _distribute(counts[order], fraction)
    _repair(counts[order], second)
    on_second = np.zeros(len(names), bool)
    on_second[order] = second
    chosen = on_second[members]
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)


def _distribute(counts: np.ndarray, fraction: float) -> np.ndarray:
    """Whether a group goes to the second side, for groups ``(G, L + 1)`` in random order."""
    totals, holders = counts.sum(0), (counts > 0).sum(0)
    least = np.where(holders > 1, 1, 0)
    wanted = np.stack([(1 - fraction) * totals, np.maximum(fraction * totals, least)])
    wanted = np.maximum(wanted, 1e-9)
    rest = wanted.copy()
    second = np.zeros(len(counts), bool)
    left = np.ones(len(counts), bool)
    while left.any():
        remaining = (counts[left] > 0).sum(0)
        remaining[remaining == 0] = len(counts) + 1
        column = int(remaining.argmin())  # of equal ones the first, and the images' count last
        for group in np.flatnonzero(left & (counts[:, column] > 0)):
            lacking = rest[:, column] / wanted[:, column]
            if lacking[0] == lacking[1]:
                lacking = rest[:, -1] / wanted[:, -1]
            side = int(lacking[1] >= lacking[0] and holders[column] > 1)
            second[group], left[group] = bool(side), False
            rest[side] -= counts[group]
    return second


def _repair(counts: np.ndarray, second: np.ndarray) -> None:
    """Move groups so that each side has every label that two groups have, where that is possible.

    Args:
        counts: images by group and label, ``(G, L + 1)``.
        second: whether a group is on the second side; changed in place.
    """
    holds = counts > 0
    held = np.stack([holds[~second].sum(0), holds[second].sum(0)])
    for column in np.argsort(holds.sum(0), kind="stable"):
        for side in (1, 0):
            if held[side, column] or held[1 - side, column] < 2:
                continue
            able = (second != bool(side)) & holds[:, column]
            # Whatever else a group has must not be the last of its kind where it is.
            able &= ~(holds & (held[1 - side] == 1)).any(1)
            if able.any():
                places = np.flatnonzero(able)
                moved = places[counts[places, -1].argmin()]
                second[moved] = bool(side)
                held[side] += holds[moved]
                held[1 - side] -= holds[moved]
