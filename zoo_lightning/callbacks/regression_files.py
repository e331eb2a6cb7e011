"""Save figures, test errors and predictions of a regression run to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from zoo_lightning.callbacks.classification_files import picture_of
from zoo_lightning.callbacks.evaluation_files import ImageResultFiles, to_numpy
from zoo_lightning.callbacks.trainer_access import data_module
from zoo_lightning.loggers.figures_and_tables import save_figures, save_table
from zoo_lightning.plotting.regression import plot_numbers, plot_scatter
from zoo_lightning.runs.run_folder import TEST_ERRORS

WORST = 18
"""Number of images in the picture of the largest errors."""


@dataclass(frozen=True)
class _Row:
    """Image of a test: its index, true and predicted numbers ``(T,)``, and error."""

    index: int
    true: np.ndarray
    found: np.ndarray
    error: float
    """Absolute error in percent of a standard deviation, averaged over the known targets."""


class RegressionFiles(ImageResultFiles[_Row]):
    """Save pictures, test errors and predictions of a regression task.

    At every validation: ``pictures/val_images.png``, images spread evenly over the data set with
    their true and predicted numbers.

    After a test: ``pictures/scatter.png`` (predicted against true numbers of each target),
    ``pictures/worst.png`` (images with the largest errors), ``test_errors.csv``
    (``image,nmae,true NAME,predicted NAME,...``; ``nmae`` is the image's absolute error in percent
    of a standard deviation, averaged over its known targets; unknown numbers are empty).

    After ``predict``: ``predictions.csv`` (``image,NAME,...``).

    With several processes, the files of test and ``predict`` cover the images of all, in the data's
    order; the validation picture shows images of the first process.

    Args:
        folder: the run's folder.
        pictures: whether to draw pictures; the CSV files are always written.
    """

    @override
    def results_of(
        self, pl_module: Any, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> list[_Row]:
        found, true = outputs["numbers"], batch["numbers"]
        errors = 100 * pl_module.head.absolute_errors(found, true)
        given = batch["index"].tolist(), to_numpy(true), to_numpy(found), errors.tolist()
        return [_Row(*each) for each in zip(*given, strict=True)]

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._sample:
            figure = _draw(data_module(trainer).val_set, self._sample, _names(pl_module))
            save_figures(trainer, pl_module, self.folder, {"val_images.png": figure})

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        found = self.take_results()
        if not trainer.is_global_zero or not found:
            return
        data, targets = data_module(trainer).test_set, _names(pl_module)
        if self.pictures:
            true, given = np.stack([row.true for row in found]), np.stack([r.found for r in found])
            # Not a number, after a training that diverged, comes last.
            worst = sorted(found, key=lambda r: -r.error if r.error == r.error else 0.0)[:WORST]
            figures = {
                "scatter.png": plot_scatter(true, given, targets),
                "worst.png": _draw(data, worst, targets),
            }
            save_figures(trainer, pl_module, self.folder, figures)
        header = [f"{what} {name}" for name in targets for what in ("true", "predicted")]
        table = [[data.names[row.index], *_cells(row)] for row in found]
        file = self.folder / TEST_ERRORS
        save_table(trainer, pl_module, file, ["image", "nmae", *header], table)

    @override
    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        self._predictions += zip(batch["index"].tolist(), to_numpy(outputs), strict=True)

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        predictions = self.take_predictions()
        if not trainer.is_global_zero or not predictions:
            return
        names = data_module(trainer).test_set.names
        rows = [
            [names[index], *(f"{number:.7g}" for number in numbers)]
            for index, numbers in predictions
        ]
        self.save_predictions(trainer, pl_module, ["image", *_names(pl_module)], rows)


def _cells(row: _Row) -> list[str]:
    cells = [f"{row.error:.6g}" if row.error == row.error else ""]
    for true, found in zip(row.true, row.found, strict=True):
        cells += ["" if np.isnan(true) else f"{true:.7g}", f"{found:.7g}"]
    return cells


def _draw(dataset: Any, rows: Sequence[_Row], names: Sequence[str]) -> Figure:
    """Draw images, read again from the data set, with their true and predicted numbers."""
    return plot_numbers(
        np.stack([picture_of(dataset, dataset[row.index]["image"]) for row in rows]),
        np.stack([row.true for row in rows]),
        np.stack([row.found for row in rows]),
        names,
    )


def _names(pl_module: Any) -> list[str]:
    """Names of the task's targets."""
    return list(pl_module.target_names)
