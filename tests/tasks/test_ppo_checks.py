"""What a policy is refused: another game, and what PPO cannot learn with."""

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.tasks import PPOTask
from zoo_lightning.tasks.ppo import check_game

LEARNED = {"game": "pong", "environment": {"sticky_actions": 0.25, "num_threads": 2}}


def here(game="pong", **environment):
    return {"game": game, "environment": {**LEARNED["environment"], **environment}}


@pytest.mark.parametrize("learning", [True, False])
def test_another_game_is_refused(learning):
    check_game(LEARNED, here(num_threads=1), learning)
    with pytest.raises(ConfigError, match=r"learned pong, and data\.game is qbert"):
        check_game(LEARNED, here("qbert"), learning)


def test_another_environment_is_told_of_in_a_test_and_refused_in_training():
    words = r"data.sticky_actions is 0.25 in the checkpoint, 0.0 here"
    with pytest.warns(UserWarning, match=words):
        check_game(LEARNED, here(sticky_actions=0.0), learning=False)
    with pytest.raises(ConfigError, match=words):
        check_game(LEARNED, here(sticky_actions=0.0), learning=True)


def test_a_backbone_that_learns_otherwise_than_it_acts_is_refused():
    with pytest.raises(ConfigError, match=r"BatchNorm.*nature_cnn"):
        PPOTask(PlainBackbone("test_resnet"), num_actions=3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gamma": 1.5}, "gamma"),
        ({"gae_lambda": -0.1}, "gae_lambda"),
        ({"num_minibatches": 0}, "num_minibatches"),
        ({"clip_coef": 0.0}, "clip_coef"),
        ({"max_grad_norm": -1.0}, "max_grad_norm"),
        ({"norm_adv": "batch"}, "norm_adv"),
    ],
)
def test_options_outside_their_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        PPOTask(PlainBackbone("nature_cnn", in_chans=4), num_actions=2, **options)
