"""Callbacks of every zoo: the gates' moving average, their logging, and warnings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import sum_over_processes
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.strategies import check_strategy
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.nn import AggregatedLayer
from zoo_lightning.nn.aggregated import update_gate_emas

if TYPE_CHECKING:
    from torch.optim import Optimizer

CLOSED, OPEN = 0.02, 0.98
"""Average gates below and above which a sigmoid has hardly any gradient."""

FAR = 10.0
"""Largest magnitude of an alignment's element without a warning; alignments start as identity."""


class GateEMA(Callback):
    """Update ``gate_ema`` of every aggregated layer once per optimiser step (section 3.4).

    Lite Zoo-Tuning evaluates and folds with this moving average of the batch-average gates. Layers
    add up the gates of every training forward pass; just before the optimiser steps, the sums of
    all micro-batches and all processes become one average. So gradient accumulation and several
    devices give the same result as one large batch.

    Hooks: ``setup`` checks the Trainer's strategy, ``on_before_optimizer_step`` updates. No state:
    the average lives in the layers' buffers, so a checkpoint is complete without this callback.

    Args:
        momentum: ``μ`` in (0, 1], the weight of the newest average; 0.1 in the authors' code.

    Raises:
        ConfigError: the momentum is outside its range, or the strategy has no such average.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        if not 0 < momentum <= 1:
            raise ConfigError(f"gate_momentum must lie in (0, 1], got {momentum}")
        self.momentum = momentum

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        check_strategy(trainer.strategy)

    @override
    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        layers = [m for m in pl_module.modules() if isinstance(m, AggregatedLayer)]
        if not layers:
            return
        # One message for all layers: sums and counts side by side.
        sums, counts = zip(*(layer.take_gate_sum() for layer in layers), strict=True)
        joint = sum_over_processes(torch.cat([*sums, torch.stack(counts)]))
        totals = joint[: -len(layers)].split([len(each) for each in sums])
        pairs = list(zip(totals, joint[-len(layers) :].unbind(), strict=True))
        update_gate_emas(layers, pairs, self.momentum)


class GateLog(Callback):
    """Log ``gates/SOURCE``, each source's average gate over all layers, at every validation.

    Args:
        every_batch: whether to log ``gates/LAYER/SOURCE``, the gates of each layer, at every logged
            training batch as well; for small networks.
    """

    def __init__(self, every_batch: bool = False) -> None:
        super().__init__()
        self.every_batch = every_batch

    @override
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any
    ) -> None:
        backbone = getattr(pl_module, "backbone", None)
        if not self.every_batch or not isinstance(backbone, ZooBackbone):
            return
        for name, layer in backbone.aggregated_layers().items():
            for source, gate in zip(backbone.sources, layer.gate_ema, strict=True):
                pl_module.log(f"gates/{name}/{source.name}", gate, rank_zero_only=True)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        backbone = getattr(pl_module, "backbone", None)
        if trainer.sanity_checking or not isinstance(backbone, ZooBackbone):
            return
        averages = [layer.gate_ema for layer in backbone.aggregated_layers().values()]
        means = torch.stack(averages).mean(dim=0)
        for source, mean in zip(backbone.sources, means, strict=True):
            pl_module.log(f"gates/{source.name}", mean, rank_zero_only=True)


class ZooWarnings(Callback):
    """Warn at a validation, once for each layer, if gates have collapsed or alignments exploded.

    If the gates of all sources are near 0, the layer's kernel vanishes; if all are near 1, the
    sources are summed and the gates have hardly any gradient. One open and all others closed gives
    no warning. An alignment with an element above 10 in magnitude has exploded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._warned: set[str] = set()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        backbone = getattr(pl_module, "backbone", None)
        if trainer.sanity_checking or not isinstance(backbone, ZooBackbone):
            return
        for name, layer in backbone.aggregated_layers().items():
            found = diagnose(layer)
            if found and name not in self._warned:
                self._warned.add(name)
                rank_zero_warn(f"layer {name}: {found}")


def diagnose(layer: AggregatedLayer) -> str:
    """Describe a fault of a layer's gates or alignment and its remedy; empty if there is none."""
    lowest, highest = float(layer.gate_ema.min()), float(layer.gate_ema.max())
    lower = "lower model.gate_lr_factor, or start elsewhere (gate_init)"
    if highest < CLOSED:
        return f"all gates are near 0 (at most {highest:.3f}), its kernel vanishes; {lower}"
    if lowest > OPEN:
        return f"all gates are near 1 (at least {lowest:.3f}) and hardly learn any more; {lower}"
    largest = 0.0 if layer.alignment is None else float(layer.alignment.detach().abs().max())
    if largest > FAR:
        return (
            f"its channel alignment has an element of {largest:.3g}, where it began as the "
            "identity; lower model.alignment_lr_factor, or set align: none"
        )
    return ""
