"""Moving average of the weights, with its own batch-norm statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import lightning.pytorch as pl
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import data_module
from zoo_lightning.errors import ConfigError
from zoo_lightning.nn.norm_statistics import estimate_norms, interleaved
from zoo_lightning.nn.random_numbers import private_random_numbers
from zoo_lightning.transfer.ranking import training_batches

SHARE = 4.0
"""Numerator in the decay ``1 - SHARE / (t + SHARE)`` of update ``t``, the first one being 0.

Weights of update ``t`` then count about as ``t**3``: the average covers the last quarter of the
steps so far, and the initial weights hardly count after a few steps.
"""

NORM_IMAGES = 512
"""Default number of training images for estimating norm statistics."""


Tensors: TypeAlias = "tuple[Tensor, ...] | list[Tensor]"
"""Weights of one device and type, as torch gives them to an update."""

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
"""Layers whose running statistics are estimated."""


class AveragedWeights(WeightAveraging):
    """Keep a moving average of the weights, and validate, test and save it.

    The average is updated after every optimiser step (for policies, after every rollout) with the
    decay ``1 - 4 / (t + 4)`` of update ``t``, so that at any time it covers about the last quarter
    of the training so far (polynomial-decay averaging, Shamir and Zhang, *Stochastic Gradient
    Descent for Non-smooth Optimization*, ICML 2013, with eta = 3): the length of the
    training need not be known, and a training that ends early has the average of its own. Before
    each validation, the running statistics of batch norms are estimated from unaugmented training
    images, because those of the current weights do not fit the average (Izmailov et al., *Averaging
    Weights Leads to Wider Optima and Better Generalization*, UAI 2018, section 3.2). Buffers are
    not averaged: the gate average, which is a moving average already, is that of the newest step.

    Hooks and state: those of Lightning's :class:`~lightning.pytorch.callbacks.WeightAveraging`; a
    checkpoint's ``state_dict`` has the average, ``current_model_state`` the weights that training
    resumes from.

    Args:
        norm_images: number of training images for norm statistics, at least 2.

    Raises:
        ConfigError: ``norm_images`` is below 2, or training has no validation or, with batch norms,
            no data module.
    """

    def __init__(self, norm_images: int = NORM_IMAGES) -> None:
        super().__init__(use_buffers=False)
        if norm_images < 2:
            raise ConfigError(f"norm_images must be at least 2, got {norm_images}")
        self.norm_images = norm_images
        self._images: list[Tensor] = []
        self._updates = 0

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and trainer.limit_val_batches == 0:
            raise ConfigError(
                "averaged weights get their norm statistics at validations; leave out "
                "trainer.limit_val_batches 0, or give average_weights: false"
            )
        if stage == "fit" and _has_norms(pl_module) and data_module(trainer) is None:
            raise ConfigError(
                "averaged weights draw images for norm statistics from a data module's training "
                "set, got loaders alone; give trainer.fit a data module of zoo_lightning"
            )

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert self._average_model is not None, "WeightAveraging.setup creates it"
        self._average_model.multi_avg_fn = self._update
        # Its number of updates is asked for in every step, for which the host would wait for a GPU.
        self._average_model.n_averaged = self._average_model.n_averaged.cpu()
        self._updates = int(self._average_model.n_averaged)

    @override
    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        updates = super().should_update(step_idx, epoch_idx)
        self._updates += updates
        return updates

    def _update(self, averaged: Tensors, current: Tensors, _: Tensor | int) -> None:
        """Update averaged weights in place; the number of updates is given on their device."""
        updates = self._updates - 1  # before this one
        get_ema_multi_avg_fn(1 - SHARE / (updates + SHARE))(averaged, current, updates)

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        if self._average_model is None or trainer.sanity_checking:
            return
        if _has_norms(pl_module):
            # Loaders draw from the training's random numbers, too.
            with private_random_numbers():
                images = [each.to(pl_module.device) for each in self._training_images(trainer)]
                estimate_norms(pl_module, _normalized(trainer, images))

    @override
    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        # Lightning would load the weights that training resumes from even for a test.
        if trainer.state.fn == TrainerFn.FITTING:
            super().on_load_checkpoint(trainer, pl_module, checkpoint)

    def _training_images(self, trainer: pl.Trainer) -> list[Tensor]:
        """Batches of uint8 training images of all classes, read once."""
        if not self._images:
            found = training_batches(data_module(trainer), self.norm_images)
            batches = [each["image"] for each in found]
            self._images = interleaved(batches)
        return self._images


def _has_norms(module: pl.LightningModule) -> bool:
    return any(isinstance(each, BATCH_NORMS) for each in module.modules())


def _normalized(trainer: pl.Trainer, images: list[Tensor]) -> Iterator[Tensor]:
    for each in images:
        yield data_module(trainer).on_after_batch_transfer({"image": each}, 0)["image"]
