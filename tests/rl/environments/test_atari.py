"""Real games are played to their end and counted right: against a plain loop over the emulator."""

import io

import ale_py
import numpy as np
import pytest
import torch

from zoo_lightning.errors import ConfigError
from zoo_lightning.rl.environments import AtariEnvs
from zoo_lightning.rl.environments import atari as atari_module


class PlainLoop:
    """One game after another on the bare emulator, without a vector environment."""

    def __init__(self, game: str) -> None:
        self.ale = ale_py.ALEInterface()
        self.ale.setFloat("repeat_action_probability", 0.0)
        self.ale.setInt("random_seed", 0)
        self.ale.loadROM(ale_py.roms.get_rom_path(game))
        self.actions = list(self.ale.getMinimalActionSet())
        self.fire = next(action for action in self.actions if action.name == "FIRE")
        self.rewards, self.ended, self.games = [], [], []
        self.begin()

    def begin(self) -> None:
        """Start a game."""
        self.ale.reset_game()
        self.ale.act(self.fire)
        self.score, self.length, self.lives, self.refire = 0, 0, self.ale.lives(), False

    def step(self, action: int) -> None:
        """Hold an action, or after a lost life the fire button, for four frames."""
        pressed = self.fire if self.refire else self.actions[action]
        reward = 0
        for _ in range(4):
            if not self.ale.game_over():
                reward += self.ale.act(pressed)
        self.score, self.length = self.score + reward, self.length + 1
        lives = self.ale.lives()
        self.refire = lives < self.lives and not self.ale.game_over()
        self.lives = lives
        self.rewards.append(reward)
        self.ended.append((self.ale.game_over(), self.refire))
        if self.ale.game_over():
            self.games.append((self.score, self.length))
            self.begin()


def play(envs: AtariEnvs, steps: int, seed: int = 0) -> tuple[list, np.ndarray]:
    """Steps of chance actions, and the actions ``(T, N)``."""
    envs.reset(seed)
    actions = np.random.default_rng(seed).integers(envs.num_actions, size=(steps, envs.num_envs))
    return [envs.step(row) for row in actions], actions


@pytest.mark.parametrize("game", ["breakout", "space_invaders"])
def test_whole_games_with_all_lives_are_played_and_counted_as_by_a_plain_loop(game):
    steps = {"breakout": 400, "space_invaders": 1200}[game]
    envs = AtariEnvs(game, 1, noop_max=1)
    taken, actions = play(envs, steps)
    plain = PlainLoop(game)
    for action in actions[:, 0]:
        plain.step(int(action))
    games = [(game.score, game.length) for step in taken for game in step.games]
    assert len(games) >= 2
    assert max(score for score, _ in games) > 0
    assert games == plain.games
    # A lost life ends the return but not the game, and nothing else does.
    assert [bool(step.ended[0]) for step in taken] == [over or lost for over, lost in plain.ended]
    assert sum(lost for _, lost in plain.ended) >= 2 * len(games)
    assert [float(step.rewards[0]) for step in taken] == list(np.sign(plain.rewards))
    # The environment's own press of the fire button is marked as such.
    after_loss = [False] + [lost for _, lost in plain.ended[:-1]]
    assert [bool(step.chosen[0]) for step in taken] == [not lost for lost in after_loss]


def test_to_judge_by_neither_lives_end_the_return_nor_are_rewards_clipped():
    taken, _ = play(AtariEnvs("space_invaders", 2, learning=False), 700)
    rewards = np.stack([step.rewards for step in taken])
    ended = np.stack([step.ended for step in taken])
    games = [game for step in taken for game in step.games]
    assert rewards.max() > 1
    assert ended.sum() == len(games) > 0
    first = games[0]
    assert rewards[: first.length, first.env].sum() == first.score


def test_no_step_is_lost_between_two_games():
    envs = AtariEnvs("breakout", 2)
    taken, _ = play(envs, 500)
    games = [game for step in taken for game in step.games]
    for env in range(2):
        lengths = [game.length for game in games if game.env == env]
        assert len(lengths) >= 2
        assert sum(lengths) + len(envs.state_dict()["actions"][env]) == 500
    # The step that ends a game shows the next one's beginning: three empty frames in the stack.
    for step in taken:
        for game in step.games:
            assert not step.observations[game.env, :3].any()
            assert step.observations[game.env, 3].any()


def test_a_game_that_is_cut_off_shows_what_was_seen_last():
    envs = AtariEnvs("pong", 2, max_frames=200, noop_max=1)
    taken, _ = play(envs, 60)
    assert [number for number, step in enumerate(taken) if step.truncated.any()] == [49]
    cut, before = taken[49], taken[48].observations
    assert cut.truncated.all()
    assert cut.ended.all()
    assert [game.length for game in cut.games] == [50, 50]
    # Frames move up by one in the stack; a new game's are another matter.
    assert (cut.last_observations[:, :3] == before[:, 1:]).all()
    assert not (cut.observations[:, :3] == before[:, 1:]).all()
    assert all(step.last_observations is None for step in taken if step is not cut)


def test_a_game_that_is_lost_is_not_cut_off():
    taken, _ = play(AtariEnvs("breakout", 2), 300)
    assert any(step.games for step in taken)
    assert not any(step.truncated.any() for step in taken)


def test_the_same_seed_and_actions_give_the_same_games_and_other_seeds_others():
    def last(seed, envs):
        envs.reset(seed)
        for step in range(100):
            seen = envs.step(np.array([step % 4, 2])).observations
        return seen

    first = last(1, AtariEnvs("breakout", 2))
    assert (first == last(1, AtariEnvs("breakout", 2))).all()
    assert not (first == last(2, AtariEnvs("breakout", 2))).all()
    assert not (first[0] == first[1]).all()


def test_games_go_on_from_a_saved_state_exactly(monkeypatch):
    monkeypatch.setattr(atari_module, "SEED_EVERY", 2)
    envs = AtariEnvs("breakout", 2)
    taken, _ = play(envs, 450)
    counts = [sum(game.env == env for step in taken for game in step.games) for env in range(2)]
    assert sorted(counts) == [2, 3]  # one just after a new seed, one a game later
    file = io.BytesIO()
    torch.save(envs.state_dict(), file)
    file.seek(0)
    other = AtariEnvs("breakout", 2)
    seen = other.load_state_dict(torch.load(file, weights_only=True))
    assert (seen == taken[-1].observations).all()
    rng = np.random.default_rng(7)
    finished = 0
    for _ in range(200):
        actions = rng.integers(4, size=2)
        left, right = envs.step(actions), other.step(actions)
        finished += len(left.games)
        assert left.games == right.games
        for name in ("observations", "rewards", "ended", "chosen"):
            assert (getattr(left, name) == getattr(right, name)).all()
    assert finished > 0


def test_a_state_of_other_environments_is_refused():
    envs = AtariEnvs("pong", 1)
    envs.reset(0)
    with pytest.raises(ConfigError, match="is of 1 games of pong, here are 2 of pong"):
        AtariEnvs("pong", 2).load_state_dict(envs.state_dict())


def test_sticky_actions_are_off_unless_asked_for():
    assert AtariEnvs("pong", 1).sticky_actions == 0
    noop = np.array([0])
    left = np.array([3])

    def frames(**options):
        envs = AtariEnvs("breakout", 1, noop_max=1, **options)
        envs.reset(0)
        return [envs.step(left if step % 2 else noop).observations for step in range(30)]

    plain, sticky = frames(), frames(sticky_actions=0.25)
    assert not all((a == b).all() for a, b in zip(plain, sticky, strict=True))
    with pytest.raises(ConfigError, match="sticky_actions"):
        AtariEnvs("pong", 1, sticky_actions=1.5)


def test_the_full_action_space_has_eighteen_actions():
    assert AtariEnvs("breakout", 1).num_actions == 4
    assert AtariEnvs("breakout", 1, full_action_space=True).num_actions == 18


def test_the_film_shows_the_game_that_is_played():
    envs = AtariEnvs("breakout", 1, learning=False)
    film = envs.film()
    envs.reset(3)
    film.reset(seed=np.array([envs.seed_of(0)]))
    rng = np.random.default_rng(0)
    for _ in range(40):
        action = rng.integers(4, size=1)
        seen = envs.step(action).observations[0, -1]
        frame = film.step(action)[0]
    assert frame.shape == (1, 1, 210, 160, 3)
    # Averages over a coarse grid do not depend on how frames are made smaller.
    grey = frame[0, 0].astype(float) @ [0.299, 0.587, 0.114]
    coarse = grey.reshape(14, 15, 10, 16).mean(axis=(1, 3))
    ours = seen.astype(float).repeat(5, axis=0).repeat(5, axis=1)
    ours = ours.reshape(14, 30, 10, 42).mean(axis=(1, 3))
    assert np.corrcoef(coarse.flatten(), ours.flatten())[0, 1] > 0.98


@pytest.mark.slow
def test_every_game_can_be_played():
    from zoo_lightning.rl.environments import all_games

    for game in all_games():
        envs = AtariEnvs(game, 1)
        assert envs.reset(0).shape == (1, 4, 84, 84)
        assert envs.step(np.array([0])).observations.shape == (1, 4, 84, 84)
