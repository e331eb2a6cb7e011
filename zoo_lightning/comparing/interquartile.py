"""Interquartile means with stratified bootstrap intervals, for few runs on several games.

Agarwal et al., *Deep Reinforcement Learning at the Edge of the Statistical Precipice*, NeurIPS
2021, sections 4.1 to 4.3. Their package's last release (1.2.0) does not run with today's pandas, so
the three short formulas are here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from zoo_lightning.comparing.statistics import RESAMPLES, scipy_stats

Scores = Sequence[np.ndarray]
"""For each game ``(R,)`` scores, one of each run; games may have different numbers of runs."""


class Estimate(NamedTuple):
    """A figure over runs and games, with its 95 % interval by the stratified bootstrap."""

    value: float
    low: float
    high: float


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of the middle half of the scores of all runs and games together."""
    return float(scipy_stats().trim_mean(np.ravel(scores), 0.25))


def estimate(scores: Scores, statistic: Callable[[np.ndarray], float]) -> Estimate:
    """A statistic of all scores; runs are drawn anew game by game, so that every game stays.

    Args:
        scores: of one method.
        statistic: of the flat array of all scores.
    """
    rng = np.random.default_rng(0)
    drawn = [statistic(np.concatenate(_resampled(scores, rng))) for _ in range(RESAMPLES)]
    return Estimate(statistic(np.concatenate(scores)), *_ends(drawn))


def probability_of_improvement(first: Scores, second: Scores) -> Estimate:
    """How likely a run of the first method scores higher than one of the second.

    The mean over games of the share of pairs of runs in which it does; equal scores count half.

    Args:
        first: scores by game.
        second: likewise, of the same games.
    """
    rng = np.random.default_rng(0)
    pairs = [(_resampled(first, rng), _resampled(second, rng)) for _ in range(RESAMPLES)]
    return Estimate(_improved(first, second), *_ends([_improved(*pair) for pair in pairs]))


def _improved(first: Scores, second: Scores) -> float:
    shares = []
    for mine, theirs in zip(first, second, strict=True):
        difference = mine[:, None] - theirs[None, :]
        shares.append(np.mean(np.sign(difference) / 2 + 0.5))
    return float(np.mean(shares))


def _resampled(scores: Scores, rng: np.random.Generator) -> list[np.ndarray]:
    return [rng.choice(of_game, len(of_game)) for of_game in scores]


def _ends(drawn: Sequence[float]) -> tuple[float, float]:
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)
