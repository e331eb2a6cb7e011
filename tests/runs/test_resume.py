"""A run that was stopped goes on as if nothing had happened, or says why it cannot."""

import csv
import functools
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from zoo_lightning.callbacks.checkpoints import LastCheckpoint, TrainingInterrupted
from zoo_lightning.cli.program import main
from zoo_lightning.runs.pool import resume_words
from zoo_lightning.runs.run_folder import earlier_metrics

STEPS = 40
"""Steps of a run that is to be interrupted: two epochs of twenty, validated every eight steps."""

LONG = {
    "trainer.max_steps": STEPS,
    "trainer.val_check_interval": 8,
    "data.init_args.train_size": 80,
    "data.init_args.augment": True,
    "data.init_args.num_points": 5,
}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Weights and optimiser state at a run's end, by name."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    optimizer = content["optimizer_states"][0]["state"]
    moments = {f"{i}.{k}": torch.as_tensor(v) for i, s in optimizer.items() for k, v in s.items()}
    return {**content["state_dict"], **moments, "step": torch.tensor(content["global_step"])}


def metrics(folder: Path) -> list[dict[str, str]]:
    """Rows of a run's metrics without the columns that are empty in them.

    Epoch and step are left out of the test's row: Lightning counts one more at the end of a
    training than when there was nothing left to train.
    """
    with (folder / "metrics.csv").open(newline="") as stream:
        rows = [{k: v for k, v in row.items() if v} for row in csv.DictReader(stream)]
    for row in rows:
        if "test/loss" in row or "test/nme" in row:
            del row["epoch"], row["step"]
    return rows


def assert_same_run(found: Path, expected: Path) -> None:
    """The same bits at the end, and the same figures on the way."""
    left, right = weights(found), weights(expected)
    assert left.keys() == right.keys()
    assert [key for key in right if not torch.equal(left[key], right[key])] == []
    rows = metrics(found)
    assert rows == metrics(expected)
    trained = [int(row["step"]) for row in rows if "train/loss" in row]
    assert trained == list(range(int(right["step"])))
    summaries = [json.loads((run / "summary.json").read_text()) for run in (found, expected)]
    assert summaries[0]["test"] == summaries[1]["test"]
    assert summaries[0]["steps"] == summaries[1]["steps"]


def wait_for_steps(process: subprocess.Popen, folder: Path, steps: int) -> None:
    """Wait until a run has logged some steps."""
    if not waited_for_steps(process, folder, steps):
        pytest.fail(f"the run ended before step {steps}: {process.communicate()}")


def waited_for_steps(process: subprocess.Popen, folder: Path, steps: int) -> bool:
    """Wait until a run has logged some steps; false if it ends before, without an error."""
    deadline = time.monotonic() + 300
    while process.poll() is None:
        file = folder / "metrics.csv"
        if file.is_file() and file.read_text().count("\n") > steps:
            return True
        if time.monotonic() > deadline:
            pytest.fail(f"the run did not get to step {steps}")
        time.sleep(0.005)
    assert process.returncode == 0, process.communicate()
    return False


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("mode", "workers", "number", "whole_group"),
    [
        ("lite", 1, signal.SIGINT, True),
        pytest.param("lite", 0, signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param("full", 1, signal.SIGTERM, True, marks=pytest.mark.slow),
    ],
)
def test_an_interrupted_run_goes_on_to_the_same_weights_and_figures(
    tmp_path, tiny, command, program, mode, workers, number, whole_group
):
    backbone = "model.init_args.backbone.init_args"
    tiny(**LONG, **{"data.init_args.num_workers": workers, f"{backbone}.mode": mode})
    fit = ["fit", "--experiment", "tiny"]
    process = subprocess.Popen(
        [*program.words, *fit, "--run_dir", "stopped"],
        env=program.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    wait_for_steps(process, tmp_path / "stopped", 5)
    # Ctrl-C and batch systems signal a whole group, the loader's processes included.
    (os.killpg if whole_group else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number, out + err
    checkpoint = Path("stopped", "checkpoints", "last.ckpt")
    assert f"--ckpt_path {checkpoint}" in err
    assert "Traceback" not in err
    step = torch.load(checkpoint, weights_only=True)["global_step"]
    assert 5 <= step < STEPS

    resumed = command(*fit, "--ckpt_path", "last", "--run_dir", "stopped")
    assert resumed.status == 0, resumed.err
    assert command(*fit, "--run_dir", "straight").status == 0
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")


STOPPING = """
import os
import signal
from lightning.pytorch.callbacks import Callback


class StopAt(Callback):
    def __init__(self, step: int) -> None:
        self.step, self.done = step, False

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step == self.step - 1 and not self.done:
            self.done = True
            os.kill(os.getpid(), signal.SIGTERM)
"""
"""A callback by which a run asks itself to stop in a certain step."""


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, tiny_in):
    """Give the folder of a finished augmented run with some options, made once for each."""

    @functools.cache
    def run(options: str) -> Path:
        folder = tmp_path_factory.mktemp("straight")
        tiny_in(folder, **{"data.init_args.augment": True}, **json.loads(options))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            assert not main(["fit", "--experiment", "tiny", "--run_dir", "straight"])
        return folder / "straight"

    return lambda options: run(json.dumps(options))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("step", "options"),
    [
        pytest.param(3, {}, id="in mid-epoch"),
        pytest.param(4, {}, id="at a validation in mid-epoch", marks=pytest.mark.slow),
        pytest.param(6, {}, id="at an epoch's end", marks=pytest.mark.slow),
        pytest.param(7, {}, id="at an epoch's beginning"),
        pytest.param(8, {}, id="at the very end", marks=pytest.mark.slow),
        pytest.param(
            6,
            {"trainer.val_check_interval": 1.0, "trainer.check_val_every_n_epoch": 1},
            id="at an epoch's end with validation",
        ),
        pytest.param(2, {"trainer.accumulate_grad_batches": 3}, id="between accumulated batches"),
        pytest.param(
            *(3, {"average_weights": True}), id="with averaged weights", marks=pytest.mark.slow
        ),
        pytest.param(4, {"average_weights": True}, id="with averaged weights at a validation"),
    ],
)
def test_a_run_goes_on_from_any_step(
    tmp_path, tiny, command, monkeypatch, uninterrupted, step, options
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stopping.py").write_text(STOPPING)
    fit = ["fit", "--experiment", "tiny", "--run_dir"]
    stop = {"class_path": "stopping.StopAt", "init_args": {"step": step}}
    tiny(**{"data.init_args.augment": True, "trainer.callbacks": [stop]}, **options)
    assert command(*fit, "stopped").status == 128 + signal.SIGTERM
    assert weights(tmp_path / "stopped")["step"] == step

    tiny(**{"data.init_args.augment": True}, **options)
    resumed = command(*fit, "stopped", "--ckpt_path", "last")
    assert resumed.status == 0, resumed.err
    assert_same_run(tmp_path / "stopped", uninterrupted(options))


@pytest.mark.usefixtures("one_thread")
def test_a_classification_run_with_mixing_goes_on_as_if_uninterrupted(
    tmp_path, tiny, command, monkeypatch, class_root
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stopping.py").write_text(STOPPING)
    data = {"root": str(class_root), "image_size": 16, "batch_size": 3, "num_workers": 0}
    changes = {
        "model.class_path": "ClassificationTask",
        "model.init_args.mixup": 0.4,
        "model.init_args.cutmix": 1.0,
        "data": {"class_path": "ImageFolders", "init_args": data},
        "trainer.accumulate_grad_batches": 2,
    }
    fit = ["fit", "--experiment", "tiny", "--run_dir"]
    tiny(**changes)
    assert command(*fit, "straight").status == 0
    stop = {"class_path": "stopping.StopAt", "init_args": {"step": 3}}
    tiny(**changes, **{"trainer.callbacks": [stop]})
    assert command(*fit, "stopped").status == 128 + signal.SIGTERM
    tiny(**changes)
    resumed = command(*fit, "stopped", "--ckpt_path", "last")
    assert resumed.status == 0, resumed.err
    assert_same_run(tmp_path / "stopped", tmp_path / "straight")


@pytest.mark.usefixtures("one_thread")
def test_going_back_to_an_earlier_checkpoint_logs_no_step_twice(tmp_path, tiny, command):
    keep = {
        "dirpath": "first/kept",
        "every_n_train_steps": 3,
        "filename": "{step}",
        "save_top_k": -1,
    }
    tiny(**{"trainer.callbacks": [{"class_path": "ModelCheckpoint", "init_args": keep}]})
    fit = ["fit", "--experiment", "tiny", "--run_dir", "first"]
    assert command(*fit).status == 0
    shutil.copytree("first", "straight")
    second = command(*fit, "--ckpt_path", "first/kept/step=3.ckpt")
    assert second.status == 0, second.err
    assert_same_run(tmp_path / "first", tmp_path / "straight")


@pytest.mark.usefixtures("one_thread")
def test_the_runs_own_checkpoints_go_on_in_their_folder(tmp_path, tiny, command):
    tiny(**{"trainer.max_steps": 8})
    assert command("fit", "--experiment", "tiny", "--run_dir", "a").status == 0
    shutil.copytree("a", "straight")
    best = torch.load("a/checkpoints/best.ckpt", weights_only=True)["global_step"]
    assert best in (4, 8)
    # Without --run_dir the run goes on where the checkpoint lies.
    done = command("fit", "--experiment", "tiny", "--ckpt_path", "a")
    assert done.status == 0, done.err
    assert_same_run(tmp_path / "a", tmp_path / "straight")
    assert not Path("runs").exists()


def test_the_newest_run_of_an_experiment_is_found_by_itself(tmp_path, tiny, command):
    tiny(**{"trainer.max_steps": 8})
    fit = ["fit", "--experiment", "tiny"]
    assert command(*fit).status == 0
    (run,) = Path("runs", "tiny").iterdir()
    (run / "summary.json").unlink()
    done = command(*fit, "--ckpt_path", "last")
    assert done.status == 0, done.err
    assert (run / "summary.json").is_file()
    assert list(Path("runs", "tiny").iterdir()) == [run]


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return text.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--model.init_args.lr=0.01"], ["lr is 0.002 in the checkpoint, 0.01 here"]),
        (["--trainer.max_steps=16"], ["onecycle schedule is 8 steps in the checkpoint, 16 here"]),
        (["--model.init_args.loss=l1"], ["loss is 'wing'", "'l1' here"]),
        (["--model.init_args.backbone.init_args.mode=full"], ["backbone.mode is 'lite'", "'full'"]),
        (["--model.init_args.backbone.init_args.sources=[random:1]"], ["are 2", "1 here"]),
        (["--data.batch_size=6"], ["data.batch_size of all processes is 4 in", "6 here"]),
        (
            ["--data.train_size=30", "--data.augment=true"],
            ["data.train_size is 24", "data.augment"],
        ),
        (["--seed_everything=1"], ["data.seed is 0 in the checkpoint, 1 here"]),
        (
            ["--model.init_args.optimizer=sgd", "--model.init_args.gate_lr_factor=2"],
            ["optimizer is 'adamw'", "gate_lr_factor is 1.0 in the checkpoint, 2.0 here"],
        ),
    ],
)
def test_going_on_with_other_options_is_refused_by_their_names(finished, command, options, words):
    before = weights(finished)
    fit = ["fit", "--experiment", "tiny", "--run_dir", finished]
    refused = command(*fit, "--ckpt_path", "last", *options)
    assert refused.status == 2
    assert last_line(refused.err).startswith("error: the checkpoint has other options")
    assert all(word in refused.err for word in [*words, "--init_from"])
    after = weights(finished)
    assert all(torch.equal(value, after[key]) for key, value in before.items())


def test_how_data_are_loaded_may_change(tmp_path, tiny, command, class_root):
    options = {"root": str(class_root), "image_size": 16, "batch_size": 4, "num_workers": 0}
    data = {"class_path": "ImageFolders", "init_args": options}
    tiny(**{"model.class_path": "ClassificationTask", "data": data})
    fit = ["fit", "--experiment", "tiny", "--run_dir", "a"]
    assert command(*fit).status == 0
    shutil.copytree(class_root, tmp_path / "moved")
    moved = ["--data.root", tmp_path / "moved", "--data.num_workers", "1"]
    going_on = command(*fit, "--ckpt_path", "last", *moved)
    assert going_on.status == 0, going_on.err
    for option, value in (("val_fraction", 0.3), ("group_pattern", "x"), ("train_fraction", 0.9)):
        refused = command(*fit, "--ckpt_path", "last", f"--data.{option}", value)
        refused.refused(f"data.{option} is", f"{value!r} here", "--init_from")
    other = command(*fit, "--ckpt_path", "last", *moved, "--data.class_path", "PhotoMosaics")
    assert other.status == 2


def test_checkpoints_that_do_not_have_the_datas_options_go_on(finished, command):
    last = finished / "checkpoints" / "last.ckpt"
    content = torch.load(last, weights_only=True)
    del content["zoo_lightning"]["data_options"]
    torch.save(content, last)
    going_on = ["fit", "--experiment", "tiny", "--run_dir", finished, "--ckpt_path", "last"]
    done = command(*going_on, "--data.augment", "true")
    assert done.status == 0, done.err


def test_a_constant_schedule_may_be_prolonged(tmp_path, tiny, command):
    tiny(**{"model.init_args.schedule": "constant", "trainer.max_steps": 4})
    fit = ["fit", "--experiment", "tiny", "--run_dir", "a"]
    assert command(*fit).status == 0
    longer = command(*fit, "--ckpt_path", "last", "--trainer.max_steps=8")
    assert longer.status == 0, longer.err
    assert weights(tmp_path / "a")["step"] == 8


def test_init_from_starts_anew_from_the_weights(finished, command, tmp_path):
    other = ["--model.init_args.lr=0", "--trainer.max_steps=5", "--model.init_args.loss=l1"]
    done = command(
        "fit", "--experiment", "tiny", "--run_dir", "anew", "--init_from", finished, *other
    )
    assert done.status == 0, done.err
    best = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    anew = weights(tmp_path / "anew")
    assert anew["step"] == 5
    learned = [k for k in best if k.endswith(("weight", "bias", "alignment"))]
    assert learned
    # A learning rate of zero shows that they are those of the run, head included.
    assert all(torch.equal(anew[key], best[key]) for key in learned)


def test_init_from_and_ckpt_path_exclude_each_other(finished, command):
    options = ["--ckpt_path", "last", "--run_dir", finished, "--init_from", finished]
    refused = command("fit", "--experiment", "tiny", *options)
    assert refused.status == 2
    assert "give one" in last_line(refused.err)


def test_init_from_another_network_is_refused(finished, command):
    options = ["--init_from", finished, "--model.init_args.backbone.init_args.align=all"]
    refused = command("fit", "--experiment", "tiny", "--run_dir", "anew", *options)
    assert refused.status == 2
    assert "backbone.align is 'spatial' in the checkpoint, 'all' here" in last_line(refused.err)
    assert not Path("anew", "checkpoints").exists()


def test_rows_after_the_checkpoint_are_not_taken_over(tmp_path):
    (tmp_path / "metrics.csv").write_text("step,train/loss\n0,3\n1,2\n2,1\n3,0.5\n")
    assert [row["step"] for row in earlier_metrics(tmp_path, 2)] == [0, 1]
    assert earlier_metrics(tmp_path / "nowhere", 2) == []


def test_the_test_of_a_run_that_had_ended_is_not_taken_over(tmp_path):
    # Lightning logs it one step earlier where there was nothing left to train.
    (tmp_path / "metrics.csv").write_text("step,train/loss,test/loss\n0,3,\n1,2,\n1,,4\n2,,4\n")
    assert earlier_metrics(tmp_path, 2) == [
        {"step": 0, "train/loss": 3}, {"step": 1, "train/loss": 2}
    ]  # fmt: skip


class Trainer:
    """As much of a Trainer as the callback asks of it."""

    world_size = 1
    global_step = 0
    enable_validation = False

    def save_checkpoint(self, path, weights_only):
        """Note what was saved."""
        self.saved = path


def test_a_signal_waits_for_the_end_of_accumulated_gradients(tmp_path):
    callback, trainer = LastCheckpoint(str(tmp_path)), Trainer()
    callback.requested = signal.SIGTERM
    callback.on_train_batch_start(trainer, None, None, 0)
    callback.on_train_batch_end(trainer, None, None, None, 0)  # the optimiser has not stepped
    assert not hasattr(trainer, "saved")
    callback.on_train_batch_start(trainer, None, None, 1)
    trainer.global_step = 1
    callback.on_train_batch_end(trainer, None, None, None, 1)
    with pytest.raises(TrainingInterrupted, match="SIGTERM"):
        callback.on_train_batch_start(trainer, None, None, 2)
    assert trainer.saved == tmp_path / "last.ckpt"


def test_a_second_signal_does_not_wait(tmp_path):
    callback = LastCheckpoint(str(tmp_path))
    callback._request(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        callback._request(signal.SIGINT)


def test_a_run_killed_between_its_first_two_checkpoints_is_resumed_from_the_one_it_has(
    finished, command
):
    assert resume_words(Path("done"))[1] == "last"
    Path("done/checkpoints/last.ckpt").unlink()
    Path("done/summary.json").unlink()
    command("fit", "--experiment", "tiny", "--run_dir", "done").refused("checkpoints/best.ckpt")
    words = resume_words(Path("done"))
    resumed = command("fit", "--experiment", "tiny", "--run_dir", "done", *words)
    assert resumed.status == 0, resumed.err
    assert Path("done/checkpoints/last.ckpt").is_file()
    assert Path("done/summary.json").is_file()
