"""Atari games as data: environments to learn from and others to judge by.

Environments live here and not in the task, because they can be neither pickled nor copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import lightning.pytorch as pl
import torch.distributed as dist
from torch.utils.data import DataLoader

from zoo_lightning.envs.atari import AtariEnvs
from zoo_lightning.envs.games import find_game
from zoo_lightning.errors import ConfigError

RANKS_APART = 1_000_003
"""Between the seeds of two processes."""

JUDGED_APART = 7_919_000_003
"""Between the seeds of environments to learn from and of those to judge by."""


class RolloutLoader(DataLoader):
    """Numbers of the rollouts that make up a training; goes on after a restart where it was."""

    def __init__(self, rollouts: int) -> None:
        super().__init__(range(rollouts), batch_size=None)
        self.position = 0

    def __iter__(self) -> Iterator[int]:
        for number in range(self.position, len(self)):
            self.position = number + 1
            yield number

    def state_dict(self) -> dict[str, int]:
        """Rollouts delivered."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a saved position."""
        self.position = state["position"]


class AtariData(pl.LightningDataModule):
    """One Atari game.

    One batch of training stands for a rollout of ``num_envs`` environments over ``rollout_steps``
    steps in each process; one epoch is the whole training. In training, the loss of a life ends the
    return and rewards are clipped to their sign; validation, test and prediction play whole games
    for their score.

    A checkpoint holds where all games are, and a run that goes on plays on in the same games, as
    long as actions are not sticky and the number of processes is the same; otherwise new games
    begin.

    Args:
        game: as ``Pong``, ``ms_pacman`` or ``ALE/MsPacman-v5``.
        total_steps: decisions of the agent over the whole training, all environments and processes
            together; one lasts ``frame_skip`` frames.
        num_envs: environments in each process.
        rollout_steps: steps of each environment between two updates.
        val_games: whole games in a validation.
        test_games: whole games in a test, played by the policy and as many at random.
        max_frames: frames after which a game is cut off; 108,000 are half an hour.
        noop_max: no-ops at a game's start are fewer than this, by chance.
        frame_skip: frames for which an action is held.
        sticky_actions: probability with which a frame repeats the last action; 0.25 in Machado et
            al. 2018.
        full_action_space: all 18 actions in place of those that the game knows.
        fire: press the fire button at a game's start and after a lost life, in games that know it;
            the latter steps count in the score and are not learned from.
        num_threads: threads of the games, 0 for one a core.
        seed: of no-ops and of sticky actions.

    Raises:
        ConfigError: unknown game, ale-py missing, or numbers that make no sense.
    """

    def __init__(
        self,
        game: str = "pong",
        total_steps: int = 1_000_000,
        num_envs: int = 8,
        rollout_steps: int = 128,
        val_games: int = 8,
        test_games: int = 30,
        max_frames: int = 108_000,
        noop_max: int = 30,
        frame_skip: int = 4,
        sticky_actions: float = 0.0,
        full_action_space: bool = False,
        fire: bool = True,
        num_threads: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        least = {
            "num_envs": num_envs,
            "rollout_steps": rollout_steps,
            "val_games": val_games,
            "test_games": test_games,
        }
        for name, value in least.items():
            if value < 1:
                raise ConfigError(f"`{name}` must be at least 1, found {value}.")
        self.game = find_game(game)
        self.total_steps = total_steps
        self.num_envs = num_envs
        self.rollout_steps = rollout_steps
        self.val_games = val_games
        self.test_games = test_games
        self.seed = seed
        self.options: dict[str, Any] = {
            "max_frames": max_frames,
            "noop_max": noop_max,
            "frame_skip": frame_skip,
            "sticky_actions": sticky_actions,
            "full_action_space": full_action_space,
            "fire": fire,
            "num_threads": num_threads,
        }
        self.sticky = sticky_actions > 0
        self._saved: dict[str, Any] = {}
        self._judging: dict[int, AtariEnvs] = {}
        self.action_names = self._make(1, learning=False).action_names
        """Actions of the game, in the order of the policy's outputs."""

    @property
    def num_actions(self) -> int:
        """Actions of the game, which the policy's head takes."""
        return len(self.action_names)

    def facts(self) -> dict[str, Any]:
        """What somebody must know who lets a policy play: game, actions, environment, seed."""
        return {
            "game": self.game,
            "actions": self.action_names,
            "environment": self.options,
            "seed": self.seed,
        }

    def training_options(self) -> dict[str, Any]:
        """Options that decide which games are learned from; a run goes on with the same ones only.

        Returns:
            Plain values by the options' names, for checkpoints.
        """
        played = {name: value for name, value in self.options.items() if name != "num_threads"}
        return {
            "class_path": type(self).__name__,
            "game": self.game,
            "num_envs of all processes": self.num_envs * self._ranks()[1],
            "rollout_steps": self.rollout_steps,
            "seed": self.seed,
        } | played

    def _make(self, num_envs: int, learning: bool) -> AtariEnvs:
        return AtariEnvs(self.game, num_envs, learning, **self.options)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @cached_property
    def train_envs(self) -> AtariEnvs:
        """Environments to learn from, not yet begun; made when first asked for."""
        return self._make(self.num_envs, learning=True)

    def judging_envs(self, games: int) -> AtariEnvs:
        """Environments that play whole games for their score, as many as are of use."""
        number = min(self.num_envs, games)
        if number not in self._judging:  # they take long to make
            self._judging[number] = self._make(number, learning=False)
        return self._judging[number]

    @property
    def train_seed(self) -> int:
        """Seed of this process's environments to learn from."""
        return self.seed + self._ranks()[0] * RANKS_APART

    @property
    def judging_seed(self) -> int:
        """Seed of this process's environments to judge by; the same for every policy."""
        return self.train_seed + JUDGED_APART

    @property
    def test_seed(self) -> int:
        """Seed of the test's games: others than those by which the best checkpoint is chosen."""
        return self.judging_seed + JUDGED_APART

    def share(self, games: int) -> int:
        """This process's share of a number of games."""
        rank, world_size = self._ranks()
        return len(range(rank, games, world_size))

    @property
    def steps_per_rollout(self) -> int:
        """Agent steps in a rollout of all processes."""
        return self.num_envs * self.rollout_steps * self._ranks()[1]

    def begin_training(self) -> Any:
        """Begin the games to learn from, or go on with those of the checkpoint.

        Returns:
            Observations ``(N, 4, 84, 84)`` uint8.
        """
        rank, world_size = self._ranks()
        saved, self._saved = self._saved.get("envs", []), {}
        if len(saved) == world_size and saved[rank] and not self.sticky:
            return self.train_envs.load_state_dict(saved[rank])
        return self.train_envs.reset(self.train_seed + len(saved))

    def train_dataloader(self) -> RolloutLoader:
        """As many batches as there are rollouts in ``total_steps``.

        Raises:
            ConfigError: not even one.
        """
        rollouts = self.total_steps // self.steps_per_rollout
        if rollouts < 1:
            raise ConfigError(
                f"total_steps {self.total_steps} are less than one rollout of "
                f"{self.steps_per_rollout} steps; give more, or fewer num_envs or rollout_steps"
            )
        return RolloutLoader(rollouts)

    def val_dataloader(self) -> DataLoader:
        """One batch that stands for all games of a validation."""
        return DataLoader(range(1), batch_size=None)

    def test_dataloader(self) -> DataLoader:
        """One batch that stands for all games of a test."""
        return DataLoader(range(1), batch_size=None)

    def predict_dataloader(self) -> DataLoader:
        """One batch that stands for one game."""
        return DataLoader(range(1), batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """Where the games of all processes are."""
        if "train_envs" not in self.__dict__:  # a test: nobody has trained
            return self._saved
        mine = self.train_envs.state_dict()
        states = [mine]
        if self._ranks()[1] > 1:
            states = [None] * self._ranks()[1]
            dist.all_gather_object(states, mine)
        return {"envs": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep a checkpoint's games for :meth:`begin_training`."""
        self._saved = state
