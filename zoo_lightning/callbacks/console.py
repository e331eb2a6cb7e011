"""Console output of a training: the table of the model's parts, and the progress bar."""

from __future__ import annotations

import sys
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelSummary, TQDMProgressBar
from lightning.pytorch.utilities import rank_zero_info
from typing_extensions import override

SHOWN = ("Name", "Type", "Params")
"""Columns of the table; FLOPs are left out, since they are 0 without an example input."""


class LayerSummary(ModelSummary):
    """Print a task's modules with their parameter counts when training begins.

    The multiply-adds of a training are in its run's ``summary.json``.
    """

    @staticmethod
    @override
    def summarize(
        summary_data: list[tuple[str, list[str]]],
        total_parameters: int,
        trainable_parameters: int,
        *_: Any,
        **__: Any,
    ) -> None:
        columns = [(name, rows) for name, rows in summary_data if name in SHOWN]
        rows = zip(*([name, *rows] for name, rows in columns), strict=True)
        widths = [max(map(len, [name, *rows])) for name, rows in columns]
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        frozen = total_parameters - trainable_parameters
        total = f"{total_parameters:,} parameters"
        if frozen:
            total += f", {frozen:,} of them fixed"
        rank_zero_info("\n".join(["", *lines, total]))


class StepProgress(TQDMProgressBar):
    """Progress bar of Lightning that also shows the optimiser step.

    If the output is not a terminal (a log file, a batch job), the bar is updated every 50 batches.
    """

    def __init__(self) -> None:
        super().__init__(refresh_rate=1 if sys.stderr.isatty() else 50)

    @override
    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        total = f"/{trainer.max_steps}" if trainer.max_steps > 0 else ""
        return {"step": f"{trainer.global_step}{total}", **metrics}
