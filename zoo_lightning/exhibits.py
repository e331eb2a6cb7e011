"""What a run shows: figures and tables, in its folder always and with loggers that can show them.

Figures go to TensorBoard and to Weights & Biases, tables to the latter. Call on one process only.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from zoo_lightning.loggers import unharmed, wandb_runs
from zoo_lightning.plots import save_figure
from zoo_lightning.run_folder import PICTURES
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 5000
"""Rows of a table that a logger gets, the first ones; the file has all."""


def step_of(trainer: pl.Trainer, pl_module: Any) -> int:
    """Where a run is on its log's axis: optimiser steps, or the steps that an agent has taken."""
    return int(getattr(pl_module, "agent_steps", trainer.global_step))


def show_pictures(
    trainer: pl.Trainer, pl_module: Any, folder: Path, figures: Mapping[str, Figure]
) -> None:
    """Write figures to ``pictures/`` and hand them to the loggers.

    Args:
        trainer: whose loggers get ``pictures/NAME``.
        pl_module: in training, for the step.
        folder: of the run.
        figures: by the names of their files.
    """
    step = step_of(trainer, pl_module)
    for file, figure in figures.items():
        path = folder / PICTURES / file
        save_figure(figure, path)
        name = f"{PICTURES}/{Path(file).stem}"
        with unharmed("pictures to TensorBoard"):
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(name, figure, step)
        with unharmed("pictures to Weights & Biases"):
            for logger, _ in wandb_runs(trainer.loggers):
                logger.log_image(name, [str(path)], step)  # the file spares drawing it again


def show_table(
    trainer: pl.Trainer,
    pl_module: Any,
    path: Path,
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """Write a CSV and hand the table to Weights & Biases as ``tables/NAME``.

    Args:
        trainer: whose loggers get it.
        pl_module: in training, for the step.
        path: of the file.
        header: names of the columns.
        rows: their cells.
    """
    rows = [list(row) for row in rows]
    with whole_file(path) as part, part.open("w", newline="", **TEXT) as stream:
        writer = csv.writer(stream)
        writer.writerow(header)
        writer.writerows(rows)
    log_table(trainer, step_of(trainer, pl_module), path.stem, header, rows)


def log_table(
    trainer: pl.Trainer,
    step: int,
    name: str,
    header: Sequence[str],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Hand a table to Weights & Biases as ``tables/NAME``."""
    with unharmed("tables to Weights & Biases"):
        for logger, _ in wandb_runs(trainer.loggers):
            # Cells as the file has them; a column of figures is to be sorted by value, though.
            columns = [numbers_of(column) for column in zip(*rows[:LONGEST], strict=True)]
            data = [list(row) for row in zip(*columns, strict=True)]
            logger.log_table(f"tables/{name}", list(header), data, step=step)


def numbers_of(column: Sequence[Any]) -> list[float] | list[str]:
    """A column's cells as numbers if all of them are, else as words."""
    try:
        return [float(cell) for cell in column]
    except ValueError:
        return [str(cell) for cell in column]
