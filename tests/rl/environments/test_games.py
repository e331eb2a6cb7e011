"""Games are found by whatever people call them, and scores are put beside the literature's."""

import sys

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.rl.environments import all_games, find_game
from zoo_lightning.rl.environments.reference_scores import SCORES, human_normalised


@pytest.mark.parametrize(
    ("name", "game"),
    [
        ("pong", "pong"),
        ("MsPacman", "ms_pacman"),
        ("ms_pacman", "ms_pacman"),
        ("ALE/SpaceInvaders-v5", "space_invaders"),
        ("BreakoutNoFrameskip-v4", "breakout"),
        ("Qbert-v4", "qbert"),
    ],
)
def test_a_game_is_found_by_its_usual_names(name, game):
    assert find_game(name) == game


def test_an_unknown_game_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'Space Invader'\. Did you mean 'space_invaders'"):
        find_game("Space Invader")


@pytest.mark.parametrize("name", ["combat", "Joust-v5", "warlords"])
def test_a_game_that_would_end_the_process_is_refused(name):
    with pytest.raises(ConfigError, match="that ale-py can run"):
        find_game(name)


def test_without_ale_py_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[rl\]'"):
        find_game("pong")


def test_reference_scores_are_of_games_that_exist():
    assert len(SCORES) == 57
    assert set(SCORES) < set(all_games())


def test_random_play_has_score_zero_and_a_person_has_score_one():
    for game, (random, human) in SCORES.items():
        assert human_normalised(game, random) == 0
        assert human_normalised(game, human) == pytest.approx(1)
    assert human_normalised("adventure", 1.0) is None
