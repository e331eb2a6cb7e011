"""Exponential moving average of the weights, with norm statistics of its own."""

from __future__ import annotations

import math
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn
from typing_extensions import override

from zoo_lightning.errors import ConfigError
from zoo_lightning.layers.norm_statistics import estimate_norms, mixed
from zoo_lightning.ranking import training_batches

SHARE = 4.0
"""The decay is ``1 - SHARE / S`` for ``S`` updates: the average looks back over about a quarter of
the training, and weights from before the first step count ``exp(-4)``, 2 per cent."""

NORM_IMAGES = 512
"""Training images that norm statistics are estimated from."""


class AveragedWeights(WeightAveraging):
    """Keeps an exponential moving average of the weights, and validates, tests and saves that.

    The average is updated after every optimizer step (after every rollout of a policy) with the
    decay ``1 - 4 / S``, ``S`` being the number of updates of the whole training. Before each
    validation the running statistics of batch norms are estimated from training images that are not
    augmented, since those of the current weights are not the average's (Izmailov et al., *Averaging
    Weights Leads to Wider Optima and Better Generalization*, UAI 2018, section 3.2). Buffers are
    not averaged: the gates' moving average, which is one already, is that of the newest step.

    Hooks and state: those of Lightning's :class:`~lightning.pytorch.callbacks.WeightAveraging`; a
    checkpoint's ``state_dict`` has the average, ``current_model_state`` the weights that training
    resumes from.

    Args:
        norm_images: training images for norm statistics, at least 2.

    Raises:
        ConfigError: fewer; or at the start of a training without an end, a validation or a data
            module.
    """

    def __init__(self, norm_images: int = NORM_IMAGES) -> None:
        super().__init__(use_buffers=False)
        if norm_images < 2:
            raise ConfigError(f"norm_images must be at least 2, got {norm_images}")
        self.norm_images = norm_images
        self._images: list[Tensor] = []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.limit_val_batches == 0:
            raise ConfigError(
                "averaged weights get their norm statistics at validations; leave out "
                "trainer.limit_val_batches 0, or give average_weights: false"
            )
        if stage == "fit" and _has_norms(pl_module) and trainer.datamodule is None:
            raise ConfigError(
                "averaged weights draw images for norm statistics from a data module's training "
                "set, got loaders alone; give trainer.fit a data module of zoo_lightning"
            )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        updates = trainer.estimated_stepping_batches
        if not math.isfinite(updates):
            raise ConfigError(
                "averaged weights need the training's length for their decay; set "
                "trainer.max_steps or trainer.max_epochs"
            )
        decay = max(1 - SHARE / updates, 0.0)
        self._average_model.multi_avg_fn = get_ema_multi_avg_fn(decay)

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        if self._average_model is None or trainer.sanity_checking:
            return
        if _has_norms(pl_module):
            # Loaders draw from the generator of the training, too.
            with torch.random.fork_rng(devices=[]):
                images = [each.to(pl_module.device) for each in self._training_images(trainer)]
                estimate_norms(pl_module, _normalized(trainer, images))

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning would put in the weights that training resumes from, also for a test.
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _training_images(self, trainer: pl.Trainer) -> list[Tensor]:
        """Batches of uint8 training images of all classes, read once."""
        if not self._images:
            found = training_batches(trainer.datamodule, self.norm_images)
            batches = [each["image"] for each in found]
            self._images = mixed(batches)
        return self._images


def _has_norms(module: pl.LightningModule) -> bool:
    return any(isinstance(each, _BatchNorm) for each in module.modules())


def _normalized(trainer: pl.Trainer, images: list[Tensor]) -> Any:
    for each in images:
        yield trainer.datamodule.on_after_batch_transfer({"image": each}, 0)["image"]
