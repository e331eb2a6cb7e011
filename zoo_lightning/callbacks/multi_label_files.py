"""Save figures, scores of labels and predictions of a multi-label run to its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from zoo_lightning.callbacks.classification_files import class_names, picture_of
from zoo_lightning.callbacks.evaluation_files import ImageResultFiles, to_numpy
from zoo_lightning.callbacks.trainer_access import data_module
from zoo_lightning.data.multi_label.predicted import chosen_labels, label_cells, label_header
from zoo_lightning.loggers.figures_and_tables import save_figures, save_table
from zoo_lightning.metrics.multi_label import LabelOutputs, average_precisions, label_f1
from zoo_lightning.plotting.multi_label import plot_label_scores, plot_labels
from zoo_lightning.runs.run_folder import PICTURES, TEST_ERRORS

MISTAKES = 24
"""Number of images in the picture of the images with most wrong labels."""

SCORES = "label_scores.csv"
"""Table of the labels' scores."""


@dataclass(frozen=True)
class _Result:
    """Image of an evaluation: its index, and states and probabilities of its labels ``(L,)``."""

    index: int
    labels: np.ndarray
    probabilities: np.ndarray


class MultiLabelFiles(ImageResultFiles[_Result]):
    """Save pictures, scores of the labels, test errors and predictions of a multi-label model.

    At every validation: ``pictures/val_images.png``, images spread evenly over the data set with
    their true labels and those predicted at the thresholds.

    After a test: ``label_scores.csv`` (``label,images,known,average_precision,threshold,f1``, where
    ``images`` have the label and of ``known`` it is known whether they do; empty cells for a label
    that no image has), ``test_errors.csv`` (``image,true,predicted,wrong``: labels separated by
    ``;``, and the number of known labels that are predicted wrongly), and the pictures
    ``label_scores.png`` and ``mistakes.png`` (the images with most wrong labels; no such file if
    there are none).

    After ``predict``: ``predictions.csv`` (``image,labels,probability_NAME,...``: the labels that
    reach their thresholds, and the probability of each label).

    With several processes, the files of test and ``predict`` cover the images of all, in the data's
    order; the validation picture shows images of the first process.

    Args:
        folder: the run's folder.
        pictures: whether to draw pictures; the CSV files are always written.
    """

    @override
    def results_of(
        self, pl_module: Any, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> list[_Result]:
        given = batch["index"].tolist(), batch["label"].cpu().numpy()
        rows = zip(*given, to_numpy(outputs["probabilities"]), strict=True)
        return [_Result(*row) for row in rows]

    @override
    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Later than the epoch's end, at which the task chooses the thresholds.
        if self._sample:
            data, thresholds = data_module(trainer), _thresholds(pl_module)
            classes = class_names(data, len(thresholds))
            figure = _draw(data.val_set, self._sample, thresholds, classes)
            save_figures(trainer, pl_module, self.folder, {"val_images.png": figure})

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        results = self.take_results()
        if not trainer.is_global_zero or not results:
            return
        data, thresholds = data_module(trainer), _thresholds(pl_module)
        classes = class_names(data, len(thresholds))
        labels = np.stack([each.labels for each in results])
        probabilities = np.stack([each.probabilities for each in results])
        wrong = ((probabilities >= thresholds) != (labels == 1)) & (labels >= 0)
        outputs = LabelOutputs(torch.from_numpy(probabilities), torch.from_numpy(labels))
        precisions = average_precisions(outputs).numpy()
        f1 = label_f1(outputs, torch.from_numpy(thresholds)).numpy()
        present, known = (labels == 1).sum(0), (labels >= 0).sum(0)
        if self.pictures:
            shares = present / np.maximum(known, 1)
            figures = {"label_scores.png": plot_label_scores(classes, precisions, f1, shares)}
            (self.folder / PICTURES / "mistakes.png").unlink(missing_ok=True)
            order = np.argsort(-wrong.sum(1), kind="stable")[:MISTAKES]
            if worst := [results[i] for i in order if wrong[i].any()]:
                figures["mistakes.png"] = _draw(data.test_set, worst, thresholds, classes)
            save_figures(trainer, pl_module, self.folder, figures)
        save_table(
            trainer,
            pl_module,
            self.folder / SCORES,
            ["label", "images", "known", "average_precision", "threshold", "f1"],
            (
                [name, images, of, _number(precision), f"{threshold:.6f}", _number(score)]
                for name, images, of, precision, threshold, score in zip(
                    classes, present, known, precisions, thresholds, f1, strict=True
                )
            ),
        )
        names = data.test_set.names
        save_table(
            trainer,
            pl_module,
            self.folder / TEST_ERRORS,
            ["image", "true", "predicted", "wrong"],
            (
                [
                    names[each.index],
                    ";".join(_true(each, classes)),
                    ";".join(chosen_labels(each.probabilities, thresholds, classes)),
                    int(count),
                ]
                for each, count in zip(results, wrong.sum(1), strict=True)
            ),
        )

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
        data, thresholds = data_module(trainer), _thresholds(pl_module)
        classes = class_names(data, len(thresholds))
        rows = [
            [data.test_set.names[index], *label_cells(probabilities, thresholds, classes)]
            for index, probabilities in predictions
        ]
        self.save_predictions(trainer, pl_module, label_header(classes), rows)


def _thresholds(pl_module: pl.LightningModule) -> np.ndarray:
    thresholds = pl_module.thresholds
    assert isinstance(thresholds, Tensor)
    return to_numpy(thresholds)


def _true(result: _Result, classes: Sequence[str]) -> list[str]:
    return [name for name, state in zip(classes, result.labels, strict=True) if state == 1]


def _draw(
    dataset: Any, results: Sequence[_Result], thresholds: np.ndarray, classes: Sequence[str]
) -> Figure:
    """Draw images, read again from the data set, with their true and predicted labels."""
    return plot_labels(
        np.stack([picture_of(dataset, dataset[each.index]["image"]) for each in results]),
        [_true(each, classes) for each in results],
        [chosen_labels(each.probabilities, thresholds, classes) for each in results],
    )


def _number(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6f}"
