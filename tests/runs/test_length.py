"""The length of a training: from the experiment, from its data, from a budget."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from zoo_lightning.errors import ConfigError
from zoo_lightning.runs import length
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


@pytest.mark.parametrize(
    ("options", "processes"),
    [
        ({}, 1),
        ({"devices": 4}, 4),
        ({"devices": "4", "num_nodes": 2}, 8),
        ({"devices": "0,1"}, 2),
        ({"devices": [0, 2, 3]}, 3),
        ({"devices": -1}, 1),
    ],
)
def test_an_epoch_is_shared_by_all_processes(options, processes):
    usual = {"devices": "auto", "num_nodes": 1, "accelerator": "cpu", "limit_train_batches": None}
    data = SimpleNamespace(train_dataloader=lambda: range(80))
    assert length._batches(SimpleNamespace(**usual | options), data) == 80 // processes


@pytest.mark.parametrize(("limit", "batches"), [(30, 30), (0.5, 40), (100, 80), (1.0, 80)])
def test_an_epoch_is_as_long_as_the_trainer_lets_it(limit, batches):
    options = {"devices": 1, "num_nodes": 1, "accelerator": "cpu", "limit_train_batches": limit}
    data = SimpleNamespace(train_dataloader=lambda: range(80))
    assert length._batches(SimpleNamespace(**options), data) == batches


def test_of_two_limits_the_nearer_one_is_multiplied(tiny, command):
    tiny(**{"trainer.max_steps": 20, "trainer.max_epochs": 1})
    assert command(*FIT, "--length", "long").status == 0
    assert summary()["steps"] == 24  # four epochs of six batches


def summary():
    return json.loads(Path("run/summary.json").read_text())


def config():
    return yaml.safe_load(Path("run/config.yaml").read_text())


@pytest.mark.parametrize(
    ("options", "steps", "validations"),
    [
        pytest.param((), 18, 3, marks=pytest.mark.slow),  # three epochs of six batches
        (("--length", "short"), 4, 2),
        (("--data.train_size", "16"), 12, 3),
        (("--trainer.accumulate_grad_batches", "3"), 6, 3),
        (("--trainer.max_steps", "5"), 5, 3),  # the user's own length
        pytest.param(
            ("--trainer.max_epochs", "2", "--trainer.val_check_interval", "4"),
            *(12, 3),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_experiment_takes_its_length_from_the_data(tiny, command, options, steps, validations):
    tiny(
        length_from_data=FROM_DATA, **{"trainer.max_steps": -1, "trainer.val_check_interval": None}
    )
    done = command(*FIT, *options)
    assert done.status == 0, done.err
    assert summary()["steps"] == steps
    rows = Path("run/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/nme")
    assert sum(bool(row.split(",")[column]) for row in rows[1:]) == validations
    if "--trainer.max_epochs" not in options:
        assert config()["trainer"]["max_steps"] == steps
        assert config()["length_from_data"] is None


def test_the_saved_configuration_is_of_the_same_length(tiny, command):
    tiny(**{"trainer.max_steps": 2, "trainer.val_check_interval": 2})
    done = command(*FIT, "--length", "long")
    assert done.status == 0, done.err
    assert summary()["steps"] == 8
    assert "8 steps" in done.out + done.err
    again = command("fit", "--config", "run/config.yaml", "--run_dir", "again")
    assert again.status == 0, again.err
    assert json.loads(Path("again/summary.json").read_text())["steps"] == 8
    command(*FIT, "--length", "short", "--ckpt_path", "last").refused("8 steps in the checkpoint")
    assert command(*FIT, "--length", "long", "--ckpt_path", "last").status == 0


def test_a_budget_is_what_one_network_would_cost(tiny, command):
    scratch = {"class_path": "PlainBackbone", "init_args": {"architecture": "test_resnet"}}
    tiny(**{"model.init_args.backbone": scratch})
    assert command(*FIT, "--budget", "1.5").status == 0
    compute = summary()["compute"]
    assert summary()["steps"] == 12
    assert compute["parts"]["training"] == 1.5 * compute["unit"]
    assert config()["budget"] is None
    again = ("--config", "run/config.yaml", "--run_dir", "run", "--ckpt_path", "last")
    assert command("fit", *again).status == 0
    assert summary()["compute"]["unit"] == compute["unit"]


def test_a_zoo_pays_its_start_and_its_dearer_steps_from_its_budget(tiny, command):
    tiny(**{"model.init_args.backbone.init_args.gate_init": "greedy"})
    command(*FIT, "--budget", "0.1").refused("budget 0.1", "informed start alone has cost")
    assert command(*FIT, "--budget", "8").status == 0
    compute = summary()["compute"]
    spent = compute["parts"]["training"] + compute["parts"]["start"]
    each = compute["parts"]["training"] / summary()["steps"]
    assert 8 * compute["unit"] - each < spent <= 8 * compute["unit"]
    assert summary()["steps"] < 8 * 8


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
    command(*FIT, "--budget", "0").refused("budget", "> 0")
    command(*FIT, "--length", "longer").refused("length")
    tiny(**{"trainer.max_steps": -1})
    command(*FIT, "--length", "long").refused("it has none")
    game = ("fit", "--experiment", "rl", "--run_dir", "run")
    command(*game, "--length", "long").refused("data.total_steps")
    command(*game, "--budget", "2").refused("data.total_steps")
