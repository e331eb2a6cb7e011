"""What the gates say during training, in the log: by source, and by layer and source."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from zoo_lightning.backbone import ZooBackbone


class GateLog(Callback):
    """Logs ``gates/SOURCE``: each source's average gate over all layers, at every validation.

    Args:
        every_batch: log ``gates/LAYER/SOURCE`` as well, each layer's own, with every training batch
            that is logged; for small networks.
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
