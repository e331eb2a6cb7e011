"""Means over seeds, how sure they are, and whether a difference is more than chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from zoo_lightning.errors import ConfigError

RESAMPLES = 10_000
"""Of the bootstrap."""

ROUNDING = 1e-5
"""Share of a figure below which differences are those of single precision."""


class Interval(NamedTuple):
    """A mean over seeds and half of its 95 % interval; NaN of a single seed."""

    mean: float
    half: float
    count: int


class Difference(NamedTuple):
    """Of two methods over the seeds that both have.

    Attributes:
        mean: first minus second.
        half: half of the 95 % interval by Student's t over the seeds' differences and, where they
            are known, over the test images'.
        low: end of the 95 % interval by the bootstrap over seeds.
        high: the other end.
        p: of the t-test that belongs to ``half``, two-sided.
        seeds: how many.

    All ends and ``p`` are NaN of a single seed, and of equal differences: few and coarse figures
    may agree by chance, and then say nothing of the spread. Equal figures differ by 0 for sure.
    """

    mean: float
    half: float
    low: float
    high: float
    p: float
    seeds: int


def interval(values: Sequence[float], images: Mapping[str, float] | None = None) -> Interval:
    """Mean of values and half of its 95 % interval.

    Seeds alone say how much another training would differ on the same test images; with others, the
    mean would differ, too. Both variances of the mean are added up, each with its degrees of
    freedom (Satterthwaite, *An approximate distribution of estimates of variance components*,
    1946). What seeds and images share counts twice, so that the interval is rather too wide.

    Args:
        values: one of each seed.
        images: the mean over the seeds for each test image, by name; ``None`` or none for unknown.
    """
    numbers = np.asarray(values, dtype=float)
    mean, count = float(numbers.mean()) if len(numbers) else float("nan"), len(numbers)
    if count < 2:
        return Interval(mean, float("nan"), count)
    error, degrees = _error(numbers, images)
    return Interval(mean, float(scipy_stats().t.ppf(0.975, degrees) * error), count)


def _error(numbers: np.ndarray, images: Mapping[str, float] | None) -> tuple[float, float]:
    """Standard error of a mean over seeds, and its degrees of freedom."""
    parts = [numbers, np.array(list((images or {}).values()), dtype=float)]
    parts = [part for part in parts if len(part) > 1]
    variances = np.array([part.var(ddof=1) / len(part) for part in parts])
    total = variances.sum()
    if not total > 0:
        return float(np.sqrt(total)), len(numbers) - 1.0
    spread = sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    return float(np.sqrt(total)), float(total**2 / spread)


def with_half(figure: Interval | Difference, sign: str = "") -> str:
    """``mean ± half`` to two decimals, with ``sign`` "+" always with its sign."""
    spread = "" if figure.half != figure.half else f" ± {figure.half:.2f}"
    return f"{figure.mean:{sign}.2f}{spread}"


def paired(
    first: Mapping[int, float],
    second: Mapping[int, float],
    images: Mapping[str, float] | None = None,
) -> Difference:
    """Difference of two methods, seed by seed.

    Args:
        first: figures by seed.
        second: figures of the other method by seed.
        images: difference on each test image, averaged over the common seeds; see
            :func:`image_differences`.
    """
    seeds = sorted(set(first) & set(second))
    differences = np.array([first[seed] - second[seed] for seed in seeds], dtype=float)
    mean, half, count = interval(differences, images)
    unknown = float("nan")
    if count < 2:
        return Difference(mean, unknown, unknown, unknown, unknown, count)
    if len(set((images or {}).values())) < 2:  # they say nothing of the spread
        if not np.any(differences):
            return Difference(0.0, 0.0, 0.0, 0.0, 1.0, count)
        if np.ptp(differences) <= ROUNDING * max(abs(first[seed]) for seed in seeds):
            return Difference(mean, unknown, unknown, unknown, unknown, count)
    draws = np.random.default_rng(0).choice(differences, (RESAMPLES, count)).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    error, degrees = _error(differences, images)
    p = float(2 * scipy_stats().t.sf(abs(mean) / error, degrees))
    return Difference(mean, half, float(low), float(high), p, count)


def image_differences(
    first: Mapping[int, Mapping[str, float]], second: Mapping[int, Mapping[str, float]]
) -> dict[str, float]:
    """Difference of two methods on each test image, averaged over the seeds that both have.

    Args:
        first: figures by seed and image.
        second: figures of the other method by seed and image.

    Returns:
        By image; empty where the runs were not tested on the same images.
    """
    seeds = sorted(set(first) & set(second))
    images = [set(each[seed]) for each in (first, second) for seed in seeds]
    if not images or any(found != images[0] for found in images):
        return {}
    return {
        name: float(np.mean([first[seed][name] - second[seed][name] for seed in seeds]))
        for name in sorted(images[0])
    }


def scipy_stats() -> ModuleType:
    """``scipy.stats``.

    Raises:
        ConfigError: scipy is not installed.
    """
    try:
        from scipy import stats
    except ImportError as error:
        raise ConfigError(
            f"compare needs scipy, which cannot be imported ({error}): pip install -e '.[compare]'"
        ) from error
    return stats
