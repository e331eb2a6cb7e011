"""Initialise a new head with the linear probe of the backbone's features."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from torch import nn
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import data_module
from zoo_lightning.errors import ConfigError
from zoo_lightning.models.backbone import Backbone
from zoo_lightning.nn.heads import NumberHead
from zoo_lightning.transfer.head_start import solve_head


class HeadProbe(Callback):
    """Solve a linear head on pooled features of the training data, before the first step.

    See :mod:`zoo_lightning.transfer.head_start`. A resumed run keeps its head.

    Hooks: ``on_fit_start`` checks head and data, ``on_train_start`` solves.

    Args:
        backbone: network whose features are the head's input.
        head: head to initialise.
        label_smoothing: label smoothing of the training loss, in [0, 1).
        keep: whether to leave the head unchanged, because trained weights were loaded.

    Raises:
        ConfigError: at the start of training, the head is not linear or there is no data module.
    """

    def __init__(
        self, backbone: Backbone, head: nn.Module, label_smoothing: float, keep: bool
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.label_smoothing = label_smoothing
        self.keep = keep

    @override
    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._linear_head()
        if data_module(trainer) is None:
            raise ConfigError(
                "head_init 'probe' looks at the training data and needs a data module; give "
                "trainer.fit one, or set head_init: random"
            )

    def _linear_head(self) -> nn.Linear:
        if not isinstance(self.head, nn.Linear):
            raise ConfigError(
                "head_init 'probe' solves a linear head on pooled features; this task's is a "
                f"{type(self.head).__name__}: set head_init: random"
            )
        return self.head

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.keep or trainer.ckpt_path is not None:
            return
        head = self._linear_head()
        solved = solve_head(
            self.backbone,
            data_module(trainer),
            head.out_features,
            pl_module.device,
            self.label_smoothing,
        )
        if isinstance(head, NumberHead):  # whose weights are those of standardised targets
            solved = head.standardised(*(each.to(head.target_std) for each in solved))
        # Devices round differently; all processes must begin with the same head.
        weight, bias = trainer.strategy.broadcast(solved)
        with torch.no_grad():
            head.weight.copy_(weight)
            head.bias.copy_(bias)
