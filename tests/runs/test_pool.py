"""The pool runs each job once, draws jobs when a worker is free, and leaves others' runs alone."""

import argparse
import os
import signal
import subprocess
import sys
import time

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.runs.pool import (
    TAKEN,
    Execution,
    Job,
    add_pool_options,
    claimed,
    execution_of,
    fit_words,
    folder_name,
    resume_words,
    run_jobs,
    work_on,
)


class Ended:
    """A process that has ended."""

    def __init__(self, status):
        self.status = status

    def wait(self):
        """Give the exit status."""
        return self.status

    def terminate(self):
        """Fail: no test stops it."""
        raise AssertionError("nobody asked to stop")


class Numbered(Job):
    """A job that ends at once."""

    module = "nothing"

    def __init__(self, folder, number, status=0, needs=()):
        self.name, self.folder = str(number), folder / str(number)
        self.status, self.needs = status, needs

    def arguments(self):
        """Need none."""
        return []

    def is_finished(self):
        """Look for the file that says so."""
        return (self.folder / "done").is_file()

    def missing_runs(self):
        """Name those of the needed that are not finished."""
        return [each.name for each in self.needs if not each.is_finished()]

    def start(self, device):
        """Note the device, and end."""
        self.folder.mkdir(exist_ok=True)
        self.device = device
        return Ended(self.status)

    def attend(self, process):
        """Note a good end in the folder."""
        status = super().attend(process)
        if status == 0:
            (self.folder / "done").touch()
        return status


def test_jobs_are_run_once_and_in_waves_and_lines_say_how_they_ended(tmp_path):
    lines = []
    good, bad = Numbered(tmp_path, 1), Numbered(tmp_path, 2, status=3)
    taken = Numbered(tmp_path, 3, status=TAKEN)
    of_good, of_bad = Numbered(tmp_path, 4, needs=[good]), Numbered(tmp_path, 5, needs=[bad])
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "log.txt").write_text("first line\nno luck\n")
    waves = [[good, bad, taken], [of_good, of_bad]]
    execution = Execution(report=lines.append)
    assert run_jobs(waves, execution) == [bad]
    assert lines == [
        "begun   1",
        "done    1",
        "begun   2",
        "failed  2: no luck",
        "begun   3",
        "left    3: another process works on it",
        "begun   4",
        "done    4",
        "left    5: it is made from 2, not finished",
    ]
    lines.clear()
    run_jobs([[good, of_good]], execution)
    assert not lines


def test_a_generator_of_jobs_sees_what_has_ended_before_it_gives_the_next(tmp_path):
    given = []

    def jobs():
        while len(given) < 3:
            assert all(job.is_finished() for job in given)
            given.append(Numbered(tmp_path, len(given)))
            yield given[-1]

    assert run_jobs([jobs()], Execution(report=lambda line: None)) == []
    assert len(given) == 3
    assert all(job.is_finished() for job in given)


def test_devices_are_given_to_workers_in_turn(tmp_path):
    jobs = [Numbered(tmp_path, number) for number in range(8)]
    run_jobs([jobs], Execution(2, ["4", "6"], lambda line: None))
    assert {job.device for job in jobs} <= {"4", "6"}
    parser = argparse.ArgumentParser()
    add_pool_options(parser)
    found = execution_of(parser.parse_args(["--devices", "4,6", "--workers", "1"]))
    assert (found.workers, found.devices) == (2, ["4", "6"])
    with pytest.raises(ConfigError, match="--workers"):
        execution_of(parser.parse_args(["--workers", "0"]))


def test_a_process_works_on_a_run_that_is_neither_finished_nor_claimed(tmp_path):
    folder, worked = tmp_path / "run", []

    def work():
        worked.append(True)
        return 7

    assert work_on(folder, lambda: False, work) == 7
    assert work_on(folder, lambda: True, work) == 0
    with claimed(folder) as free:
        assert free
        assert work_on(folder, lambda: False, work) == TAKEN
    assert len(worked) == 1


def test_a_run_is_resumed_if_it_has_saved_something(tmp_path):
    assert fit_words(tmp_path / "a.yaml", tmp_path, run_test=False)[-2:] == ["--run_test", "false"]
    assert resume_words(tmp_path) == []
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    assert resume_words(tmp_path) == ["--ckpt_path", "last"]
    assert fit_words(tmp_path / "a.yaml", tmp_path)[-2:] == ["--ckpt_path", "last"]


def test_names_of_folders_have_no_odd_characters():
    assert folder_name("single timm:resnet18/a 1.5") == "single-timm-resnet18-a-1.5"


SLOW_TO_SAVE = """
import multiprocessing.util
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])


def save(number, frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(1.5)
    # What data loaders share tensors through lies there.
    assert os.path.isdir(multiprocessing.util.get_temp_dir())
    (folder / "saved").touch()
    sys.exit(143)


signal.signal(signal.SIGTERM, save)
(folder / "begun").touch()
time.sleep(60)
"""

STOPPED = """
import sys
from pathlib import Path

from zoo_lightning.runs import forking
from zoo_lightning.runs.pool import Execution, Job, run_jobs
from zoo_lightning.runs.stopping import WorkStopped

forking.PRELOADED = []


class Slow(Job):
    module = "slow_to_save"

    def __init__(self, folder):
        self.name, self.folder = folder.name, folder

    def arguments(self):
        return [str(self.folder)]

    def is_finished(self):
        return False


if __name__ == "__main__":
    jobs = [Slow(Path(name).resolve()) for name in ("first", "second", "third")]
    try:
        run_jobs([jobs[:2], jobs[2:]], Execution(2))
    except WorkStopped as stop:
        sys.exit(128 + stop.signal_number)
"""


@pytest.mark.usefixtures("_heard")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_however_often_a_whole_group_is_stopped_the_runs_save_before_the_pool_ends(
    tmp_path, program, number
):
    (tmp_path / "slow_to_save.py").write_text(SLOW_TO_SAVE)
    (tmp_path / "stopped.py").write_text(STOPPED)
    path = os.pathsep.join([str(tmp_path), program.environment["PYTHONPATH"]])
    process = subprocess.Popen(
        [sys.executable, "-m", "stopped"], cwd=tmp_path, start_new_session=True,
        env={**program.environment, "PYTHONPATH": path}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    begun, deadline = [tmp_path / name / "begun" for name in ("first", "second")], time.time() + 60
    while not all(file.is_file() for file in begun):
        assert process.poll() is None
        assert time.time() < deadline
        time.sleep(0.02)
    for pause in (0, 0.001, 0.5):  # as `timeout` does, and then somebody at a keyboard
        time.sleep(pause)
        os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert not errors
    assert all((tmp_path / name / "saved").is_file() for name in ("first", "second"))
    assert not (tmp_path / "third").exists()


def test_what_choosing_the_next_job_raises_is_raised_where_the_jobs_are_awaited(tmp_path):
    def jobs():
        yield Numbered(tmp_path, 1)
        raise ConfigError("no such method")

    with pytest.raises(ConfigError, match="no such method"):
        run_jobs([jobs()], Execution(2, report=lambda line: None))
    assert (tmp_path / "1" / "done").is_file()
