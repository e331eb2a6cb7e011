"""Norm layers' running statistics from real data, before the first step."""

from __future__ import annotations

from collections.abc import Iterator

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from zoo_lightning.errors import ConfigError
from zoo_lightning.layers.norm_statistics import estimate_norms, mixed
from zoo_lightning.ranking import training_batches


class NormRecalibration(Callback):
    """Estimates batch-norm statistics of a new model over some training images.

    No run has it by itself. A zoo resets its statistics, since those of different networks have no
    meaningful average; training estimates them anew, over some tens of steps, and ``head_init:
    probe`` before the first one. With this callback they are right from the first step on whatever
    the head, which matters for a short training or for evaluating an untrained average. The images
    are drawn at random by the data's seed and not varied; a run that goes on keeps what it has.

    Args:
        batches: of the data's batch size to average over, at least 1.

    Raises:
        ConfigError: fewer; or at the start of a training without a data module of this package.
    """

    def __init__(self, batches: int = 20) -> None:
        super().__init__()
        if batches < 1:
            raise ConfigError(f"batches must be at least 1, got {batches}")
        self.batches = batches

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if stage == "fit" and trainer.datamodule is None:
            raise ConfigError(
                "NormRecalibration draws images from a data module's training set, got loaders "
                "alone; give trainer.fit a data module of zoo_lightning, such as ImageFolders, or "
                "leave the callback out"
            )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.global_step == 0:
            # The training's own random numbers stay as they were.
            with torch.random.fork_rng(devices=[]):
                estimate_norms(pl_module, self._images(trainer, pl_module.device))

    def _images(self, trainer: pl.Trainer, device: torch.device) -> Iterator[Tensor]:
        data = trainer.datamodule
        found = training_batches(data, self.batches * getattr(data, "batch_size", 1))
        for images in mixed([batch["image"] for batch in found]):
            yield data.on_after_batch_transfer({"image": images.to(device)}, 0)["image"]
