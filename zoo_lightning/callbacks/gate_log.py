"""What the gates say during training, in the log: one series per source."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from zoo_lightning.backbone import ZooBackbone


class GateLog(Callback):
    """Logs ``gates/SOURCE``: each source's average gate over all layers, at every validation."""

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        backbone = getattr(pl_module, "backbone", None)
        if trainer.sanity_checking or not isinstance(backbone, ZooBackbone):
            return
        averages = [layer.gate_ema for layer in backbone.aggregated_layers().values()]
        means = torch.stack(averages).mean(dim=0)
        for source, mean in zip(backbone.sources, means, strict=True):
            pl_module.log(f"gates/{source.name}", mean, rank_zero_only=True)
