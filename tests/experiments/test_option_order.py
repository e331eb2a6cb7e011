"""Options before their experiment mean the same as after it, in every command that takes one."""

import json
from pathlib import Path

import pytest
import yaml

from zoo_lightning.cli.program import subcommand_first
from zoo_lightning.experiments.option_names import CommandParser, add_experiments, experiment_words
from zoo_lightning.experiments.words import experiments_first
from zoo_lightning.sweeps.command import resolve_trial
from zoo_lightning.sweeps.schema import read_sweep


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("fit --a 1 --experiment x --b=2", "fit --experiment x --a 1 --b=2"),
        ("fit --a 1 --experiment=x -c y --b", "fit --experiment=x -c y --a 1 --b"),
        ("fit --experiment x --a 1 --config y", "fit --experiment x --config y --a 1"),
        ("fit --a --experiment", "fit --experiment --a"),
        ("fit --a 1 --config {json} --experiment x", "fit --experiment x --a 1 --config {json}"),
        ("fit", "fit"),
        ("--help", "--help"),
        ("", ""),
    ],
)
def test_experiments_come_first_in_their_order(given, meant):
    assert experiments_first(given.split()) == meant.split()


def test_an_option_before_the_experiment_overrides_it(tiny, command):
    done = command(
        "fit", "--trainer.max_steps", "2", "--model.lr=0.5", "--experiment", "tiny",
        "--run_dir", "run", "--run_test", "false",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 2
    assert yaml.safe_load(Path("run/config.yaml").read_text())["model"]["init_args"]["lr"] == 0.5


def test_an_option_between_experiments_overrides_both(tiny, command):
    Path("other.yaml").write_text("trainer: {max_steps: 4}\n")
    done = command(
        "fit", "--experiment", "tiny", "--trainer.max_steps", "2", "--experiment", "other.yaml",
        "--run_dir", "run", "--run_test", "false",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("test", "--output", "new", "--data.batch_size", "2", "--ckpt_path", "done"),
        ("validate", "--data.batch_size", "2", "--ckpt_path", "done"),
        ("predict", "--data.batch_size", "2", "--ckpt_path", "done", "--output", "new"),
        ("sources", "check", "--model.lr", "0.1"),
        ("compare", "--model.lr", "0.1", "--report", "--run_dir", "compared"),
        ("sweep", "tiny", "--count", "0", "--data.batch_size", "2"),
        ("gates", "--data.batch_size", "2", "--ckpt_path", "done", "--layer_samples", "0"),
        ("export", "--data.batch_size", "2", "--ckpt_path", "done", "--output", "new",
         "--format=timm"),
    ],
    ids=lambda words: words[0],
)  # fmt: skip
@pytest.mark.parametrize(
    "last",
    [
        ("--experiment", "tiny"),
        pytest.param(("--config", "experiments/tiny.yaml"), marks=pytest.mark.slow),
    ],
)
def test_no_command_finds_such_an_option_unknown(finished, command, words, last):
    done = command(*words, *last)
    assert "unknown option" not in done.err
    assert "unrecognized" not in done.err


@pytest.mark.parametrize("last", [("--experiment", "tiny"), ("--config", "experiments/tiny.yaml")])
def test_an_option_before_the_experiment_has_its_effect_in_predict_compare_and_sweep(
    finished, command, last
):
    done = command(
        "predict", "--data.batch_size", 2, "--ckpt_path", "done", "--output", "new", *last
    )
    assert done.status == 0, done.err
    assert (
        yaml.safe_load(Path("new/config.yaml").read_text())["data"]["init_args"]["batch_size"] == 2
    )
    done = command("compare", "--model.lr=0.125", "--report", "--run_dir", "compared", *last)
    assert done.status == 0, done.err
    shared = yaml.safe_load(Path("compared/experiment.yaml").read_text())
    assert shared["model"]["init_args"]["lr"] == 0.125
    words = ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment", "tiny"]
    rates = {"model.init_args.lr": {"values": [1e-3, 1e-4]}}
    content = {"method": "grid", "parameters": rates, "command": [*words, "${args}"]}
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    found = resolve_trial(
        read_sweep(Path("mine.yaml")),
        {("model.init_args.lr",): 1e-3},
        ["--data.batch_size=2", *last],
    )
    assert found["data"]["init_args"]["batch_size"] == 2


def test_experiments_and_configurations_keep_their_order_in_every_command():
    parser = CommandParser("gates")
    add_experiments(parser, "")
    given = ["--config", "a", "--experiment", "b", "-c", '{"x": 1}', "--data.y", "2"]
    options, rest = parser.parse_known_args(given)
    words = ["--experiment", "a", "--experiment", "b", "--config", '{"x": 1}']
    assert experiment_words(options.experiment) == words
    assert rest == ["--data.y", "2"]


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--a 1 --b=2 fit --c 3", "fit --a 1 --b=2 --c 3"),
        ("--ckpt_path runs/x test", "test --ckpt_path runs/x"),
        ("--ckpt_path=test predict --output D", "predict --ckpt_path=test --output D"),
        ("--split test gates", "gates --split test"),
        ("--config both.yaml fit", "--config both.yaml fit"),
        ("-c both.yaml fit --a 1", "-c both.yaml fit --a 1"),
        ("fit --a 1", "fit --a 1"),
    ],
)
def test_a_subcommand_behind_options_is_found(given, meant):
    assert subcommand_first(given.split()) == meant.split()


def test_options_before_the_subcommand_have_their_effect(tiny, command):
    words = "--trainer.max_steps 2 --run_dir=run fit --experiment tiny --run_test false"
    done = command(*words.split())
    assert done.status == 0, done.err
    assert json.loads(Path("run/summary.json").read_text())["steps"] == 2
