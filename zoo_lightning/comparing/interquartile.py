"""Interquartile means with stratified bootstrap intervals, for few runs on several games.

Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*, NeurIPS
2021, sections 4.1 to 4.3. Their package's last release (1.2.0) does not run with today's pandas, so
the three short formulas are here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from zoo_lightning.comparing.statistics import RESAMPLES, scipy_stats

Scores = Sequence[np.ndarray]
"""For each game ``(R,)`` scores, one of each run; games may have different numbers of runs."""


Statistic = Callable[[np.ndarray], np.ndarray]


class Estimate(NamedTuple):
    """A figure over runs and games, with its 95 % interval by the stratified bootstrap."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: np.ndarray) -> np.ndarray:
    """Mean of the middle half along the last axis, over all runs and games together."""
    return scipy_stats().trim_mean(scores, 0.25, axis=-1)


def estimate(scores: Scores, statistic: Statistic) -> Estimate:
    """A statistic of all scores; runs are drawn anew game by game, so that every game stays.

    All games weigh the same, whatever their numbers of runs.

    Args:
        scores: of one method.
        statistic: along the last axis, which has the scores of all games.
    """
    drawn = statistic(_pooled(_resampled(scores, np.random.default_rng(0))))
    return Estimate(float(statistic(_pooled(scores))), *_ends(drawn))


def median_of_means(scores: Scores) -> Estimate:
    """Median over games of the mean of a game's runs (section 4.1).

    Args:
        scores: of one method.
    """
    drawn = _median_of_means(_resampled(scores, np.random.default_rng(0)))
    return Estimate(float(_median_of_means(scores)), *_ends(drawn))


def _median_of_means(scores: Scores) -> np.ndarray:
    return np.median([of_game.mean(axis=-1) for of_game in scores], axis=0)


def _pooled(scores: Scores) -> np.ndarray:
    """Scores of all games along the last axis, of each game as many, repeated evenly."""
    most = math.lcm(*(of_game.shape[-1] for of_game in scores))
    parts = [of_game.repeat(most // of_game.shape[-1], axis=-1) for of_game in scores]
    return np.concatenate(parts, axis=-1)


def probability_of_improvement(first: Scores, second: Scores) -> Estimate:
    """How likely a run of the first method scores higher than one of the second.

    The mean over games of the share of pairs of runs in which it does; equal scores count half.

    Args:
        first: scores by game.
        second: likewise, of the same games.
    """
    rng = np.random.default_rng(0)
    drawn = _improved(_resampled(first, rng), _resampled(second, rng))
    return Estimate(float(_improved(first, second)), *_ends(drawn))


def _improved(first: Scores, second: Scores) -> np.ndarray:
    shares = []
    for mine, theirs in zip(first, second, strict=True):
        difference = mine[..., :, None] - theirs[..., None, :]
        shares.append((np.sign(difference) / 2 + 0.5).mean(axis=(-2, -1)))
    return np.mean(shares, axis=0)


def _resampled(scores: Scores, rng: np.random.Generator) -> list[np.ndarray]:
    """``(RESAMPLES, R)`` for each game."""
    return [rng.choice(of_game, (RESAMPLES, len(of_game))) for of_game in scores]


def _ends(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
