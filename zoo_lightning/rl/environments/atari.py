"""Vectorised Atari environments for training and evaluation, and game names of ale-py.

Stepping and preprocessing are done by ale-py's C++ vector environment (Farama Foundation):
greyscale frames of 84×84 pixels, the last four stacked; every action repeated for four frames, of
which the last two are max-pooled; random no-ops and the fire button at a game's start (Mnih et al.,
*Human-level control through deep reinforcement learning*, 2015, methods). Its own reward clipping,
life-loss episodes and next-step autoreset are disabled, because they would lose the score, never
play the later lives (``episodic_life`` restarts the game) or put an empty step into a rollout. This
module does these things instead.
"""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

import numpy as np

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.rl.environments.stepping import Game, Step


def ale() -> ModuleType:
    """Import the package ``ale_py``.

    Raises:
        ConfigError: ale-py is not installed.
    """
    try:
        import ale_py
        import ale_py.vector_env
    except ImportError as error:
        raise ConfigError(
            f"Atari games need ale-py, which cannot be imported ({error}): "
            "pip install -e '.[rl]', or pip install ale-py"
        ) from error
    # Otherwise every environment greets the user on standard error.
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    return ale_py


def all_games() -> list[str]:
    """List ale-py's names of the Atari games that it can run, such as ``ms_pacman``, sorted.

    It also has ROMs, mostly of games for two, on which its emulator ends the process.
    """
    roms, supported = ale().roms, ale().ALEInterface.isSupportedROM
    return sorted(game for game in roms.get_all_rom_ids() if supported(roms.get_rom_path(game)))


def find_game(name: str) -> str:
    """Resolve a game's name such as ``ms_pacman``, ``MsPacman`` or ``ALE/MsPacman-v5``.

    Raises:
        ConfigError: no such game, or ale-py is missing; the message names the nearest game.
    """
    by_letters = {_letters(game): game for game in all_games()}
    bare = re.sub(r"(NoFrameskip|Deterministic)?-v\d+$", "", name.removeprefix("ALE/"))
    found = by_letters.get(_letters(bare))
    if found is None:
        guess = nearest(_letters(bare), by_letters)
        for letters, game in by_letters.items():
            guess = guess.replace(f"'{letters}'", f"'{game}'")
        raise ConfigError(
            f"unknown Atari game {name!r}.{guess} Known are the {len(by_letters)} games that "
            f"ale-py can run: {', '.join(by_letters.values())}"
        )
    return found


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


FRAME_SIZE = 84
"""Height and width of an observation, pixels; the vector environment's default."""

SEED_EVERY = 100
"""Games after which an environment gets a new seed. Seeding reloads the game, in the time of
fifteen games' starts; resuming from a saved state repeats all games' starts since the last seed."""


class AtariEnvs:
    """Vectorised environments of one Atari game that restart automatically.

    Args:
        game: name of the game, see :func:`~zoo_lightning.rl.environments.atari.find_game`.
        num_envs: number of environments ``N``.
        learning: whether the environments are for training: rewards are clipped to their sign, and
            the loss of a life ends the return but not the game.
        max_frames: frames after which a game is cut off; 108,000 are half an hour.
        noop_max: exclusive upper limit of the random number of no-ops at a game's start.
        frame_skip: frames for which an action is held.
        sticky_actions: probability with which a frame repeats the previous action instead of the
            current one, in [0, 1); 0.25 in Machado et al. 2018.
        full_action_space: use all 18 Atari actions instead of the game's minimal action set.
        fire: press the fire button at a game's start and, instead of the agent's action, in the
            first step after a lost life, in games with a fire button. That step is then not
            ``chosen``.
        num_threads: number of threads that step the games; 0 for one per core.

    Attributes:
        last_actions: ``(N,)``, actions carried out in the last step.

    Raises:
        ConfigError: the game is unknown, ale-py is missing, or a number is out of range.
    """

    last_actions: np.ndarray

    def __init__(
        self,
        game: str,
        num_envs: int = 8,
        learning: bool = True,
        max_frames: int = 108_000,
        noop_max: int = 30,
        frame_skip: int = 4,
        sticky_actions: float = 0.0,
        full_action_space: bool = False,
        fire: bool = True,
        num_threads: int = 0,
    ) -> None:
        least = {"num_envs": 1, "max_frames": 1, "noop_max": 1, "frame_skip": 1}
        for name, value in least.items():
            if locals()[name] < value:
                raise ConfigError(f"`{name}` must be at least {value}, got {locals()[name]}.")
        if not 0 <= sticky_actions < 1:
            raise ConfigError(f"`sticky_actions` must lie in [0, 1), got {sticky_actions}.")
        self.game = find_game(game)
        self.num_envs = num_envs
        self.learning = learning
        self.sticky_actions = sticky_actions
        self._options = {
            "max_num_frames_per_episode": max_frames,
            "noop_max": noop_max,
            "frameskip": frame_skip,
            "repeat_action_probability": sticky_actions,
            "full_action_space": full_action_space,
            "use_fire_reset": fire,
        }
        self._envs = self._make(num_envs, num_threads=num_threads, autoreset_mode="SameStep")
        actions = [action.name for action in self._envs.ale.get_action_set()]
        self.action_names = actions
        self.num_actions = len(actions)
        self.observation_shape = self._envs.single_observation_space.shape
        self._fire = actions.index("FIRE") if fire and "FIRE" in actions else None
        self._begun = False

    def _make(self, num_envs: int, **options: Any) -> Any:
        return ale().vector_env.AtariVectorEnv(
            self.game,
            num_envs,
            reward_clipping=False,
            episodic_life=False,
            life_loss_info=False,
            **self._options,
            **options,
        )

    def film(self) -> Any:
        """Create a vector environment of one game with full colour frames, ``(1, 1, H, W, 3)``.

        Given the seed and the actions of another environment's game, it plays the same game.
        """
        return self._make(
            1, grayscale=False, stack_num=1, img_height=210, img_width=160, num_threads=1
        )

    def reset(self, seed: int) -> np.ndarray:
        """Begin new games in all environments.

        Args:
            seed: seed of no-ops and sticky actions; the same seed and actions give the same games.

        Returns:
            Observations ``(N, 4, 84, 84)`` uint8.
        """
        number = self.num_envs
        self._seeds = np.array([_mix(seed, env, 0) for env in range(number)])
        self._seed, self._seedings = seed, np.zeros(number, dtype=np.int64)
        self._restarts = np.zeros(number, dtype=np.int64)  # since the last seed
        self._actions: list[list[int]] = [[] for _ in range(number)]  # of the present games
        self._scores = np.zeros(number)
        self._refire = np.zeros(number, dtype=bool)
        observations, info = self._envs.reset(seed=self._seeds)
        self._lives = info["lives"].copy()
        self._begun = True
        return observations

    def step(self, actions: np.ndarray) -> Step:
        """Carry out an action in each game.

        Args:
            actions: ``(N,)`` integers below ``num_actions``.
        """
        actions = np.asarray(actions, dtype=np.int64)
        chosen = ~self._refire
        if self._fire is not None and self._refire.any():
            actions = np.where(chosen, actions, self._fire)
        self.last_actions = actions
        observations, rewards, over, truncated, info = self._envs.step(actions)
        for history, action in zip(self._actions, actions.tolist(), strict=True):
            history.append(action)
        rewards = rewards.astype(np.float32)
        self._scores += rewards
        done = over | truncated
        lost = (info["lives"] < self._lives) & ~done
        self._lives = info["lives"].copy()
        if self._fire is not None:
            self._refire = lost
        games: list[Game] = []
        last = None
        if done.any():
            last = info["final_obs"] if truncated.any() else None
            for env in np.flatnonzero(done).tolist():
                games.append(Game(env, float(self._scores[env]), len(self._actions[env])))
            observations = self._begin(done, observations)
        if self.learning:
            rewards, done = np.sign(rewards), done | lost
        return Step(observations, rewards, done, truncated & ~over, chosen, last, games)

    def _begin(self, done: np.ndarray, observations: np.ndarray) -> np.ndarray:
        """Register new games, and reseed environments that are due."""
        for env in np.flatnonzero(done):
            self._actions[env] = []
        self._scores[done] = 0.0
        self._restarts[done] += 1
        due = done & (self._restarts >= SEED_EVERY)
        if due.any():
            self._seedings[due] += 1
            for env in np.flatnonzero(due):
                self._seeds[env] = _mix(self._seed, int(env), int(self._seedings[env]))
            self._restarts[due] = 0
            observations, info = self._envs.reset(
                seed=self._seeds[due], options={"reset_mask": due}
            )
            self._lives = info["lives"].copy()
        return observations

    def state_dict(self) -> dict[str, Any]:
        """State of all games: seeds, games since seeding, and actions of the current games.

        The emulators' memory cannot be saved. A game is determined by its seed, the number of games
        since seeding and its actions, so these are saved and replayed.
        """
        if not self._begun:
            return {}
        return {
            "game": self.game,
            "seed": self._seed,
            "seedings": self._seedings.tolist(),
            "restarts": self._restarts.tolist(),
            "actions": [bytes(actions) for actions in self._actions],
            "scores": self._scores.tolist(),
            "lives": self._lives.tolist(),
            "refire": self._refire.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> np.ndarray:
        """Replay the saved games up to their saved state, which takes seconds for long games.

        With sticky actions the games then continue differently: the emulator's random numbers
        depend on earlier games, of which only the starts are repeated.

        Raises:
            ConfigError: the state is of another game or number of environments.
        """
        if state["game"] != self.game or len(state["seedings"]) != self.num_envs:
            raise ConfigError(
                f"the checkpoint is of {len(state['seedings'])} games of {state['game']}, here are "
                f"{self.num_envs} of {self.game}; give the same game and number of environments"
            )
        observations = self.reset(state["seed"])
        self._seedings = np.array(state["seedings"])
        self._restarts = np.array(state["restarts"])
        self._seeds = np.array(
            [_mix(self._seed, env, int(n)) for env, n in enumerate(self._seedings)]
        )
        self._actions = [list(actions) for actions in state["actions"]]
        lengths = np.array([len(actions) for actions in self._actions])
        # Shorter games begin later, so that all are where they were after the last step.
        for step in range(int(lengths.max()) + 1):
            starting = lengths.max() - lengths == step
            if starting.any():
                observations = self._start_again(starting)
            if step == lengths.max():
                break
            ages = step - (lengths.max() - lengths)
            actions = [
                history[age] if age >= 0 else 0
                for history, age in zip(self._actions, ages.tolist(), strict=True)
            ]
            observations = self._envs.step(np.array(actions, dtype=np.int64))[0]
        self._scores = np.array(state["scores"])
        self._lives = np.array(state["lives"], dtype=self._lives.dtype)
        self._refire = np.array(state["refire"])
        return observations

    def _start_again(self, starting: np.ndarray) -> np.ndarray:
        """Restart the current game of some environments."""
        masks = [starting & (self._restarts > done) for done in range(int(self._restarts.max()))]
        observations, _ = self._envs.reset(
            seed=self._seeds[starting], options={"reset_mask": starting}
        )
        for mask in masks:
            if mask.any():
                observations, _ = self._envs.reset(options={"reset_mask": mask})
        return observations

    def seed_of(self, env: int) -> int:
        """Emulator seed of an environment, which determines its games."""
        return int(self._seeds[env])


def _mix(seed: int, env: int, number: int) -> int:
    """Derive an emulator seed that is unique to an environment and a number of seedings."""
    return int(np.random.SeedSequence([seed, env, number]).generate_state(1)[0] >> 1)
