"""Data module of an Atari game, with separate environments for training and evaluation.

The environments belong to the data module, not to the task, because they can be neither pickled nor
copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import RenamedOptions
from zoo_lightning.rl.environments.atari import AtariEnvs, find_game

RANK_SEED_OFFSET = 1_000_003
"""Difference between the seeds of two processes."""

EVAL_SEED_OFFSET = 7_919_000_003
"""Difference between the seeds of training and evaluation environments."""


class Numbers(Dataset[int]):
    """Data set of integers from 0; each stands for one rollout, or for all games of an evaluation.

    Args:
        count: length of the data set.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


class RolloutLoader(DataLoader[int]):
    """Loader of rollout indices, one per batch, that can be resumed from a checkpoint.

    Args:
        rollouts: number of rollouts in the whole training.
    """

    def __init__(self, rollouts: int) -> None:
        super().__init__(Numbers(rollouts), batch_size=None)
        self.position = 0

    def __iter__(self) -> Iterator[int]:  # type: ignore[override]  # iterated, never indexed
        for number in range(self.position, len(self)):
            self.position = number + 1
            yield number

    def state_dict(self) -> dict[str, int]:
        """Number of rollouts delivered so far, for checkpoints."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Resume at a saved number of rollouts."""
        self.position = state["position"]


class AtariData(pl.LightningDataModule, metaclass=RenamedOptions):
    """Data module of one Atari game.

    One batch of training stands for a rollout of ``num_envs`` environments over ``num_steps``
    steps in each process; one epoch is the whole training. In training, the loss of a life ends the
    return and rewards are clipped to their sign; validation, test and prediction play whole games
    for their score.

    Checkpoints hold the state of all games, and a resumed run continues the same games, if actions
    are not sticky and the number of processes is the same; otherwise new games begin.

    Args:
        game: name of the game, such as ``Pong``, ``ms_pacman`` or ``ALE/MsPacman-v5``.
        total_steps: agent steps of the whole training, summed over all environments and processes;
            one agent step lasts ``frame_skip`` frames.
        num_envs: number of environments in each process.
        num_steps: steps of each environment in a rollout, between two updates.
        val_games: number of whole games in a validation.
        test_games: number of whole games that a test plays with the policy, and again at random.
        max_frames: frames after which a game is cut off; 108,000 are half an hour.
        noop_max: exclusive upper limit of the random number of no-ops at a game's start.
        frame_skip: frames for which an action is held.
        sticky_actions: probability with which a frame repeats the last action; 0.25 in Machado et
            al. 2018.
        full_action_space: use all 18 Atari actions instead of the game's minimal action set.
        fire: press the fire button at a game's start and after a lost life, in games that know it;
            the latter steps count in the score and are not learned from.
        num_threads: number of threads that step the games; 0 for one per core.
        seed: seed of no-ops and sticky actions.

    Raises:
        ConfigError: the game is unknown, ale-py is missing, or a number is out of range.
    """

    former_names: ClassVar[Mapping[str, str]] = {"rollout_steps": "num_steps"}

    def __init__(
        self,
        game: str = "pong",
        total_steps: int = 1_000_000,
        num_envs: int = 8,
        num_steps: int = 128,
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
            "num_steps": num_steps,
            "val_games": val_games,
            "test_games": test_games,
        }
        for name, value in least.items():
            if value < 1:
                raise ConfigError(f"`{name}` must be at least 1, got {value}.")
        self.game = find_game(game)
        self.total_steps = total_steps
        self.num_envs = num_envs
        self.num_steps = num_steps
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
        self._eval_envs: dict[int, AtariEnvs] = {}
        self.action_names = self._make(1, learning=False).action_names
        """Names of the game's actions, in the order of the policy's outputs."""

    @property
    def num_actions(self) -> int:
        """Number of the game's actions, the number of logits of the policy."""
        return len(self.action_names)

    def facts(self) -> dict[str, Any]:
        """Facts needed to play with a saved policy: game, actions, environment, seed."""
        return {
            "game": self.game,
            "actions": self.action_names,
            "environment": self.options,
            "seed": self.seed,
        }

    def training_options(self) -> dict[str, Any]:
        """Options that determine the training games; a run can be resumed with the same ones only.

        Returns:
            Plain values by the options' names, for checkpoints.
        """
        played = {name: value for name, value in self.options.items() if name != "num_threads"}
        return {
            "class_path": type(self).__name__,
            "game": self.game,
            "num_envs of all processes": self.num_envs * self._ranks()[1],
            "num_steps": self.num_steps,
            "seed": self.seed,
        } | played

    def _make(self, num_envs: int, learning: bool) -> AtariEnvs:
        return AtariEnvs(self.game, num_envs, learning, **self.options)

    def _ranks(self) -> tuple[int, int]:
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    @cached_property
    def train_envs(self) -> AtariEnvs:
        """Training environments, created at the first access and not yet reset."""
        return self._make(self.num_envs, learning=True)

    def eval_envs(self, games: int) -> AtariEnvs:
        """Evaluation environments, at most one for each game."""
        number = min(self.num_envs, games)
        if number not in self._eval_envs:  # they take long to make
            self._eval_envs[number] = self._make(number, learning=False)
        return self._eval_envs[number]

    @property
    def train_seed(self) -> int:
        """Seed of this process's training environments."""
        return self.seed + self._ranks()[0] * RANK_SEED_OFFSET

    @property
    def eval_seed(self) -> int:
        """Seed of this process's validation games; the same for every policy."""
        return self.train_seed + EVAL_SEED_OFFSET

    @property
    def test_seed(self) -> int:
        """Seed of this process's test games, which differ from the validation games."""
        return self.eval_seed + EVAL_SEED_OFFSET

    def share(self, games: int) -> int:
        """Number of games that this process plays out of ``games`` for all processes."""
        rank, world_size = self._ranks()
        return len(range(rank, games, world_size))

    @property
    def steps_per_rollout(self) -> int:
        """Number of agent steps in a rollout of all processes."""
        return self.num_envs * self.num_steps * self._ranks()[1]

    def begin_training(self) -> Any:
        """Begin the training games, or continue those of the checkpoint.

        Returns:
            Observations ``(N, 4, 84, 84)`` uint8.
        """
        rank, world_size = self._ranks()
        saved, self._saved = self._saved.get("envs", []), {}
        if len(saved) == world_size and saved[rank] and not self.sticky:
            return self.train_envs.load_state_dict(saved[rank])
        # Other games than before, also after a second resume: the first saved seed says how far on.
        begun = saved[0]["seed"] - self.seed if saved and saved[0] else 0
        return self.train_envs.reset(self.train_seed + max(begun, 0) + len(saved))

    def train_dataloader(self) -> RolloutLoader:
        """Loader of one batch for each rollout in ``total_steps``.

        Raises:
            ConfigError: ``total_steps`` is less than one rollout.
        """
        rollouts = self.total_steps // self.steps_per_rollout
        if rollouts < 1:
            raise ConfigError(
                f"total_steps {self.total_steps} are less than one rollout of "
                f"{self.steps_per_rollout} steps; give more, or fewer num_envs or num_steps"
            )
        return RolloutLoader(rollouts)

    def val_dataloader(self) -> DataLoader:
        """Loader of one batch, which stands for all games of a validation."""
        return DataLoader(Numbers(1), batch_size=None)

    def test_dataloader(self) -> DataLoader:
        """Loader of one batch, which stands for all games of a test."""
        return DataLoader(Numbers(1), batch_size=None)

    def predict_dataloader(self) -> DataLoader:
        """Loader of one batch, which stands for one game."""
        return DataLoader(Numbers(1), batch_size=None)

    def state_dict(self) -> dict[str, Any]:
        """State of the games of all processes, for checkpoints."""
        if "train_envs" not in self.__dict__:  # a test: nobody has trained
            return self._saved
        mine = self.train_envs.state_dict()
        states = [mine]
        if self._ranks()[1] > 1:
            states = [{}] * self._ranks()[1]
            dist.all_gather_object(states, mine)
        return {"envs": states}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Keep the games' state from a checkpoint for :meth:`begin_training`."""
        self._saved = state
