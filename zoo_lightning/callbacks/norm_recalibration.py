"""Recalibrate norm layers' running statistics on real data before the first step."""

from __future__ import annotations

from collections.abc import Iterator

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import data_module
from zoo_lightning.errors import ConfigError
from zoo_lightning.nn.norm_statistics import estimate_norms, interleaved
from zoo_lightning.nn.random_numbers import private_random_numbers
from zoo_lightning.transfer.ranking import training_batches


class NormRecalibration(Callback):
    """Estimate the batch-norm statistics of a new model from training images.

    Runs do not use this callback by default. A zoo resets its statistics, because those of
    different networks have no meaningful average; training re-estimates them over some tens of
    steps, and ``head_init: probe`` before the first one. With this callback they are correct from
    the first step, which matters for short trainings and for evaluating an untrained average. The
    images are chosen at random by the data's seed and not augmented. A resumed run keeps its
    statistics.

    Args:
        batches: number of batches to average over, at least 1.

    Raises:
        ConfigError: ``batches`` is below 1, or the training has no data module.
    """

    def __init__(self, batches: int = 20) -> None:
        super().__init__()
        if batches < 1:
            raise ConfigError(f"batches must be at least 1, got {batches}")
        self.batches = batches

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and data_module(trainer) is None:
            raise ConfigError(
                "NormRecalibration draws images from a data module's training set, got loaders "
                "alone; give trainer.fit a data module of zoo_lightning, such as ImageFolders, or "
                "leave the callback out"
            )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            # The training's own random numbers do not change.
            with private_random_numbers():
                estimate_norms(pl_module, self._images(trainer, pl_module.device))

    def _images(self, trainer: pl.Trainer, device: torch.device) -> Iterator[Tensor]:
        data = data_module(trainer)
        found = training_batches(data, self.batches * getattr(data, "batch_size", 1))
        for images in interleaved([batch["image"] for batch in found]):
            yield data.on_after_batch_transfer({"image": images.to(device)}, 0)["image"]
