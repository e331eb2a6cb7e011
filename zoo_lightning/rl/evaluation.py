"""Evaluation of policies over whole games, and the random player."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from zoo_lightning.rl.environments.reference_scores import SCORES, human_normalised

if TYPE_CHECKING:
    from zoo_lightning.rl.environments.stepping import Environments, Game

Act = Callable[[np.ndarray], np.ndarray]
"""Function that chooses actions ``(N,)`` int64 for observations ``(N, C, H, W)`` uint8."""


def play_games(envs: Environments, act: Act, games: int, seed: int) -> list[Game]:
    """Play a number of whole games and return their results.

    Each environment plays a fixed number of games: counting the games that end first would favour
    short ones.

    Args:
        envs: environments to play in; they are reset first.
        act: function that chooses the actions.
        games: number of games, over all environments.
        seed: seed of the environments.

    Returns:
        The games in the order in which they ended.
    """
    share, rest = divmod(games, envs.num_envs)
    wanted = np.full(envs.num_envs, share)
    wanted[:rest] += 1
    played: list[Game] = []
    observations = envs.reset(seed)
    while wanted.any():
        step = envs.step(act(observations))
        observations = step.observations
        for game in step.games:
            if wanted[game.env]:
                wanted[game.env] -= 1
                played.append(game)
    return played


def random_player(num_actions: int, seed: int) -> Act:
    """Create a player that chooses actions uniformly at random."""
    # Another stream than that of an environment with the same seed.
    rng = np.random.default_rng([seed, 1])
    return lambda observations: rng.integers(num_actions, size=len(observations))


def summarise(
    game: str, scores: Tensor, lengths: Tensor, random_scores: Tensor
) -> dict[str, float]:
    """Summarise the scores of games as means, quantiles and human-normalised score.

    Args:
        game: name of the game, as :func:`~zoo_lightning.rl.environments.atari.find_game` returns
            it.
        scores: ``(G,)``, scores of the games.
        lengths: ``(G,)``, lengths in agent steps.
        random_scores: ``(R,)``, scores of games played at random.

    Returns:
        ``episodic_return`` (mean score), its ``_std`` (over the games), ``_median``, ``_min`` and
        ``_max``, ``episodic_length``, ``random_return`` (random play, measured), and where the
        literature has figures ``human_return``, ``reference_random_return`` and
        ``human_normalized_score``, which takes random play from the literature; see
        :mod:`zoo_lightning.rl.environments.reference_scores`.
    """
    name, mean = "episodic_return", float(scores.mean())
    figures = {
        name: mean,
        f"{name}_std": float(scores.std()) if len(scores) > 1 else 0.0,
        f"{name}_median": float(scores.quantile(0.5)),
        f"{name}_min": float(scores.min()),
        f"{name}_max": float(scores.max()),
        "episodic_length": float(lengths.mean()),
        "random_return": float(random_scores.mean()),
    }
    relative = human_normalised(game, mean)
    if relative is not None:
        figures["reference_random_return"], figures["human_return"] = SCORES[game]
        figures["human_normalized_score"] = relative
    return figures
