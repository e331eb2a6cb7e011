"""Save a run's figures and tables to its folder, and log them to TensorBoard and Weights & Biases.

Figures are logged to both, tables to Weights & Biases only. Call these functions on one process
only.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import TensorBoardLogger

from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.loggers.selection import tolerate_failures, wandb_runs
from zoo_lightning.plotting.figures import save_figure
from zoo_lightning.runs.run_folder import PICTURES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST = 5000
"""Largest number of a table's rows that are logged; the file has all."""


def step_of(trainer: pl.Trainer, pl_module: Any) -> int:
    """Current step of a run's logs: optimiser steps, or agent steps for policies."""
    return int(getattr(pl_module, "agent_steps", trainer.global_step))


def save_figures(
    trainer: pl.Trainer, pl_module: Any, folder: Path, figures: Mapping[str, Figure]
) -> None:
    """Save figures to a run's ``pictures/`` and log them as ``pictures/NAME``.

    Args:
        trainer: Trainer with the loggers.
        pl_module: task, for the step that is logged at.
        folder: the run's folder.
        figures: figures by file name.
    """
    step = step_of(trainer, pl_module)
    for file, figure in figures.items():
        path = folder / PICTURES / file
        save_figure(figure, path)
        name = f"{PICTURES}/{Path(file).stem}"
        with tolerate_failures("pictures to TensorBoard"):
            for logger in trainer.loggers:
                if isinstance(logger, TensorBoardLogger):
                    logger.experiment.add_figure(name, figure, step)
        with tolerate_failures("pictures to Weights & Biases"):
            for logger, _ in wandb_runs(trainer.loggers):
                logger.log_image(name, [str(path)], step)  # the file spares drawing it again


def save_table(
    trainer: pl.Trainer,
    pl_module: Any,
    path: Path,
    header: Sequence[str],
    rows: Iterable[Sequence[Any]],
) -> None:
    """Save a table as a CSV file and log it to Weights & Biases as ``tables/NAME``.

    Args:
        trainer: Trainer with the loggers.
        pl_module: task, for the step that is logged at.
        path: path of the file.
        header: names of the columns.
        rows: cells of each row.
    """
    rows = [list(row) for row in rows]
    with atomic_file(path) as part, part.open("w", newline="", **TEXT) as stream:
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
    """Log a table to Weights & Biases as ``tables/NAME``.

    Args:
        trainer: Trainer with the loggers.
        step: step that is logged at.
        name: name of the table.
        header: names of the columns.
        rows: cells of each row.
    """
    with tolerate_failures("tables to Weights & Biases"):
        for logger, _ in wandb_runs(trainer.loggers):
            # Cells as the file has them; a column of figures is to be sorted by value, though.
            columns = [as_numbers(column) for column in zip(*rows[:LONGEST], strict=True)]
            data = [list(row) for row in zip(*columns, strict=True)]
            logger.log_table(f"tables/{name}", list(header), data, step=step)


def as_numbers(column: Sequence[Any]) -> list[float] | list[str]:
    """Convert a column's cells to numbers if all are numeric, otherwise to text."""
    try:
        return [float(cell) for cell in column]
    except ValueError:
        return [str(cell) for cell in column]
