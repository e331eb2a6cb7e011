"""Splitting samples into training and validation, so that nobody is on both sides."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import numpy as np
import torch

from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import ConfigError, DataError


def person_of(name: str, pattern: str) -> str:
    """Who an image shows: its name without what the pattern matches in the stem.

    If nothing remains of the stem, the folder tells the person; without a folder, each image is its
    own person.
    """
    path = PurePosixPath(name)
    remainder = re.sub(pattern, "", path.stem)
    if not remainder and path.parent == PurePosixPath("."):
        remainder = path.stem
    return str(path.parent / remainder)


def check_pattern(pattern: str) -> None:
    """Refuse a ``group_pattern`` that is no regular expression.

    Raises:
        ConfigError: if it is none.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"`group_pattern` {pattern!r} is no regular expression ({error})."
        ) from error


def split_by_group(groups: list[str], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split samples so that each group is wholly on one side.

    Args:
        groups: of each sample.
        fraction: of the samples, at least which goes to the second side, in (0, 1).
        seed: decides which groups.

    Returns:
        Increasing indices of the first and of the second side.

    Raises:
        DataError: if there are too few groups for both sides.
    """
    names, members = np.unique(groups, return_inverse=True)
    order = torch.randperm(len(names), generator=sample_generator(seed, 0, -2)).numpy()
    sizes = np.bincount(members)[order]
    count = int(np.searchsorted(np.cumsum(sizes), fraction * len(groups) - 1e-9)) + 1
    if count >= len(names):
        raise DataError(
            f"{len(groups)} images of {len(names)} persons cannot be split for validation; lower "
            "`val_fraction`, or set `group_pattern` so that removing what it matches from a file's "
            "name leaves the person (an empty pattern: every image is its own)."
        )
    second = np.isin(members, order[:count])
    return np.flatnonzero(~second), np.flatnonzero(second)


def random_subset(indices: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """At least one of the indices, increasing; smaller fractions are subsets of larger ones."""
    count = max(round(fraction * len(indices)), 1)
    order = torch.randperm(len(indices), generator=sample_generator(seed, 0, -3)).numpy()
    return np.sort(indices[order[:count]])
