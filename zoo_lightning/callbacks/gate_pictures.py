"""Draw the gates by layer and source: current values, and values over the training."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor
from typing_extensions import override

from zoo_lightning.callbacks.gates import GateLog
from zoo_lightning.callbacks.trainer_access import callbacks_of
from zoo_lightning.loggers.figures_and_tables import save_figures, step_of
from zoo_lightning.loggers.selection import tolerate_failures
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.plotting.gates import plot_gate_history, plot_gates_now

PAUSE = 30.0
"""Least seconds before and between drawings, so that short trainings are not slowed down."""


class GatePictures(Callback):
    """Record the gates at every validation and draw them by layer and source.

    ``pictures/gates.png`` shows the newest gates with their values,
    ``pictures/gates_over_time.png`` a panel of layers by validations for each source. They are
    drawn at a validation unless the run began or they were drawn less than ``PAUSE`` seconds ago,
    and at the end of training. TensorBoard and Weights & Biases get the pictures and, at every
    validation, ``gates/LAYER/SOURCE``; ``metrics.csv`` does not contain these hundreds of values
    (see :class:`~zoo_lightning.callbacks.gates.GateLog`).

    Gates are the layers' moving averages of batch averages, in both modes, full and lite. State:
    the gates of all validations, so the pictures of a resumed run begin where the run began.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.steps: list[int] = []
        self.gates: list[Tensor] = []
        """Gates ``(L, m)`` of ``L`` layers and ``m`` sources at each of ``steps``, on the CPU."""
        self._drawn_at = time.monotonic()
        self._drawn = 0

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"steps": list(self.steps), "gates": torch.stack(self.gates)} if self.gates else {}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps = list(state_dict["steps"])
        self.gates = list(state_dict["gates"])
        self._drawn = len(self.steps)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        backbone = getattr(pl_module, "backbone", None)
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if not fitting or not isinstance(backbone, ZooBackbone):
            return
        layers = backbone.aggregated_layers().values()
        gates = torch.stack([layer.gate_ema.detach().float().cpu() for layer in layers])
        self.steps.append(step_of(trainer, pl_module))
        self.gates.append(gates)
        if not trainer.is_global_zero:
            return
        self._log_series(trainer, backbone)
        if time.monotonic() - self._drawn_at >= PAUSE:
            self._draw(trainer, pl_module)

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.is_global_zero and self._drawn < len(self.steps):
            self._draw(trainer, pl_module)

    def _log_series(self, trainer: pl.Trainer, backbone: ZooBackbone) -> None:
        if any(isinstance(each, GateLog) and each.every_batch for each in callbacks_of(trainer)):
            return  # GateLog logs them more often
        values = {
            f"gates/{layer}/{source.name}": float(gate)
            for layer, row in zip(backbone.aggregated_layers(), self.gates[-1], strict=True)
            for source, gate in zip(backbone.sources, row, strict=True)
        }
        with tolerate_failures("gates by layer"):
            for logger in trainer.loggers:
                if isinstance(logger, (TensorBoardLogger, WandbLogger)):
                    logger.log_metrics(values, step=self.steps[-1])

    def _draw(self, trainer: pl.Trainer, pl_module: Any) -> None:
        layers = list(pl_module.backbone.aggregated_layers())
        sources = [source.name for source in pl_module.backbone.sources]
        history = torch.stack(self.gates).numpy()
        figures = {
            "gates.png": plot_gates_now(history[-1], layers, sources, self.steps[-1]),
            "gates_over_time.png": plot_gate_history(history, self.steps, layers, sources),
        }
        save_figures(trainer, pl_module, self.folder, figures)
        self._drawn_at, self._drawn = time.monotonic(), len(self.steps)
