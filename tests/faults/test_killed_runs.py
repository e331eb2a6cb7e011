"""Runs, comparisons and sweeps that are killed again and again, at moments drawn by chance.

Each goes on by its own command until it is finished, and must then be what an undisturbed one is.
"""

import csv
import json
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
import yaml

# A machine that is busy with other things is given its time.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.usefixtures("_heard"),
]

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)

FIT = ("fit", "--experiment", "tiny", "--run_dir")


def start(program, folder: Path, *words) -> subprocess.Popen:
    """A command in a session of its own, whose output goes to ``log.txt``."""
    with (folder / "log.txt").open("a") as log:
        return subprocess.Popen(
            [*program.words, *map(str, words)], cwd=folder, env=program.environment, stdout=log,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def going_on(folder: Path) -> list[str]:
    """What a stopped run's command needs to go on."""
    return ["--ckpt_path", "last"] if any((folder / "checkpoints").glob("*.ckpt")) else []


@pytest.mark.usefixtures("one_thread")
def test_a_training_killed_at_random_moments_ends_with_the_same_weights(
    tmp_path, tiny, program, command, runs, kill, all_gone, descendants
):
    tiny(**{**runs.LONG, "data.init_args.num_workers": 1})
    assert command(*FIT, "straight").status == 0
    draw, run, steps = random.Random(0), tmp_path / "run", []
    for number in range(12):
        process = start(program, tmp_path, *FIT, "run", *going_on(run))
        if number % 4:  # else at any moment, while it reads and prepares, too
            if not runs.waited_for_steps(process, run, (steps[-1] if steps else 0) + 1):
                break  # it was faster than we are
            time.sleep(draw.uniform(0, 1))
        else:
            time.sleep(draw.uniform(0, 12))
        below = descendants(process.pid)
        kill(process.pid, SIGNALS[number % 3], everything=number % 2 == 0)
        assert process.wait(60) in (0, -9, -2, -15, 128 + 2, 128 + 15), log(tmp_path)
        all_gone(below)
        steps.append(rows_of(run))
    process = start(program, tmp_path, *FIT, "run", *going_on(run))
    assert process.wait(300) == 0, log(tmp_path)
    assert "Traceback" not in log(tmp_path)
    assert steps[-1] > 20
    runs.assert_same_run(run, tmp_path / "straight")


def rows_of(run: Path) -> int:
    """Lines that a run has logged."""
    file = run / "metrics.csv"
    return file.read_text().count("\n") if file.is_file() else 0


def log(folder: Path) -> str:
    """All that the commands have printed."""
    return (folder / "log.txt").read_text(errors="replace")


DYING = """
import os
import signal

from lightning.pytorch.callbacks import Callback


class DieIn(Callback):
    \"\"\"The process is killed in the saving of a checkpoint: before, in or after some system call.

    Args:
        place: ``written`` (half of the file), ``synced`` (before its name) or ``named`` (after it).
        number: of the saving.
        name: of the checkpoint.
    \"\"\"

    def __init__(self, place: str, number: int, name: str) -> None:
        self.place, self.number, self.name, self.count = place, number, name, 0

    def on_train_start(self, trainer, *args) -> None:
        from pathlib import Path

        write, replace = Path.write_bytes, os.replace

        def die() -> None:
            os.kill(os.getpid(), signal.SIGKILL)

        def write_bytes(path, content):
            if f".{self.name}." not in path.name:
                return write(path, content)
            self.count += 1
            if self.count == self.number and self.place == "written":
                write(path, bytes(content)[: len(content) // 2])
                die()
            return write(path, content)

        def replaced(source, target):
            mine = str(target).endswith(self.name) and self.count == self.number
            if mine and self.place == "synced":
                die()
            replace(source, target)
            if mine and self.place == "named":
                die()

        Path.write_bytes, os.replace = write_bytes, replaced
"""
"""A callback by which a run dies in the middle of saving."""


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("place", ["written", "synced", "named"])
@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_training_killed_while_it_saves_goes_on_to_the_same_weights(
    tmp_path, tiny, program, command, runs, halves, name, place
):
    (tmp_path / "dying.py").write_text(DYING)
    changes = {"data.init_args.augment": True, "trainer.max_steps": 16}
    tiny(**changes)
    assert command(*FIT, "straight").status == 0
    # The best one is saved first of all, the last one a second time.
    options = {"place": place, "number": 1 + (name == "last.ckpt"), "name": name}
    callback = {"class_path": "dying.DieIn", "init_args": options}
    tiny(**changes, **{"trainer.callbacks": [callback]})
    paths = f"{program.environment['PYTHONPATH']}:{tmp_path}"
    done = subprocess.run(
        [*program.words, *FIT, "run"], env={**program.environment, "PYTHONPATH": paths},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(halves(tmp_path)) == (place != "named")
    tiny(**changes)
    resumed = command(*FIT, "run", *going_on(tmp_path / "run"))
    assert resumed.status == 0, resumed.err
    assert halves(tmp_path) == []
    runs.assert_same_run(tmp_path / "run", tmp_path / "straight")


def storm(program, folder, words, kill, finished, rounds=8, longest=14.0) -> None:
    """Kill a command again and again, then let it finish."""
    draw, hit = random.Random(1), 0
    for number in range(rounds):
        process = start(program, folder, *words)
        time.sleep(draw.uniform(1, longest))
        hit += process.poll() is None
        # All of them at once, too, as when a machine goes down.
        everything = number % 2 == 1
        kill(process.pid, signal.SIGKILL if everything else SIGNALS[number // 2 % 3], everything)
        assert process.wait(200) in (0, 1, -9, -2, -15, 128 + 2, 128 + 15), log(folder)
    assert hit >= 4, "the command is too short to be killed"
    for _ in range(20):  # runs that outlived their command are left alone till they have ended
        process = start(program, folder, *words)
        assert process.wait(500) == 0, log(folder)
        if finished():
            return
        time.sleep(2)
    pytest.fail(log(folder))


def test_a_comparison_killed_at_random_moments_ends_with_the_table_of_an_undisturbed_one(
    tmp_path, tiny, program, kill
):
    tiny(**{"trainer.max_steps": 60})
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "experiments", whole / "experiments")
    words = ("compare", "--run_dir", "out", "--experiment", "tiny", "--methods",
             "scratch,single,greedy-soup", "--seeds", "0", "--workers", "2",
             "--no_costs")  # fmt: skip

    def figures(folder: Path) -> list[dict[str, str]]:
        table = folder / "out" / "table.csv"
        if not table.is_file():
            return []
        with table.open(newline="") as stream:
            keep = ("method", "seed", "test/nme", "val/nme")
            rows = [{k: row[k] for k in keep if k in row} for row in csv.DictReader(stream)]
        return sorted(rows, key=lambda row: (row["method"], row["seed"]))

    assert start(program, whole, *words).wait(500) == 0, log(whole)
    expected = figures(whole)
    assert len(expected) >= 4
    storm(program, tmp_path, words, kill, lambda: len(figures(tmp_path)) == len(expected))
    assert figures(tmp_path) == expected


def test_a_sweep_killed_at_random_moments_ends_with_the_trials_of_an_undisturbed_one(
    tmp_path, tiny, program, kill
):
    pytest.importorskip("optuna")
    tiny(**{"trainer.max_steps": 60})
    content = {
        "name": "small",
        "method": "grid",
        "metric": {"name": "val/nme"},
        "parameters": {"model.init_args.lr": {"values": [2.0e-3, 1.0e-3, 1.0e-6]}},
        "command": ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment=tiny",
                    "--config", "${args_json_file}"],
    }  # fmt: skip
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(content))
    whole = tmp_path / "whole"
    shutil.copytree(tmp_path / "experiments", whole / "experiments")
    shutil.copy(tmp_path / "small.yaml", whole)
    words = ("sweep", "small.yaml", "--local")

    def figures(folder: Path) -> dict[float, float]:
        found = {}
        for file in (folder / "runs" / "sweeps" / "small" / "trials").glob("*/summary.json"):
            lr = yaml.safe_load((file.parent / "config.yaml").read_text())["model"]["init_args"]
            found[lr["lr"]] = json.loads(file.read_text())["validation"]["val/nme"]
        return found

    assert start(program, whole, *words).wait(500) == 0, log(whole)
    expected = figures(whole)
    assert len(expected) == 3
    storm(program, tmp_path, words, kill, lambda: len(figures(tmp_path)) == 3)
    assert figures(tmp_path) == expected
