"""What a step of several environments gives back. ``N`` is the number of environments."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np


class Game(NamedTuple):
    """A whole game that has ended.

    Attributes:
        env: in which environment it was played.
        score: sum of all its rewards, unclipped.
        length: decisions of the agent in it.
    """

    env: int
    score: float
    length: int


class Step(NamedTuple):
    """What a step of ``N`` environments led to.

    Attributes:
        observations: ``(N, C, H, W)`` uint8, what the agent sees next; of a new game where one has
            ended.
        rewards: ``(N,)`` float32, to learn from; clipped if the environments clip.
        ended: ``(N,)`` bool, whether the return ends with this step: the game is over, was cut off,
            or a life was lost where that counts.
        truncated: ``(N,)`` bool, whether the game was cut off by its time limit, so that more
            reward would have come.
        chosen: ``(N,)`` bool, whether the action given was carried out; false where the
            environments pressed a button of their own, which nothing can be learned from.
        last_observations: ``(N, C, H, W)`` uint8, what the agent saw at the end, right only where
            ``truncated``; ``None`` if no game was cut off.
        games: those that have ended.
    """

    observations: np.ndarray
    rewards: np.ndarray
    ended: np.ndarray
    truncated: np.ndarray
    chosen: np.ndarray
    last_observations: np.ndarray | None
    games: list[Game]


class Environments(Protocol):
    """Several environments that are stepped together, each restarting by itself."""

    num_envs: int
    num_actions: int
    observation_shape: tuple[int, ...]
    """``(C, H, W)``."""

    def reset(self, seed: int) -> np.ndarray:
        """Begin anew; gives observations ``(N, C, H, W)``."""

    def step(self, actions: np.ndarray) -> Step:
        """Carry out an action ``(N,)`` int64 in each."""

    def state_dict(self) -> dict[str, Any]:
        """Where they are, in plain types, so that :meth:`load_state_dict` can go on from there."""

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray:
        """Go on from a saved state; gives observations ``(N, C, H, W)``."""
