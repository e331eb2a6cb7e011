"""Splitting samples into training and validation, so that nobody is on both sides."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
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


def split_by_group_and_class(
    groups: Sequence[str], labels: Sequence[int], fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split samples so that each group is wholly on one side, and all classes about alike.

    Groups go to the second side by chance, as long as no class has more than its share there. Then
    a class that has less gets the groups that bring all classes nearest to their shares, and one
    that has none gets such a group even if it is larger than the share.

    Args:
        groups: of each sample; one may have samples of several classes.
        labels: class of each sample.
        fraction: of each class's samples, about which goes to the second side, in (0, 1).
        seed: decides which groups.

    Returns:
        Increasing indices of the first side, where every class has some, and of the second, where
        a class has none if its fraction is less than half a sample or groups do not allow it.
    """
    contents: dict[str, Counter[int]] = {}
    for group, label in zip(groups, labels, strict=True):
        contents.setdefault(group, Counter())[label] += 1
    names = list(contents)
    order = torch.randperm(len(names), generator=sample_generator(seed, 0, -2)).tolist()
    sizes, taken = Counter(labels), Counter()
    share = {label: round(fraction * size) for label, size in sizes.items()}
    open_to: dict[int, list[str]] = {label: [] for label in sizes}
    second: set[str] = set()

    def leaves_some(name: str) -> bool:
        return all(taken[label] + n < sizes[label] for label, n in contents[name].items())

    def worsening(name: str) -> float:
        """By how much the classes would be farther from their shares, in parts of their sizes."""
        rest = {label: share[label] - taken[label] for label in contents[name]}
        return sum(
            (abs(rest[label] - n) - abs(rest[label])) / sizes[label]
            for label, n in contents[name].items()
        )

    for name in (names[place] for place in order):
        content = contents[name]
        within = all(taken[label] + n <= share[label] for label, n in content.items())
        if within and leaves_some(name):
            second.add(name)
            taken.update(content)
            continue
        for label in content:
            open_to[label].append(name)
    for label in sorted(sizes, key=lambda label: (len(open_to[label]), label)):
        while taken[label] < share[label]:
            rest = [each for each in open_to[label] if each not in second and leaves_some(each)]
            best = min(rest, key=worsening, default=None)
            if best is None or (taken[label] and worsening(best) >= 0):
                break
            second.add(best)
            taken.update(contents[best])
    on_second = np.array([group in second for group in groups])
    return np.flatnonzero(~on_second), np.flatnonzero(on_second)


def random_subset(indices: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """At least one of the indices, increasing; smaller fractions are subsets of larger ones."""
    count = max(round(fraction * len(indices)), 1)
    order = torch.randperm(len(indices), generator=sample_generator(seed, 0, -3)).numpy()
    return np.sort(indices[order[:count]])
