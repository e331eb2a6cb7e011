"""Protocol of vectorised environments and the results of their steps.

``N`` is the number of environments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np


class Game(NamedTuple):
    """Result of a game that has ended.

    Attributes:
        env: index of the environment that played it.
        score: sum of its unclipped rewards.
        length: number of agent steps.
    """

    env: int
    score: float
    length: int


class Step(NamedTuple):
    """Result of a step of ``N`` environments.

    Attributes:
        observations: ``(N, C, H, W)`` uint8, next observations; the first of a new game where a
            game has ended.
        rewards: ``(N,)`` float32, rewards to learn from; clipped if the environments clip.
        ended: ``(N,)`` bool, whether the return ends with this step: the game is over or truncated,
            or, in training, a life was lost.
        truncated: ``(N,)`` bool, whether a time limit ended the game.
        chosen: ``(N,)`` bool, whether the given action was carried out; false where the environment
            replaced it, so that the step must not be learned from.
        last_observations: ``(N, C, H, W)`` uint8, last observations of the games, valid only where
            ``truncated``; ``None`` if no game was truncated.
        games: games that have ended.
    """

    observations: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    truncated: np.ndarray
    chosen: np.ndarray
    last_observations: np.ndarray | None
    games: list[Game]


class Environments(Protocol):
    """Protocol of vectorised environments that restart automatically."""

    num_envs: int
    num_actions: int
    observation_shape: tuple[int, ...]
    """Shape ``(C, H, W)`` of an observation."""

    def reset(self, seed: int) -> np.ndarray:
        """Begin new games; returns observations ``(N, C, H, W)``."""

    def step(self, actions: np.ndarray) -> Step:
        """Carry out one action per environment, ``(N,)`` int64."""

    def state_dict(self) -> dict[str, Any]:
        """State of all games in plain types, for :meth:`load_state_dict`."""

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray:
        """Restore a saved state; returns observations ``(N, C, H, W)``."""
