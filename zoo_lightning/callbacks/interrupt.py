"""Stopping on SIGINT and SIGTERM without losing a step."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from typing_extensions import override


class TrainingInterrupted(BaseException):
    """Training was asked to stop and has saved where it was.

    Not an ``Exception``: nothing on the way may take it for a fault and swallow it.

    Attributes:
        signal_number: what asked.
        checkpoint: file from which the run goes on exactly where it was.
    """

    def __init__(self, signal_number: int, checkpoint: Path) -> None:
        name = signal.Signals(signal_number).name
        super().__init__(f"stopped by {name}; the state of training is in {checkpoint}")
        self.signal_number = signal_number
        self.checkpoint = checkpoint


class InterruptCheckpoint(Callback):
    """Finishes the step in progress on SIGINT or SIGTERM, saves ``last.ckpt`` and stops.

    A checkpoint in the middle of a step could hold half of an update; the one saved here continues
    with exactly the weights of an uninterrupted run. A second signal does not wait.

    Args:
        folder: where ``last.ckpt`` goes.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.requested = 0
        self._before: dict[int, Any] = {}

    def _handle(self, signal_number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = signal_number

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        asked = bool(self.requested)
        if trainer.world_size > 1:  # all ranks must stop at the same step
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        if asked:
            path = self.folder / "last.ckpt"
            trainer.save_checkpoint(path)
            raise TrainingInterrupted(self.requested or signal.SIGTERM, path)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()
