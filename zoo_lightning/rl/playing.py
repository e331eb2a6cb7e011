"""Playing whole games to judge a policy, or to film one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from zoo_lightning.envs.stepping import Environments, Game

Act = Callable[[np.ndarray], np.ndarray]
"""Chooses actions ``(N,)`` int64 for observations ``(N, C, H, W)`` uint8."""


def play_games(envs: Environments, act: Act, games: int, seed: int) -> list[Game]:
    """Play a number of whole games.

    Each environment plays its share, settled beforehand: taking the games that happen to end first
    would favour short ones.

    Args:
        envs: begun anew.
        act: the player.
        games: how many, over all environments.
        seed: of the environments.

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
    """A player that chooses every action equally often, by chance."""
    rng = np.random.default_rng(seed)
    return lambda observations: rng.integers(num_actions, size=len(observations))
