"""The length of a training: from the experiment, from its data, from a budget."""

import json
from pathlib import Path

import pytest
import yaml

from zoo_lightning.errors import ConfigError
from zoo_lightning.runs.length import LengthFromData

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")
FROM_DATA = {"epochs": 3, "min_steps": 4, "max_steps": 100, "validations": 3}


@pytest.mark.parametrize(("batches", "steps"), [(1, 20), (10, 40), (11, 44), (1000, 300), (0, 20)])
def test_steps_follow_the_data_between_a_floor_and_a_ceiling(batches, steps):
    assert LengthFromData(4, 20, 300).steps(batches) == steps


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"min_steps": 0}, {"max_steps": 3}, {"validations": 0}]
)
def test_lengths_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="length_from_data needs"):
        LengthFromData(**FROM_DATA | wrong)


def summary():
    return json.loads(Path("run/summary.json").read_text())


def config():
    return yaml.safe_load(Path("run/config.yaml").read_text())


@pytest.mark.parametrize(
    ("options", "steps", "validations"),
    [
        ((), 18, 3),  # three epochs of six batches
        (("--length", "short"), 4, 2),
        (("--data.train_size", "80"), 60, 3),
        (("--trainer.accumulate_grad_batches", "3"), 6, 3),
        (("--trainer.max_steps", "5"), 5, 2),  # the user's own length
        (("--trainer.max_epochs", "2"), 12, 3),
    ],
)
def test_an_experiment_takes_its_length_from_the_data(tiny, command, options, steps, validations):
    tiny(
        length_from_data=FROM_DATA, **{"trainer.max_steps": -1, "trainer.val_check_interval": None}
    )
    if "5" in options or "--trainer.max_epochs" in options:
        options = (*options, "--trainer.val_check_interval", "4")
    done = command(*FIT, *options)
    assert done.status == 0, done.err
    assert summary()["steps"] == steps
    rows = Path("run/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/nme")
    assert sum(bool(row.split(",")[column]) for row in rows[1:]) == validations
    assert config()["trainer"]["max_steps"] in (steps, -1)
    assert (config()["length_from_data"] is None) == (config()["trainer"]["max_epochs"] == -1) or (
        "5" in options
    )


def test_the_saved_configuration_is_of_the_same_length(tiny, command):
    done = command(*FIT, "--length", "long")
    assert done.status == 0, done.err
    assert summary()["steps"] == 32
    assert "32 steps" in done.out + done.err
    again = command("fit", "--config", "run/config.yaml", "--run_dir", "again")
    assert again.status == 0, again.err
    assert json.loads(Path("again/summary.json").read_text())["steps"] == 32
    command(*FIT, "--length", "short", "--ckpt_path", "last").refused("32 steps in the checkpoint")
    assert command(*FIT, "--length", "long", "--ckpt_path", "last").status == 0


def test_a_budget_is_what_one_network_would_cost(tiny, command):
    scratch = {"class_path": "PlainBackbone", "init_args": {"architecture": "test_resnet"}}
    tiny(**{"model.init_args.backbone": scratch})
    assert command(*FIT, "--budget", "1.5").status == 0
    compute = summary()["compute"]
    assert summary()["steps"] == 12
    assert compute["parts"]["training"] == 1.5 * compute["unit"]
    assert config()["budget"] is None


def test_a_zoo_pays_its_start_and_its_dearer_steps_from_its_budget(tiny, command):
    tiny(**{"model.init_args.backbone.init_args.gate_init": "greedy"})
    command(*FIT, "--budget", "0.1").refused("budget 0.1", "informed start alone has cost")
    assert command(*FIT, "--budget", "20").status == 0
    compute = summary()["compute"]
    spent = compute["parts"]["training"] + compute["parts"]["start"]
    each = compute["parts"]["training"] / summary()["steps"]
    assert 20 * compute["unit"] - each < spent <= 20 * compute["unit"]
    assert summary()["steps"] < 20 * 8


def test_teachers_are_paid_from_the_budget(tiny, finished, command):
    scratch = {"class_path": "PlainBackbone", "init_args": {"architecture": "test_resnet"}}
    tiny(**{"model.init_args.backbone": scratch})
    assert command(*FIT, "--budget", "2", "--model.teachers", "[done]").status == 0
    compute = summary()["compute"]
    assert 0.8 < compute["parts"]["training"] / (2 * compute["unit"]) <= 1.05
    assert summary()["steps"] < 16


def test_lengths_that_contradict_each_other_are_refused(tiny, command):
    command(*FIT, "--length", "long", "--trainer.max_steps", "3").refused(
        "--length long", "give one"
    )
    command(*FIT, "--budget", "0").refused("budget must be above 0")
    command(*FIT, "--length", "longer").refused("length")
    tiny(**{"trainer.max_steps": -1})
    command(*FIT, "--length", "long").refused("it has none")
    game = ("fit", "--experiment", "rl", "--run_dir", "run")
    command(*game, "--length", "long").refused("data.total_steps")
    command(*game, "--budget", "2").refused("data.total_steps")
