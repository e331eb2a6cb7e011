"""Every option of Lightning's Trainer works, or is refused in one line before data are read."""

import inspect
import json
from pathlib import Path

import pytest
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint

from zoo_lightning.errors import ConfigError
from zoo_lightning.refused_options import check_monitors

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

REFUSED = {
    "overfit_batches": ("1", "limit_train_batches"),
    "reload_dataloaders_every_n_epochs": ("1", "every epoch has its own"),
    "default_root_dir": ("x", "--run_dir"),
    "barebones": ("true", "leave it out"),
    "accelerator": ("gpu", "torch finds none on this machine"),
    "num_nodes": ("-1", "the Trainer refuses its options"),
    "gradient_clip_algorithm": ("none", "gradient_clip_algorithm"),
}
"""Options with a value that cannot be, and what the one line says."""

ELSEWHERE = {
    "logger": "below, and tests/test_loggers.py",
    "callbacks": "below, and tests/callbacks",
    "fast_dev_run": "tests/runs/test_folders.py",
    "max_epochs": "tests/runs/test_length.py",
    "check_val_every_n_epoch": "below",
    "plugins": "objects, which no command line has; tests/test_strategies.py",
    "model_registry": "of a service of Lightning's makers",
}
"""Options that other tests are for."""


def summary():
    return json.loads(Path("run/summary.json").read_text())


def test_every_option_of_the_trainer_has_its_place_here():
    known = set(inspect.signature(Trainer.__init__).parameters) - {"self"}
    assert known <= {*TOGETHER, *REFUSED, *ELSEWHERE}, "new in Lightning: decide, and test it"


def test_options_that_work_are_kept(tiny, command):
    words = [w for name, value in TOGETHER.items() for w in (f"--trainer.{name}", value)]
    done = command(*FIT, *words)
    assert done.status == 0, done.err
    assert summary()["steps"] == 4


@pytest.mark.parametrize("name", REFUSED)
def test_options_that_do_not_are_refused(tiny, command, name):
    value, said = REFUSED[name]
    command(*FIT, f"--trainer.{name}", value).refused(name.split("_")[0], said)
    assert not Path("run").exists()


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
    assert "(config.yaml, summary.json, pictures/)" in done.out
    assert not Path("run/metrics.csv").exists()
    assert "test_images" not in summary()


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
    ],
)
def test_callbacks_that_would_keep_the_worst_are_refused(kind, options, right):
    with pytest.raises(ConfigError, match=f"set mode: {right}"):
        check_monitors([LearningRateMonitor(), kind(**options)])
    check_monitors([kind(**{**options, "mode": right})])


def test_metrics_of_ones_own_are_not_guessed_at():
    check_monitors([ModelCheckpoint(monitor="mine"), EarlyStopping("val/mine"), ModelCheckpoint()])
