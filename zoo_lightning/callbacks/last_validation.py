"""A validation at the end of a training, wherever its last step lies."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from typing_extensions import override


class LastValidation(Callback):
    """Validates after the last step, too.

    Lightning validates at multiples of ``val_check_interval`` only: what is learned after the last
    of them, often at the lowest learning rate, could never become the best checkpoint, and a
    training that is shorter than the interval would have no validation at all.
    """

    @override
    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        # Asked to stop, Lightning validates; without this it would stop after this step as well.
        if is_last_step(trainer):
            trainer.should_stop = True


def is_last_step(trainer: pl.Trainer) -> bool:
    """Whether the batch that has just ended is the training's last by steps or epochs."""
    if trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps:
        return True
    return trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
