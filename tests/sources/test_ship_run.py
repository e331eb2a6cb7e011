"""A finished run becomes a shipped source, with a card of what it is."""

import json

import pytest
import torch
import yaml

from zoo_lightning import PlainBackbone
from zoo_lightning.cli import ship as ship_run
from zoo_lightning.errors import SourceError
from zoo_lightning.sources import shipped


@pytest.fixture
def policy_run(tmp_path):
    """The files of a policy's run that shipping reads."""
    backbone = PlainBackbone("nature_cnn", ["random:1"])
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    described = {"class_path": "PlainBackbone", "init_args": backbone.config}
    state = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
    content = {"state_dict": state, "hyper_parameters": {"backbone": described}}
    torch.save(content, run / "checkpoints" / "best.ckpt")
    test = {
        "test/episodic_return": 12.34567,
        "test/episodic_return_std": 3.0,
        "test/random_return": -20.5,
    }
    summary = {"experiment": "rl-source", "seed": 0, "steps": 160, "game": "pong"}
    summary |= {"agent_steps": 10_240, "checkpoint": "checkpoints/best.ckpt", "test": test}
    (run / "summary.json").write_text(json.dumps(summary))
    config = {"data": {"class_path": "AtariData", "init_args": {"game": "pong", "test_games": 30}}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    return run


def test_a_policy_is_shipped_with_its_game_and_random_play_beside_its_score(
    policy_run, tmp_path, monkeypatch, capsys
):
    folder = tmp_path / "shipped"
    words = [str(policy_run), "--name", "pong", "--nature", "policy (PPO)", "--data", "Pong"]
    words += ["--metric", "test/episodic_return", "--half", "--output", str(folder)]
    ship_run.main(words)
    assert "shipped pong: test/episodic_return 12.3457" in capsys.readouterr().out
    monkeypatch.setattr(shipped, "FOLDER", folder)
    card = shipped.shipped_card("pong")
    assert card.policy == shipped.Policy("pong", 10_240, 30, 3.0, -20.5)
    assert card.preprocessing.input_size == (4, 84, 84)
    assert card.architecture == "nature_cnn"
    backbone = PlainBackbone("nature_cnn", ["builtin:pong"])
    assert backbone.loaded[0].report.matched == 8


def test_a_metric_that_the_run_does_not_have_is_named(policy_run, tmp_path):
    with pytest.raises(SourceError, match="no test metric 'test/acc'"):
        ship_run.ship_run(policy_run, "pong", "", "", "test/acc", tmp_path)
