"""Comparisons of policies taken together: interquartile means, intervals, chances to beat."""

import json

import numpy as np
import pytest

from zoo_lightning.benchmarking.grid import cells_of, open_comparison
from zoo_lightning.benchmarking.joint import join_games
from zoo_lightning.benchmarking.report import HINDSIGHT
from zoo_lightning.benchmarking.statistics import (
    RESAMPLES,
    estimate,
    interquartile_mean,
    mean_score,
    median_of_means,
    probability_of_improvement,
)
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipes import find_recipes
from zoo_lightning.rl.environments.reference_scores import SCORES

METHODS = ["scratch", "single", "lite"]


def options(game, task="PPOTask"):
    backbone = {"class_path": "ZooBackbone", "init_args": {
        "architecture": "nature_cnn", "sources": ["random:1", "random:2"]}}  # fmt: skip
    return {
        "seed_everything": 0,
        "trainer": {},
        "data": {"class_path": "AtariData", "init_args": {"game": game}},
        "model": {"class_path": task, "init_args": {"backbone": backbone}},
    }


def play(folder, game, human_scores):
    """A comparison whose runs scored so, in human-normalised scores by label, a number a seed."""
    comparison = open_comparison(folder, options(game))
    random, human = SCORES[game]
    recipes = find_recipes(METHODS, "PPOTask")
    for cell in cells_of(recipes, list(comparison.sources), [0, 1], [1.0]):
        score = random + human_scores[cell.label][cell.seed] * (human - random)
        path = comparison.run(cell) / "summary.json"
        path.parent.mkdir(parents=True)
        figures = {"validation": {"val/episodic_return": score},
                   "test": {"test/episodic_return": score}}  # fmt: skip
        path.write_text(json.dumps({"seconds": 1.0, "peak_memory_mb": 1, **figures}))
    return comparison.folder


ASSAULT = {"scratch": (0.1, 0.2), "single random-1": (0.4, 0.6), "single random-2": (0.3, 0.3),
           "lite": (0.7, 0.5)}  # fmt: skip
PHOENIX = {"scratch": (0.2, 0.2), "single random-1": (0.3, 0.2), "single random-2": (0.1, 0.1),
           "lite": (0.4, 0.5)}  # fmt: skip


def test_the_interquartile_mean_leaves_out_the_outer_quarters():
    scores = np.array([-100.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1000.0])
    assert interquartile_mean(scores) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert interquartile_mean(np.array([scores, scores])).tolist() == pytest.approx([3.5, 3.5])


def test_runs_are_drawn_game_by_game():
    # Within a game all runs are equal, so drawing them anew changes nothing.
    found = estimate([np.full(3, 1.0), np.full(5, 2.0)], mean_score)
    assert found == (pytest.approx(1.5),) * 3
    spread = estimate([np.array([0.0, 1.0]), np.full(2, 2.0)], mean_score)
    assert (spread.low, spread.value, spread.high) == pytest.approx((1.0, 1.25, 1.5))


def test_the_chance_to_beat_counts_pairs_of_runs_and_ties_half():
    mine, theirs = np.array([1.0, 3.0]), np.array([2.0, 3.0])
    # 1 loses twice, 3 wins once and ties once.
    assert estimate([mine, theirs], probability_of_improvement).value == pytest.approx(1.5 / 4)
    both = estimate([mine, mine + 10, theirs, theirs], probability_of_improvement)
    assert both.value == pytest.approx((1.5 / 4 + 1) / 2)
    assert both.low <= both.value <= both.high


def test_games_weigh_the_same_whatever_their_numbers_of_runs():
    few, many = np.array([0.0]), np.array([1.0, 1.0, 1.0])
    assert estimate([few, many], mean_score).value == pytest.approx(0.5)
    assert estimate([few, many], interquartile_mean).value == pytest.approx(0.5)
    third = np.array([0.2, 0.6])
    assert estimate([few, many, third], median_of_means).value == pytest.approx(0.4)
    assert estimate([few, many, third], median_of_means).high <= 0.6


def test_a_game_with_one_run_adds_no_spread_and_leaves_the_others_draws_as_they_are():
    few, many = np.array([0.9]), np.array([0.1, 0.2, 0.4, 0.8, 0.5])
    draws = np.random.default_rng(0).choice(many, (RESAMPLES, 5))
    pooled = np.concatenate([draws, np.full((RESAMPLES, 5), 0.9)], axis=1)
    low, high = np.percentile(interquartile_mean(pooled), [2.5, 97.5])
    found = estimate([many, few], interquartile_mean)
    assert (found.low, found.high) == pytest.approx((low, high))
    assert estimate([few, few], mean_score) == (0.9, 0.9, 0.9)


def joined(folders, output):
    return join_games(
        [open_comparison(folder, None) for folder in folders], METHODS, [0, 1], output
    )


def test_games_are_joined_in_human_normalised_scores(tmp_path):
    folders = [play(tmp_path / "a", "assault", ASSAULT), play(tmp_path / "p", "phoenix", PHOENIX)]
    text = joined(folders, tmp_path / "joint")
    assert (tmp_path / "joint/joint.md").read_text() == text
    content = json.loads((tmp_path / "joint/joint.json").read_text())
    assert content["games"] == ["assault", "phoenix"]
    assert content["reference"] == HINDSIGHT
    lite = content["methods"]["lite"]
    assert lite["scores"] == {"assault": pytest.approx([0.7, 0.5]), "phoenix": [0.4, 0.5]}
    assert lite["interquartile mean"]["value"] == pytest.approx(0.5)
    assert lite["mean"]["value"] == pytest.approx(2.1 / 4)
    # Assault: 0.7 beats both, 0.5 beats 0.4 only. Phoenix: all four.
    assert lite["improvement"]["value"] == pytest.approx((3 / 4 + 1) / 2)
    assert content["methods"][HINDSIGHT]["improvement"] is None
    assert "| lite | 4 | 0.500 (" in text
    assert f"chance to beat {HINDSIGHT}" in text


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("assault", "PPOTask"), "is of assault, as another"),
        (("pooyan", "PPOTask"), "no human score of pooyan"),
        (("assault", "LandmarkTask"), "takes comparisons of policies .* is of LandmarkTask"),
    ],
)
def test_what_cannot_be_joined_is_refused(tmp_path, other, message):
    first = play(tmp_path / "a", "assault", ASSAULT)
    second = open_comparison(tmp_path / "b", options(*other)).folder
    with pytest.raises(ConfigError, match=message):
        joined([first, second], tmp_path / "joint")


def test_methods_without_runs_on_every_game_are_left_out(tmp_path):
    first = play(tmp_path / "a", "assault", ASSAULT)
    second = open_comparison(tmp_path / "b", options("phoenix")).folder
    with pytest.raises(ConfigError, match="no method has finished runs on all of assault, phoenix"):
        joined([first, second], tmp_path / "joint")
