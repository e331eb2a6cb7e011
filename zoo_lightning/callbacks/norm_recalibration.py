"""Norm layers' running statistics from real data, before the first step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from zoo_lightning.errors import ConfigError
from zoo_lightning.layers.norm_statistics import estimate_norms


class NormRecalibration(Callback):
    """Estimates batch-norm statistics of a new model over some training batches.

    A zoo resets its statistics, since those of different networks have no meaningful average;
    training re-estimates them, over some tens of steps. With this callback they are right from the
    first step on, which matters for a short training or for evaluating an untrained average.

    Args:
        batches: training batches to average over, at least 1.
    """

    def __init__(self, batches: int = 20) -> None:
        super().__init__()
        if batches < 1:
            raise ConfigError(f"batches must be at least 1, got {batches}")
        self.batches = batches

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            estimate_norms(pl_module, self._batches(trainer, pl_module.device))

    def _batches(self, trainer: pl.Trainer, device: torch.device) -> Iterator[torch.Tensor]:
        train_set = trainer.datamodule.train_set
        size = trainer.datamodule.batch_size
        for first in range(0, min(self.batches * size, len(train_set) - 1), size):
            yield self._images(trainer, train_set, range(first, first + size)).to(device)

    @staticmethod
    def _images(trainer: pl.Trainer, train_set: Any, indices: range) -> torch.Tensor:
        samples = [train_set[0, index] for index in indices if index < len(train_set)]
        batch = {"image": torch.stack([sample["image"] for sample in samples])}
        return trainer.datamodule.on_after_batch_transfer(batch, 0)["image"]
