"""Every option of Lightning's Trainer works, or is refused in one line before data are read."""

import inspect
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.refused_callbacks import check_monitors

FIT = ("fit", "--experiment", "tiny", "--run_dir", "run", "--run_test", "false")

TOGETHER = {
    "accelerator": "cpu",
    "devices": "1",
    "num_nodes": "1",
    "strategy": "auto",
    "precision": "32-true",
    "min_epochs": "1",
    "min_steps": "1",
    "max_steps": "4",
    "limit_train_batches": "3",
    "limit_val_batches": "1",
    "limit_test_batches": "1",
    "limit_predict_batches": "1",
    "num_sanity_val_steps": "1",
    "val_check_interval": "2",
    "log_every_n_steps": "1",
    "enable_checkpointing": "true",
    "enable_progress_bar": "false",
    "enable_model_summary": "false",
    "accumulate_grad_batches": "2",
    "gradient_clip_val": "1.0",
    "gradient_clip_algorithm": "norm",
    "deterministic": "true",
    "benchmark": "false",
    "inference_mode": "false",
    "profiler": "simple",
    "detect_anomaly": "true",
    "sync_batchnorm": "false",
    "use_distributed_sampler": "false",
    "enable_autolog_hparams": "true",
    "max_time": "00:01:00:00",
}
"""Options that are tried in one training."""

REFUSED = [
    ("overfit_batches", "1", "limit_train_batches"),
    ("reload_dataloaders_every_n_epochs", "1", "every epoch has its own"),
    ("default_root_dir", "x", "--run_dir"),
    ("barebones", "true", "leave it out"),
    (
        "accelerator",
        "mps" if torch.cuda.is_available() else "gpu",
        "torch finds none on this machine",
    ),
    ("accelerator", "nonsense", "accelerator"),
    ("devices", "0", "devices"),
    ("num_nodes", "-1", "the Trainer refuses its options"),
    ("strategy", "nonsense", "strategy"),
    ("gradient_clip_algorithm", "none", "gradient_clip_algorithm"),
    ("gradient_clip_val", "-1", "at least 0"),
    ("accumulate_grad_batches", "0", "at least 1"),
    ("max_steps", "0", "nothing would be trained"),
    ("max_steps", "-2", "max_steps"),
    ("max_epochs", "0", "nothing would be trained"),
    ("min_steps", "9", "more than trainer.max_steps 8"),
    ("limit_train_batches", "0", "nothing would be trained"),
    ("limit_train_batches", "1.5", "limit_train_batches"),
    ("limit_test_batches", "0", "--run_test false"),
    ("val_check_interval", "0.5", "val_check_interval"),
    ("log_every_n_steps", "-1", "at least 0"),
    ("fast_dev_run", "-1", "fast_dev_run"),
    ("profiler", "nonsense", "profiler"),
    ("max_time", "soon", "max_time"),
    ("sync_batchnorm", "true", "GPUs only"),
    *(("precision", kind, "expected one of") for kind in ("bf16-true", "16-true", "64", "64-true")),
]
"""Options with a value that cannot be, and what the one line says."""

FOR_POLICIES = [
    ("gradient_clip_val", "0.5", "model.max_grad_norm"),
    ("accumulate_grad_batches", "2", "model.num_minibatches"),
    ("check_val_every_n_epoch", "2", "val_check_interval"),
    ("min_steps", "4", "data.total_steps"),
    ("max_steps", "10", "data.total_steps"),
    ("max_epochs", "2", "data.total_steps"),
    ("limit_train_batches", "0.5", "data.total_steps"),
]
"""Options that a policy's training has no use for, and what the one line says instead."""

TOO_FEW = [("train", 6), ("val", 2), ("test", 2)]
"""Parts of the data of ``tiny``, and their batches."""

ELSEWHERE = {
    "logger": "below, and tests/loggers/test_loggers.py",
    "callbacks": "below, and tests/callbacks",
    "fast_dev_run": "tests/runs/test_folders.py",
    "max_epochs": "tests/runs/test_length.py",
    "check_val_every_n_epoch": "below",
    "plugins": "objects, which no command line has; tests/experiments/test_strategies.py",
    "model_registry": "of a service of Lightning's makers",
}
"""Options that other tests are for."""


def summary():
    return json.loads(Path("run/summary.json").read_text())


def test_every_option_of_the_trainer_has_its_place_here():
    known = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    refused = {name for name, *_ in REFUSED}
    assert known <= {*TOGETHER, *refused, *ELSEWHERE}, "new in Lightning: decide, and test it"


def test_options_that_work_are_kept(tiny, command):
    words = [w for name, value in TOGETHER.items() for w in (f"--trainer.{name}", value)]
    done = command(*FIT, *words)
    assert done.status == 0, done.err
    assert summary()["steps"] == 4


@pytest.mark.parametrize(("name", "value", "said"), REFUSED)
def test_options_that_do_not_are_refused(tiny, command, name, value, said):
    # Sources that do not exist are not looked for before.
    words = (*FIT[:-1], "true", "--sources", "nowhere.pt,random:1")
    command(*words, f"--trainer.{name}", value).refused(name.split("_")[0], said)
    assert not Path("run").exists()


@pytest.mark.parametrize(("name", "value", "said"), FOR_POLICIES)
def test_options_that_policies_have_no_use_for_are_refused(tiny, command, name, value, said):
    words = ("fit", "--experiment", "rl-source", "--run_dir", "run", "--trainer.accelerator", "cpu")
    command(*words, f"--trainer.{name}", value).refused(f"trainer.{name}", said)
    assert not Path("run").exists()


@pytest.mark.parametrize("command_line", ["compare", "fit", "sweep"])
@pytest.mark.parametrize(("name", "value", "said"), REFUSED[::6])
def test_commands_of_several_runs_refuse_them_before_the_first(
    tiny, command, command_line, name, value, said
):
    option = (f"--trainer.{name}", value)
    if command_line == "sweep":
        content = {
            "program": "python -m zoo_lightning fit --experiment tiny",
            "command": ["python", "-m", "zoo_lightning", "fit", "--experiment", "tiny", "${args}"],
            "method": "grid",
            "metric": {"name": "val/nme", "goal": "minimize"},
            "parameters": {"model.lr": {"values": [0.1, 0.2]}},
        }
        Path("grid.yaml").write_text(json.dumps(content))
        words = ("sweep", "grid.yaml", "--run_dir", "out", "--local")
    elif command_line == "compare":
        words = ("compare", "--run_dir", "out", "--methods", "single", "--experiment", "tiny")
    else:
        words = ("fit", "--run_dir", "out", "--method", "lite", "--experiment", "tiny")
    command(*words, *option).refused(name.split("_")[0], said)
    assert not list(Path().rglob("config.yaml"))


@pytest.mark.parametrize(("part", "batches"), TOO_FEW)
def test_shares_of_batches_that_leave_none_are_refused_before_training(
    tiny, command, part, batches
):
    share = (f"--trainer.limit_{part}_batches", "0.1")
    words = ("fit", "--experiment", "tiny", "--run_dir", "run")
    command(*words, *share).refused(f"limit_{part}_batches", f"of {batches} batches")
    assert not list(Path().rglob("*.ckpt"))


@pytest.mark.parametrize(
    "precision", [pytest.param("16-mixed", marks=pytest.mark.slow), "bf16-mixed"]
)
def test_mixed_precision_and_shares_of_batches_are_kept(tiny, command, precision):
    options = {
        "precision": precision, "limit_train_batches": "0.5", "limit_val_batches": "0.5",
        "limit_test_batches": "0.5", "log_every_n_steps": "0", "num_sanity_val_steps": "-1",
        "val_check_interval": "0.5", "check_val_every_n_epoch": "1", "max_epochs": "2",
        "max_steps": "100",
    }  # fmt: skip
    words = [w for name, value in options.items() for w in (f"--trainer.{name}", value)]
    done = command("fit", "--experiment", "tiny", "--run_dir", "run", *words)
    assert done.status == 0, done.err
    assert summary()["steps"] == 6  # two epochs of half of six batches
    assert 0 < summary()["test_images"] < 6
    header, *rows = Path("run/metrics.csv").read_text().splitlines()
    assert "train/loss" not in header.split(",")
    column = header.split(",").index("val/nme")
    assert len([row for row in rows if row.split(",")[column]]) == 6


def test_the_time_limit_ends_a_training_and_says_so(tiny, command, caplog):
    tiny(**{"trainer.max_steps": 100_000, "trainer.val_check_interval": 50_000})
    done = command(*FIT, "--trainer.max_time", "00:00:00:02")
    assert done.status == 0, done.err
    assert 0 < summary()["steps"] < 100_000
    assert "Ignoring" not in caplog.text
    assert "Time limit reached" in caplog.text
    assert Path("run/checkpoints/last.ckpt").is_file()


def test_without_a_logger_no_curves_are_promised(tiny, command):
    done = command(*FIT, "--trainer.logger", "false", "--trainer.max_steps", "2")
    assert done.status == 0, done.err
    assert "(config.yaml, summary.json, report.html)" in done.out
    assert not Path("run/metrics.csv").exists()
    assert "test_images" not in summary()  # nothing was tested
    words = ("--trainer.logger", "false", "--trainer.max_steps", "2", "--select", "final")
    resumed = command(*FIT, *words, "--ckpt_path", "last")
    resumed.refused("select is final")
    final = command(*FIT[:3], "--run_dir", "final", *words, "--run_test", "false")
    assert final.status == 0, final.err
    assert "metrics.csv" not in final.out + final.err


def test_validation_every_so_many_epochs_is_kept(tiny, command):
    tiny(
        length_from_data={"epochs": 4, "min_steps": 1, "max_steps": 100},
        **{"trainer.max_steps": -1, "trainer.max_epochs": -1, "trainer.val_check_interval": None},
    )
    done = command(*FIT, "--trainer.check_val_every_n_epoch", "2")
    assert done.status == 0, done.err
    assert summary()["steps"] == 24
    rows = Path("run/metrics.csv").read_text().splitlines()
    column = rows[0].split(",").index("val/nme")
    assert len([row for row in rows[1:] if row.split(",")[column]]) == 2


@pytest.mark.parametrize(
    ("kind", "options", "right"),
    [
        (ModelCheckpoint, {"monitor": "val/acc"}, "max"),
        (ModelCheckpoint, {"monitor": "val/acc5", "mode": "min"}, "max"),
        (EarlyStopping, {"monitor": "val/acc"}, "max"),
        (EarlyStopping, {"monitor": "val/episodic_return"}, "max"),
        (EarlyStopping, {"monitor": "val/nme", "mode": "max"}, "min"),
        (ModelCheckpoint, {"monitor": "val/loss", "mode": "max"}, "min"),
        (ModelCheckpoint, {"monitor": "val/map"}, "max"),
        (EarlyStopping, {"monitor": "val/f1_macro"}, "max"),
        (ModelCheckpoint, {"monitor": "val/dice"}, "max"),
        (EarlyStopping, {"monitor": "val/r2/age"}, "max"),
        (ModelCheckpoint, {"monitor": "val/nmae", "mode": "max"}, "min"),
    ],
)
def test_callbacks_that_would_keep_the_worst_are_refused(kind, options, right):
    with pytest.raises(ConfigError, match=f"set mode: {right}"):
        check_monitors([LearningRateMonitor(), kind(**options)])
    check_monitors([kind(**{**options, "mode": right})])


def test_metrics_of_ones_own_are_not_guessed_at():
    check_monitors([ModelCheckpoint(monitor="mine"), EarlyStopping("val/mine"), ModelCheckpoint()])


def test_a_part_of_the_test_data_is_counted_as_what_it_is(tiny, command):
    words = ("--trainer.max_steps", "2", "--trainer.limit_test_batches", "1")
    tiny(**{"data.init_args.batch_size": 3})
    done = command(*FIT[:-1], "true", *words)
    assert done.status == 0, done.err
    assert summary()["test_images"] == 3


def test_a_sweep_of_trials_without_a_log_is_refused(tiny, command):
    tiny(**{"trainer.logger": False})
    words = ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment", "tiny"]
    rates = {"model.init_args.lr": {"values": [1e-3, 1e-4]}}
    content = {"method": "grid", "parameters": rates, "command": [*words, "${args}"]}
    Path("mine.json").write_text(json.dumps(content))
    command("sweep", "mine.json", "--local").refused("trainer.logger false", "metrics.csv")
