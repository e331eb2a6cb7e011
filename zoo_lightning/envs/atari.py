"""Atari games, many at a time, as agents are trained and judged on them.

Stepping and preprocessing are ale-py's vector environment in C++ (Farama Foundation): frames of
84×84 in grey, the last four stacked, every action held for four frames of which the last two are
joined by their maximum, up to 30 no-ops and the fire button at a game's start (Mnih et al.,
*Human-level control through deep reinforcement learning*, 2015, methods). What it has of its own
for rewards, lives and restarts is switched off, because it would lose the score (clipping), never
play the later lives (``episodic_life`` restarts the game) or put an empty step into a rollout
(restart in the next step). These things are done here.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from zoo_lightning.envs.games import ale, find_game
from zoo_lightning.envs.stepping import Game, Step
from zoo_lightning.errors import ConfigError

SEED_EVERY = 100
"""Games after which an environment gets a new seed. Seeding loads the game anew, in the time of
fifteen games' starts; going on from a saved state repeats all games' starts since the last seed."""


class AtariEnvs:
    """``N`` games of one kind, each begun again as soon as it ends.

    Args:
        game: any name of :func:`~zoo_lightning.envs.games.find_game`.
        num_envs: ``N``.
        learning: as environments to learn from: rewards are clipped to their sign, and the loss of
            a life ends the return but not the game. Otherwise neither.
        max_frames: frames after which a game is cut off; 108,000 are half an hour.
        noop_max: no-ops at a game's start are fewer than this, by chance.
        frame_skip: frames for which an action is held.
        sticky_actions: probability with which a frame repeats the last action instead of the
            present one (Machado et al. 2018 use 0.25).
        full_action_space: all 18 actions in place of those that the game knows.
        fire: press the fire button at a game's start and, as the agent's first action after a lost
            life, in its place; only in games that know it. The step after a lost life is then not
            ``chosen``.
        num_threads: of the games, 0 for one a core.

    Attributes:
        last_actions: ``(N,)``, carried out in the last step.

    Raises:
        ConfigError: unknown game, ale-py missing, or a number that makes no sense.
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
                raise ConfigError(f"`{name}` must be at least {value}, found {locals()[name]}.")
        if not 0 <= sticky_actions < 1:
            raise ConfigError(f"`sticky_actions` must lie in [0, 1), found {sticky_actions}.")
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
        """A vector environment of one game that shows whole frames in colour, ``(1, 1, H, W, 3)``.

        With the seed and the actions of another single game it plays the very same one.
        """
        return self._make(
            1, grayscale=False, stack_num=1, img_height=210, img_width=160, num_threads=1
        )

    def reset(self, seed: int) -> np.ndarray:
        """Begin new games in all environments.

        Args:
            seed: of no-ops and sticky actions; the same seed and actions give the same games.

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
        """Note that new games have begun, with new seeds where these are due."""
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
        """Where all games are: seeds, games since, and the actions of those in progress.

        The emulators' memory cannot be saved. But a game follows from its seed, the number of games
        since and its actions, so these are saved and played again.
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
        """Play the saved games again up to where they were; takes seconds where games are long.

        With sticky actions only the games' starts are repeated: what the emulator drew in earlier
        games is not known. The games then go on otherwise than they would have.

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
        """Bring some environments to the start of the present game."""
        masks = [starting & (self._restarts > done) for done in range(int(self._restarts.max()))]
        observations, _ = self._envs.reset(
            seed=self._seeds[starting], options={"reset_mask": starting}
        )
        for mask in masks:
            if mask.any():
                observations, _ = self._envs.reset(options={"reset_mask": mask})
        return observations

    def seed_of(self, env: int) -> int:
        """The emulator's seed of an environment, from which its games follow."""
        return int(self._seeds[env])


def _mix(seed: int, env: int, number: int) -> int:
    """An emulator's seed: other environments and other numbers have other ones."""
    return int(np.random.SeedSequence([seed, env, number]).generate_state(1)[0] >> 1)
