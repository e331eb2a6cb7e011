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
    """A mean and half of its 95 % interval by Student's t; NaN of a single number."""

    mean: float
    half: float
    count: int


class Difference(NamedTuple):
    """Of two methods over the seeds that both have.

    Attributes:
        mean: first minus second.
        half: half of the 95 % interval by Student's t over the seeds' differences.
        low: end of the 95 % interval by the bootstrap over seeds.
        high: the other end.
        p: of the paired t-test, two-sided.
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


def interval(values: Sequence[float]) -> Interval:
    """Mean of values and half of its 95 % interval."""
    numbers = np.asarray(values, dtype=float)
    mean, count = float(numbers.mean()) if len(numbers) else float("nan"), len(numbers)
    if count < 2:
        return Interval(mean, float("nan"), count)
    error = numbers.std(ddof=1) / np.sqrt(count)
    return Interval(mean, float(scipy_stats().t.ppf(0.975, count - 1) * error), count)


def with_half(figure: Interval | Difference, sign: str = "") -> str:
    """``mean ± half`` to two decimals, with ``sign`` "+" always with its sign."""
    spread = "" if figure.half != figure.half else f" ± {figure.half:.2f}"
    return f"{figure.mean:{sign}.2f}{spread}"


def paired(first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    """Difference of two methods, seed by seed.

    Args:
        first: figures by seed.
        second: likewise.
    """
    seeds = sorted(set(first) & set(second))
    differences = np.array([first[seed] - second[seed] for seed in seeds], dtype=float)
    mean, half, count = interval(differences)
    unknown = float("nan")
    if count < 2:
        return Difference(mean, unknown, unknown, unknown, unknown, count)
    if not np.any(differences):
        return Difference(0.0, 0.0, 0.0, 0.0, 1.0, count)
    if np.ptp(differences) <= ROUNDING * max(abs(first[seed]) for seed in seeds):
        return Difference(mean, unknown, unknown, unknown, unknown, count)
    draws = np.random.default_rng(0).choice(differences, (RESAMPLES, count)).mean(axis=1)
    low, high = np.percentile(draws, [2.5, 97.5])
    p = float(scipy_stats().ttest_1samp(differences, 0.0).pvalue)
    return Difference(mean, half, float(low), float(high), p, count)


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
