"""Signals outside of the training itself: while it is prepared, and in the test that follows it."""

import signal
from pathlib import Path

import pytest

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
def _handlers():
    """Leave the handlers as they are: Lightning ignores SIGINT from its first on."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("_handlers", "one_thread")
@pytest.mark.parametrize(
    ("stage", "number"),
    [("fit", signal.SIGTERM), ("test", signal.SIGTERM), ("test", signal.SIGINT)],
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
    words = ["nothing was saved", "Go on with the same command"]
    if stage == "test":
        words = [f"the state of training is in {last}", f"command and --ckpt_path {last}"]
    assert all(word in found.err for word in [f"stopped by {number.name}", *words])
    tiny()
    done = command(*fit, "run", *(["--ckpt_path", last] if stage == "test" else []))
    assert done.status == 0, done.err
    if stage == "test":
        assert command(*fit, "straight").status == 0
        runs.assert_same_run(tmp_path / "run", tmp_path / "straight")
