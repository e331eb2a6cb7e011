"""Signals before and after a training, and a terminal that closes in the middle of one."""

import fcntl
import os
import signal
import subprocess
import termios
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

STOPPING = """
import os

from lightning.pytorch.callbacks import Callback


class StopBefore(Callback):
    \"\"\"The process gets a signal before the training, or before the test.\"\"\"

    def __init__(self, stage: str, number: int) -> None:
        self.stage, self.number = stage, number

    def setup(self, trainer, task, stage) -> None:
        if stage == self.stage:
            os.kill(os.getpid(), self.number)
"""


@pytest.fixture
def _handlers(_heard):
    """Leave the handlers as they are: Lightning ignores SIGINT from its first on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers", "one_thread")
@pytest.mark.parametrize(
    ("stage", "number"),
    [
        ("fit", signal.SIGTERM),
        pytest.param("test", signal.SIGTERM, marks=pytest.mark.slow),
        ("test", signal.SIGINT),
    ],
)
def test_a_run_is_stopped_by_a_signal_before_and_after_training(
    tmp_path, tiny, command, monkeypatch, runs, stage, number
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "stopping_between.py").write_text(STOPPING)
    fit = ("fit", "--experiment", "tiny", "--run_dir")
    options = {"stage": stage, "number": int(number)}
    stop = {"class_path": "stopping_between.StopBefore", "init_args": options}
    tiny(**{"trainer.callbacks": [stop]})
    found = command(*fit, "run")
    assert found.status == 128 + number, found.err
    assert "Traceback" not in found.err
    last = Path("run/checkpoints/last.ckpt")
    words = ["nothing was saved", "To resume, repeat the command"]
    if stage == "test":
        words = [
            f"training is finished, its state is in {last}",
            f"command with --ckpt_path {last}",
        ]
    assert all(word in found.err for word in [f"stopped by {number.name}", *words])
    tiny()
    done = command(*fit, "run", *(["--ckpt_path", last] if stage == "test" else []))
    assert done.status == 0, done.err
    if stage == "test":
        assert command(*fit, "straight").status == 0
        runs.assert_same_run(tmp_path / "run", tmp_path / "straight")


def steps_of(folder: Path) -> int:
    """Steps that a run has logged."""
    file = folder / "metrics.csv"
    return file.read_text().count("\n") - 1 if file.is_file() else 0


@pytest.mark.usefixtures("_heard")
def test_a_terminal_that_closes_loses_no_step(tmp_path, tiny, program, runs):
    tiny(**runs.LONG, **{"data.init_args.num_workers": 1, "trainer.enable_progress_bar": True})
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [*program.words, "fit", "--experiment", "tiny", "--run_dir", "run"],
        env=program.environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # becomes its terminal
    )
    os.close(theirs)
    printed, deadline = b"", time.monotonic() + 120
    os.set_blocking(ours, False)
    while process.poll() is None and steps_of(tmp_path / "run") < 5:
        assert time.monotonic() < deadline, printed.decode()
        with suppress(BlockingIOError):
            printed += os.read(ours, 4096)
        time.sleep(0.005)
    os.close(ours)
    assert process.wait(60) == 128 + signal.SIGHUP, printed.decode()
    step = torch.load("run/checkpoints/last.ckpt", weights_only=True)["global_step"]
    assert 5 <= step < runs.STEPS
