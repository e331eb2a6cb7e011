"""Moving average of the batch-average gates: what lite Zoo-Tuning evaluates and folds with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from zoo_lightning.errors import ConfigError
from zoo_lightning.layers import AggregatedLayer
from zoo_lightning.strategies import check_strategy

if TYPE_CHECKING:
    from torch.optim import Optimizer


class GateEMA(Callback):
    """Updates ``gate_ema`` of every aggregated layer once per optimiser step (section 3.4).

    Layers add up the gates of every training forward pass; just before the optimiser steps, the
    sums of all micro-batches and all processes become one average. So gradient accumulation and
    several devices give what one large batch would. The average lives in the layers' buffers, so a
    checkpoint is complete without this callback, and the callback itself has no state.

    Args:
        momentum: ``μ`` in (0, 1], the weight of the newest average; 0.1 in the authors' code.

    Raises:
        ConfigError: a momentum outside its range.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ConfigError(f"gate_momentum must lie in (0, 1], got {momentum}")
        self.momentum = momentum

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Refuse strategies under which there is no such average.

        Raises:
            ConfigError: with the reason.
        """
        check_strategy(trainer.strategy)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        layers = [m for m in pl_module.modules() if isinstance(m, AggregatedLayer)]
        if not layers:
            return
        # One message for all layers: sums and counts side by side.
        zeros = [torch.zeros_like(layer.gate_ema) for layer in layers]
        sums = [z if x.gate_sum is None else x.gate_sum for x, z in zip(layers, zeros, strict=True)]
        counts = torch.stack([sums[0].new_zeros(()) + layer.gate_count for layer in layers])
        joint: Any = trainer.strategy.reduce(torch.cat([*sums, counts]), reduce_op="sum")
        totals = joint[: -len(layers)].split([len(z) for z in zeros])
        for layer, total, count in zip(layers, totals, joint[-len(layers) :], strict=True):
            if count > 0:
                layer.update_gate_ema(total / count, self.momentum)
            layer.gate_sum, layer.gate_count = None, 0
