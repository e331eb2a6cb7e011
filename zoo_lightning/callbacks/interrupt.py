"""The state of training in ``last.ckpt``; stopping on signals without losing a step."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.trainer.states import TrainerFn
from typing_extensions import override

from zoo_lightning.stopping import StopSignals


class TrainingInterrupted(BaseException):
    """Training was asked to stop and has saved where it was.

    Not an ``Exception``: nothing on the way may take it for a fault and swallow it.

    Attributes:
        signal_number: what asked.
        checkpoint: file from which the run goes on exactly where it was; ``None`` if it was
            stopped before there was anything to save.
    """

    def __init__(self, signal_number: int, checkpoint: Path | None) -> None:
        name = signal.Signals(signal_number).name
        saved = f"the state of training is in {checkpoint}" if checkpoint else "nothing was saved"
        super().__init__(f"stopped by {name}; {saved}")
        self.signal_number = signal_number
        self.checkpoint = checkpoint


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` at every validation, at the end, and on a signal, then stops.

    Signals are SIGINT, SIGTERM and, unless ``nohup`` has it ignored, SIGHUP. Lightning's
    ``save_last`` saves only when the best checkpoint improves. A signal lets the step in progress
    finish: a checkpoint in the middle of a step could hold half of an update; the one saved here
    continues with exactly the weights of an uninterrupted run. A second signal does not wait. It is
    a ``Checkpoint`` so that Lightning calls it last: what other callbacks have done in a step, such
    as finding a new best one, is part of the state.

    Args:
        folder: where ``last.ckpt`` goes.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.path = Path(folder) / "last.ckpt"
        self.requested = 0
        self._signals = StopSignals(self._ask)
        self._steps = 0  # before the batch
        self._stepped = False  # in the last batch
        self._saved = -1
        self._stopping = False

    def _ask(self, signal_number: int) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = signal_number

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._signals.install()

    @override
    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._stop()
        self._steps = trainer.global_step

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # Between two batches whose gradients are accumulated, a checkpoint would lose the former's.
        self._stepped = trainer.global_step > self._steps
        # A run that goes on does not make up for the validation that was due when it stopped.
        if self._stepped and not validation_follows(trainer, batch_idx) and self._asked(trainer):
            self._save(trainer)
            self._stopping = True  # as soon as the step's metrics are logged

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.state.fn != TrainerFn.FITTING or trainer.sanity_checking or not self._stepped:
            return
        self._save(trainer)
        self._stopping = self._asked(trainer)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._save(trainer)
        self._stop()

    def _asked(self, trainer: pl.Trainer) -> bool:
        asked = bool(self.requested)
        if trainer.world_size > 1:  # all ranks must stop at the same step
            asked = trainer.strategy.reduce_boolean_decision(asked, all=False)
        return asked

    def _save(self, trainer: pl.Trainer) -> None:
        if self._saved != trainer.global_step:
            # The default, given because Lightning otherwise says at every save that it takes it.
            trainer.save_checkpoint(self.path, weights_only=False)
            self._saved = trainer.global_step

    def _stop(self) -> None:
        if self._stopping:
            raise TrainingInterrupted(self.requested or signal.SIGTERM, self.path)

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._signals.restore()


def validation_follows(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the Trainer validates right after the batch that has just ended."""
    if not trainer.enable_validation or not math.isfinite(trainer.val_check_batch):
        return False
    every, batches = trainer.check_val_every_n_epoch, batch_idx + 1
    if every is None:
        batches = trainer.fit_loop.total_batch_idx + 1  # over all epochs
    elif (trainer.current_epoch + 1) % every:
        return False
    if trainer.should_stop and trainer.fit_loop._can_stop_early:
        return True
    return batches % trainer.val_check_batch == 0
