"""Means over seeds and games with their confidence intervals, and tests of differences.

Interquartile means and stratified bootstrap intervals over several games are those of Agarwal et
al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*, NeurIPS 2021, sections
4.1 to 4.3. Their package's last release (1.2.0) does not run with current versions of pandas.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import NamedTuple

import numpy as np

from zoo_lightning.errors import ConfigError

RESAMPLES = 10_000
"""Number of bootstrap samples."""

ROUNDING = 1e-5
"""Relative difference below which values are equal up to single-precision rounding."""

Scores = Sequence[np.ndarray]
"""Scores ``(R,)`` of the runs on each game; games may have different numbers of runs."""


class Interval(NamedTuple):
    """Mean over seeds with half the width of its 95 % interval; NaN for a single seed."""

    mean: float
    half: float
    seeds: int


class Difference(NamedTuple):
    """Difference of two methods over their common seeds, with intervals and p value.

    ``half``, ``low``, ``high`` and ``p`` are NaN for a single seed, and if all differences are the
    same, because these do not show the spread. If all figures are equal, the difference is exactly
    0 with ``p`` 1.

    Attributes:
        mean: first method minus second method.
        half: half the width of the 95 % interval by Student's t over seeds and, if known, test
            images.
        low: lower end of the 95 % bootstrap interval over seeds.
        high: upper end of the 95 % bootstrap interval over seeds.
        p: two-sided p value of the t-test that corresponds to ``half``.
        seeds: number of seeds.
    """

    mean: float
    half: float
    low: float
    high: float
    p: float
    seeds: int


class BootstrapEstimate(NamedTuple):
    """Statistic over runs and games with its 95 % stratified bootstrap interval."""

    value: float
    low: float
    high: float


def interval(
    values: Sequence[float] | np.ndarray, images: Mapping[str, float] | None = None
) -> Interval:
    """Compute a mean over seeds and half the width of its 95 % interval.

    The spread over seeds shows how much another training would differ on the same test images;
    the mean also depends on the choice of images. The variances of the mean from both are added,
    each with its degrees of freedom (Satterthwaite, *An approximate distribution of estimates of
    variance components*, 1946). Spread that is due to both is counted twice, so the interval is
    conservative.

    Args:
        values: a value for each seed.
        images: mean over the seeds for each test image, by name; ``None`` or empty if unknown.
    """
    numbers = np.asarray(values, dtype=float)
    mean, seeds = float(numbers.mean()) if len(numbers) else math.nan, len(numbers)
    if seeds < 2:
        return Interval(mean, math.nan, seeds)
    error, degrees = _error(numbers, images)
    return Interval(mean, float(scipy_stats().t.ppf(0.975, degrees) * error), seeds)


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
    """Format ``mean ± half`` with two decimals; ``sign="+"`` always shows the mean's sign."""
    spread = "" if figure.half != figure.half else f" ± {figure.half:.2f}"
    return f"{figure.mean:{sign}.2f}{spread}"


def paired(
    first: Mapping[int, float],
    second: Mapping[int, float],
    images: Mapping[str, float] | None = None,
) -> Difference:
    """Compute the difference of two methods, paired by seed.

    Args:
        first: figures of the first method by seed.
        second: figures of the second method by seed.
        images: difference on each test image, averaged over the common seeds; see
            :func:`image_differences`.
    """
    seeds = sorted(set(first) & set(second))
    differences = np.array([first[seed] - second[seed] for seed in seeds], dtype=float)
    mean, half, count = interval(differences, images)
    unknown = Difference(mean, math.nan, math.nan, math.nan, math.nan, count)
    if count < 2:
        return unknown
    if len(set((images or {}).values())) < 2:  # they do not show the spread
        if not np.any(differences):
            return Difference(0.0, 0.0, 0.0, 0.0, 1.0, count)
        if np.ptp(differences) <= ROUNDING * max(abs(first[seed]) for seed in seeds):
            return unknown
    low, high = bootstrap([differences], _mean)
    error, degrees = _error(differences, images)
    p = float(2 * scipy_stats().t.sf(abs(mean) / error, degrees))
    return Difference(mean, half, low, high, p, count)


def image_differences(
    first: Mapping[int, Mapping[str, float]], second: Mapping[int, Mapping[str, float]]
) -> dict[str, float]:
    """Compute the difference of two methods on each test image, averaged over common seeds.

    Args:
        first: figures of the first method by seed and image.
        second: figures of the second method by seed and image.

    Returns:
        Differences by image; empty if the runs were not tested on the same images.
    """
    seeds = sorted(set(first) & set(second))
    images = [set(each[seed]) for each in (first, second) for seed in seeds]
    if not images or any(found != images[0] for found in images):
        return {}
    return {
        name: float(np.mean([first[seed][name] - second[seed][name] for seed in seeds]))
        for name in sorted(images[0])
    }


def bootstrap(samples: Scores, statistic: Callable[..., np.ndarray]) -> tuple[float, float]:
    """Compute the 95 % bootstrap percentile interval of a statistic, with a fixed seed.

    Args:
        samples: one-dimensional arrays, one per stratum (game), each resampled separately.
        statistic: vectorised function of the samples, with keyword argument ``axis``.
    """
    several = [each for each in samples if len(each) > 1]
    if not several:
        return (float(statistic(*samples, axis=-1)),) * 2

    def of_drawn(*drawn: np.ndarray, axis: int) -> np.ndarray:
        rest, shape = iter(drawn), (*drawn[0].shape[:-1], 1)
        # A single value stays; scipy draws from two values or more.
        parts = [next(rest) if len(each) > 1 else np.broadcast_to(each, shape) for each in samples]
        return statistic(*parts, axis=axis)

    found = scipy_stats().bootstrap(
        several,
        of_drawn,
        n_resamples=RESAMPLES,
        method="percentile",
        vectorized=True,
        axis=-1,
        random_state=np.random.default_rng(0),
    )
    low, high = found.confidence_interval
    return float(low), float(high)


def estimate(scores: Scores, statistic: Callable[..., np.ndarray]) -> BootstrapEstimate:
    """Compute a statistic of the scores of all games and its stratified bootstrap interval.

    Args:
        scores: scores of one method by game, or of two methods one after the other.
        statistic: vectorised function of the games' scores, with keyword argument ``axis``.
    """
    return BootstrapEstimate(float(statistic(*scores, axis=-1)), *bootstrap(scores, statistic))


def interquartile_mean(*games: np.ndarray, axis: int = -1) -> np.ndarray:
    """Interquartile mean of the scores of all games, with equal weights of games."""
    return scipy_stats().trim_mean(_pooled(games), 0.25, axis=axis)


def mean_score(*games: np.ndarray, axis: int = -1) -> np.ndarray:
    """Mean of the scores of all games, with equal weights of games."""
    return _mean(_pooled(games), axis=axis)


def median_of_means(*games: np.ndarray, axis: int = -1) -> np.ndarray:
    """Median over games of the mean over runs (section 4.1)."""
    return np.median([_mean(of_game, axis=axis) for of_game in games], axis=0)


def probability_of_improvement(*games: np.ndarray, axis: int = -1) -> np.ndarray:
    """Probability that a run of the first method scores higher than one of the second.

    It is the mean over games of the share of pairs of runs in which the first scores higher; ties
    count half.

    Args:
        games: scores of the first method on all games, then those of the second.
        axis: axis of the runs, the last.
    """
    count = len(games) // 2
    shares = []
    for mine, theirs in zip(games[:count], games[count:], strict=True):
        difference = mine[..., :, None] - theirs[..., None, :]
        shares.append((np.sign(difference) / 2 + 0.5).mean(axis=(-2, -1)))
    return np.mean(shares, axis=0)


def _mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
    return values.mean(axis=axis)


def _pooled(scores: Scores) -> np.ndarray:
    """Scores of all games along the last axis, repeated so that games have the same number."""
    most = math.lcm(*(of_game.shape[-1] for of_game in scores))
    parts = [of_game.repeat(most // of_game.shape[-1], axis=-1) for of_game in scores]
    return np.concatenate(parts, axis=-1)


def scipy_stats() -> ModuleType:
    """Import ``scipy.stats``.

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
