"""Validation parts by their usual names, and splits that keep groups, such as persons, together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from zoo_lightning.data.image_files import one_form
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import ConfigError, DataError

VALIDATION = ("val", "valid", "validation", "dev")
"""Names of the validation part: of a folder, or in place of ``train`` in a file's name."""

TRAINING = re.compile(r"(.*)train(?:ing)?(.*)", re.IGNORECASE)
"""Name of a training file, around the word that others have another one for."""


def names_of_validation(training: str) -> list[str]:
    """Names that a training file's validation file may have: ``train_list.txt``, ``val_list.txt``.

    Args:
        training: name of the training file, or a pattern of such names.
    """
    found = TRAINING.fullmatch(training)
    return [] if found is None else [f"{found[1]}{name}{found[2]}" for name in VALIDATION]


def validation_files(training: Path) -> list[Path]:
    """Find the files beside a training file that are named like it, but for validation; sorted."""
    names = {name.lower() for name in names_of_validation(training.name)}
    beside = training.parent.iterdir() if names and training.parent.is_dir() else ()
    return sorted(path for path in beside if path.name.lower() in names and path.is_file())


def refuse_several(files: Sequence[Path], part: str) -> None:
    """Refuse to choose between several files of one part.

    Raises:
        DataError: there are several.
    """
    if len(files) > 1:
        raise DataError(
            f"{files[0].parent} has {' and '.join(path.name for path in files)}, each of which may "
            f"have the {part} images; leave one of them."
        )


def person_of(name: str, pattern: str) -> str:
    """Identify the person on an image: its path, without the matches of a pattern in the stem.

    If nothing remains of the stem, the folder identifies the person; without a folder, each image
    is its own person.
    """
    path = PurePosixPath(one_form(name))
    remainder = re.sub(pattern, "", path.stem)
    if not remainder and path.parent == PurePosixPath("."):
        remainder = path.stem
    return str(path.parent / remainder)


def check_pattern(pattern: str) -> None:
    """Check that a ``group_pattern`` is a regular expression.

    Raises:
        ConfigError: it is not.
    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"`group_pattern` {pattern!r} is no regular expression ({error})."
        ) from error


def split_by_group(groups: list[str], fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split samples so that groups stay together.

    Args:
        groups: group of each sample.
        fraction: least fraction of the samples on the second (validation) side, in (0, 1).
        seed: seed of the choice of groups.

    Returns:
        Increasing indices of the first and of the second side.

    Raises:
        DataError: there are too few groups to split.
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
    """Split samples in two without dividing groups, with similar fractions of every class.

    Groups are assigned to the second side in random order, as long as no class exceeds its fraction
    there. Then each class below its fraction gets the groups that bring all classes nearest to
    their fractions; a class without samples there gets such a group even if that exceeds its
    fraction.

    Args:
        groups: group of each sample; one may have samples of several classes.
        labels: class of each sample.
        fraction: approximate fraction of each class's samples on the second (validation) side, in
            (0, 1).
        seed: seed of the choice of groups.

    Returns:
        Increasing indices of the first side, where every class has some, and of the second, where
        a class has none if its fraction is less than half a sample or groups do not allow it.
    """
    contents: dict[str, Counter[int]] = {}
    for group, label in zip(groups, labels, strict=True):
        contents.setdefault(group, Counter())[label] += 1
    names = list(contents)
    order = torch.randperm(len(names), generator=sample_generator(seed, 0, -2)).tolist()
    sizes = Counter(labels)
    taken: Counter[int] = Counter()
    share = {label: round(fraction * size) for label, size in sizes.items()}
    open_to: dict[int, list[str]] = {label: [] for label in sizes}
    second: set[str] = set()

    def leaves_some(name: str) -> bool:
        return all(taken[label] + n < sizes[label] for label, n in contents[name].items())

    def worsening(name: str) -> float:
        """Increase of the classes' distances from their shares, relative to their sizes."""
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
    """Draw at least one of the indices, sorted; smaller fractions are subsets of larger ones."""
    count = max(round(fraction * len(indices)), 1)
    order = torch.randperm(len(indices), generator=sample_generator(seed, 0, -3)).numpy()
    return np.sort(indices[order[:count]])
