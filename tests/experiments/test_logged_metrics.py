"""Metrics that nobody logs are refused before the training, and what tasks declare is logged."""

import csv
import json
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from zoo_lightning import tasks
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.logged_metrics import better_mode, is_logged, logged_names
from zoo_lightning.experiments.refused_callbacks import check_logged_monitors

SHORT = {"trainer.max_steps": 2, "trainer.val_check_interval": 2, "trainer.log_every_n_steps": 1}
FIT = ("fit", "--experiment", "tiny", "--run_dir", "run")
GAME = (
    "fit", "--experiment", "rl-source", "--run_dir", "run", "--data.game", "breakout",
    "--data.num_envs", "2", "--data.num_steps", "16", "--data.val_games", "1",
    "--data.test_games", "2", "--data.max_frames", "80", "--data.total_steps", "64",
    "--trainer.val_check_interval", "2", "--trainer.accelerator", "cpu",
)  # fmt: skip


def classes(root):
    return {"root": str(root), "image_size": 32, "batch_size": 4, "num_workers": 0}


@pytest.fixture
def words(request, tiny, class_root, landmark_root, number_root):
    """Words that fit the task whose name is asked for."""
    if request.param == "PPOTask":
        return GAME
    data = classes(class_root)
    if request.param == "LandmarkTask":
        data = {"root": str(landmark_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
        described = {"class_path": "LandmarkCSV", "init_args": data}
        tiny(**SHORT, **{"data": described, "model.init_args.thresholds": [0.1, 0.2]})
    elif request.param == "RegressionTask":
        described = {"class_path": "ImageNumbers", "init_args": classes(number_root)}
        tiny(**SHORT, **{"model.class_path": request.param, "data": described})
    elif request.param == "ClassificationTask":
        described = {"class_path": "ImageFolders", "init_args": data}
        tiny(**SHORT, **{"model.class_path": request.param, "data": described})
    elif request.param == "MultiLabelTask":
        data["root"] = str(request.getfixturevalue("label_root"))
        described = {"class_path": "MultiLabelImages", "init_args": data}
        tiny(**SHORT, **{"model.class_path": request.param, "data": described})
    else:
        described = {"class_path": "PhotoMosaics", "init_args": data}
        stages = {"model.init_args.backbone.init_args.output": "stages"}
        tiny(**SHORT, **{"model.class_path": request.param, "data": described}, **stages)
    return (*FIT, "--gradient_norms", "true", "--on_nonfinite", "skip")


@pytest.mark.parametrize("words", sorted({*tasks.__all__} - {"BaseTask"}), indirect=True)
def test_a_task_declares_exactly_what_it_logs(words, command):
    done = command(*words)
    assert done.status == 0, done.err
    config = yaml.safe_load(Path("run/config.yaml").read_text())
    with Path("run/metrics.csv").open(newline="") as stream:
        logged = {*csv.DictReader(stream).fieldnames, *json.loads(
            Path("run/summary.json").read_text())["test"]}  # fmt: skip
    task = getattr(tasks, config["model"]["class_path"].rpartition(".")[2])
    names = logged_names(task, config["model"]["init_args"], config)
    assert [name for name in logged if not is_logged(name, names)] == []
    assert {name for name in names if "*" not in name} <= logged


def test_every_task_is_run_above():
    kinds = {kind for kind in vars(tasks).values() if isinstance(kind, type)}
    declaring = {kind.__name__ for kind in kinds if "logged_metrics" in vars(kind)}
    assert declaring - {"BaseTask"} == {*tasks.__all__} - {"BaseTask"}


@pytest.mark.parametrize("name", sorted({*tasks.__all__} - {"BaseTask"}))
def test_of_every_metric_of_a_task_it_is_known_whether_it_is_better_if_higher(name):
    task = getattr(tasks, name)
    logged = [each.replace("*", "x") for each in task.logged_metrics({"thresholds": [0.1, 0.2]})]
    of_validation = [each for each in logged if each.startswith("val/")]
    assert task.monitor in of_validation
    unknown = [each for each in of_validation if better_mode(each) is None]
    assert unknown == (["val/episodic_length"] if name == "PPOTask" else [])
    assert better_mode(task.monitor) == task.monitor_mode


@pytest.mark.parametrize("kind", [EarlyStopping, ModelCheckpoint])
@pytest.mark.parametrize("name", ["val/acc", "val/nmee", "test/nme", "lr"])
def test_a_monitor_that_is_never_logged_is_refused_with_what_there_is(tiny, command, kind, name):
    tiny()
    mode = "max" if name == "val/acc" else "min"
    described = {"class_path": kind.__name__, "init_args": {"monitor": name, "mode": mode}}
    options = ("--trainer.callbacks", json.dumps([described]))
    said = command(*FIT, *options).refused(kind.__name__, repr(name), "It logs train/loss, val/nme")
    assert ("Did you mean 'val/nme'?" in said) == (name == "val/nmee")
    assert not Path("run").exists()


def test_of_tasks_and_callbacks_of_ones_own_nothing_is_known():
    class Mine(tasks.ClassificationTask):
        pass

    class Logging(Callback):
        pass

    assert logged_names(Mine, {}, {}) is None
    stopping = EarlyStopping("mine")
    names = logged_names(tasks.ClassificationTask, {}, {})
    with pytest.raises(ConfigError, match="logs no 'mine'"):
        check_logged_monitors([stopping], names)
    check_logged_monitors([stopping], None)
    check_logged_monitors([stopping, Logging()], names)
    check_logged_monitors([ModelCheckpoint(monitor="step")], names)


def test_a_policys_return_in_training_cannot_be_monitored():
    names = logged_names(tasks.PPOTask, {}, {})
    with pytest.raises(ConfigError, match="monitor val/episodic_return"):
        check_logged_monitors([EarlyStopping("charts/episodic_return", mode="max")], names)


@pytest.mark.parametrize("name", ["val/acc", "val/nmee"])
def test_a_sweep_on_an_unknown_metric_is_refused_before_its_first_trial(tiny, command, name):
    tiny()
    command_of = ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment",
                  "tiny", "${args}"]  # fmt: skip
    content = {
        "method": "grid",
        "metric": {"name": name},
        "parameters": {"model.init_args.lr": {"values": [2.0e-3, 1.0e-6]}},
        "command": command_of,
    }
    Path("mine.yaml").write_text(yaml.safe_dump(content))
    command("sweep", "mine.yaml", "--local").refused("metric.name", repr(name), "It logs")
    assert not Path("runs").exists()
