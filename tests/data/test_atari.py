"""The data module of Atari games: seeds, shares, lengths and where games are."""

import numpy as np
import pytest

from zoo_lightning.data.atari import AtariData
from zoo_lightning.errors import ConfigError


def test_the_policys_head_gets_the_games_actions():
    assert AtariData("Breakout").num_actions == 4
    assert AtariData("Breakout", full_action_space=True).num_actions == 18


def test_a_training_has_as_many_rollouts_as_fit_into_its_steps():
    data = AtariData("pong", total_steps=1000, num_envs=4, num_steps=32)
    assert len(data.train_dataloader()) == 1000 // 128
    assert list(data.train_dataloader()) == list(range(7))
    data.total_steps = 100
    with pytest.raises(ConfigError, match="less than one rollout of 128 steps"):
        data.train_dataloader()


def test_rollouts_go_on_after_those_already_delivered():
    loader = AtariData("pong", total_steps=640, num_envs=1).train_dataloader()
    numbers = iter(loader)
    assert [next(numbers), next(numbers)] == [0, 1]
    other = AtariData("pong", total_steps=640, num_envs=1).train_dataloader()
    other.load_state_dict(loader.state_dict())
    assert list(other) == [2, 3, 4]


def test_games_to_learn_from_and_to_judge_by_differ():
    data = AtariData("pong", num_envs=2)
    assert data.train_envs.learning
    judging = data.eval_envs(1)
    assert not judging.learning
    assert judging.num_envs == 1
    assert len({data.train_seed, data.eval_seed, data.test_seed}) == 3


def test_a_run_goes_on_in_the_games_of_its_checkpoint():
    data = AtariData("pong", num_envs=2, seed=3)
    assert data.state_dict() == {}
    data.begin_training()
    for _ in range(20):
        seen = data.train_envs.step(np.array([2, 3])).observations
    again = AtariData("pong", num_envs=2, seed=3)
    again.load_state_dict(data.state_dict())
    assert again.state_dict() == data.state_dict()
    assert (again.begin_training() == seen).all()


def test_with_sticky_actions_every_resume_plays_other_games():
    saved, seeds = {}, []
    for _ in range(4):
        data = AtariData("pong", num_envs=1, seed=3, sticky_actions=0.25)
        data.load_state_dict(saved)
        data.begin_training()
        saved = data.state_dict()
        seeds.append(data.train_envs.seed_of(0))
    assert len(set(seeds)) == 4


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="Did you mean 'breakout'"):
        AtariData("brakeout")
    with pytest.raises(ConfigError, match="num_envs"):
        AtariData("pong", num_envs=0)
    with pytest.raises(ConfigError, match="test_games"):
        AtariData("pong", test_games=0)
