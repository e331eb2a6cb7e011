"""Warnings about a zoo that trains into a corner: collapsed gates, exploding alignments."""

from __future__ import annotations

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from typing_extensions import override

from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.layers import AggregatedLayer

CLOSED, OPEN = 0.02, 0.98
"""Average gates beyond which a sigmoid hardly learns any more."""

FAR = 10.0
"""Magnitude of an alignment's element; it begins as the identity."""


class ZooWarnings(Callback):
    """Warns, at a validation and once for each layer, where a zoo has left sane ground.

    Gates of all sources near 0: the layer's kernel vanishes. All near 1: sources add up, and their
    gates have hardly a gradient left. One source open and the others closed is a choice, and no
    fault. An alignment with an element beyond 10 in magnitude has exploded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: set[str] = set()

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        backbone = getattr(pl_module, "backbone", None)
        if trainer.sanity_checking or not isinstance(backbone, ZooBackbone):
            return
        for name, layer in backbone.aggregated_layers().items():
            found = trouble_of(layer)
            if found and name not in self._told:
                self._told.add(name)
                rank_zero_warn(f"layer {name}: {found}")


def trouble_of(layer: AggregatedLayer) -> str:
    """What is wrong with a layer's gates or alignment, and what may help; empty if nothing is."""
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
