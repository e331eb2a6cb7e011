"""Save pictures, scores of classes and images, and predicted masks of a segmentation run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from zoo_lightning.callbacks.classification_files import class_names
from zoo_lightning.callbacks.evaluation_files import ImageResultFiles, to_numpy
from zoo_lightning.callbacks.trainer_access import data_module, gathered
from zoo_lightning.data.labelled_set import open_source
from zoo_lightning.data.segmentation.dataset import MaskSet
from zoo_lightning.data.segmentation.whole_images import (
    CLASSES_HEADER,
    areas_of,
    class_rows,
    mask_in_image,
    mask_names,
    save_mask,
    save_overlay,
    square_box,
)
from zoo_lightning.loggers.figures_and_tables import save_figures, save_table
from zoo_lightning.metrics.segmentation import class_scores, per_image_iou
from zoo_lightning.plotting.masks import plot_masks
from zoo_lightning.runs.run_folder import PREDICTIONS, TEST_ERRORS

SHOWN = 8
"""Number of images in each picture."""

OVERLAYS = 20
"""Number of predicted masks that are laid over their images."""


@dataclass(frozen=True)
class Judged:
    """Image of a test or validation.

    Attributes:
        index: index in the data set.
        iou: mean intersection over union of the image's classes, in [0, 1]; NaN if no cell counts.
        predicted: predicted classes of its cells, ``(h, w)`` uint8.
    """

    index: int
    iou: float
    predicted: np.ndarray


class MaskFiles(ImageResultFiles[Judged]):
    """Save pictures, scores of classes and images, and predicted masks.

    At every validation: ``pictures/val_images.png``, images spread evenly over the data set with
    their true and predicted masks.

    After a test: ``pictures/best_masks.png`` and ``pictures/worst_masks.png`` by the images' own
    intersection over union; ``class_scores.csv`` (``class,iou,dice,precision,recall,cells``, the
    scores in percent and empty where a class does not occur); ``confusion.csv`` (counts of cells, a
    row for each true class); ``test_errors.csv`` (``image,iou`` in percent, the mean over the
    classes in the image's truth or prediction).

    After ``predict``: ``masks/``, a palette PNG of each image's own size whose values are class
    indices; ``predictions.csv`` (``image,mask``, and the share of the image that each class has);
    ``classes.csv`` (index, name and colour of each class); ``overlays/``, the first masks laid over
    their images.

    Args:
        folder: the run's folder.
        pictures: whether to draw pictures; masks and CSV files are always written.
    """

    shown = SHOWN

    def __init__(self, folder: str, pictures: bool = True) -> None:
        super().__init__(folder, pictures)
        self._ious: dict[int, float] = {}
        self._best: list[Judged] = []
        self._worst: list[Judged] = []
        self._areas: dict[int, np.ndarray] = {}
        self._files: list[str] = []

    @override
    def results_of(
        self, pl_module: Any, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> list[Judged]:
        predicted = outputs["predicted"]
        classes, ignored = pl_module.num_classes, pl_module.ignore_index
        ious = per_image_iou(predicted, batch["labels"], classes, ignored).tolist()
        masks = to_numpy(predicted).astype(np.uint8)
        rows = zip(batch["index"].tolist(), ious, masks, strict=True)
        return [Judged(*row) for row in rows]

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._sample:
            data = data_module(trainer)
            figure = _draw(data.val_set, self._sample, _classes(data, pl_module))
            save_figures(trainer, pl_module, self.folder, {"val_images.png": figure})

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._ious, self._best, self._worst = {}, [], []

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        found = self.results_of(pl_module, outputs, batch)
        self._ious |= {each.index: each.iou for each in found}
        # Of all images only the scores are kept, masks of the few to be drawn.
        self._best = _ranked([*self._best, *found], best=True)
        self._worst = _ranked([*self._worst, *found], best=False)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        confusion = pl_module.confusion
        assert isinstance(confusion, Metric)
        matrix = confusion.compute().cpu()  # all processes take part
        parts = gathered((self._ious, self._best, self._worst))
        data = data_module(trainer)
        if not trainer.is_global_zero or data is None:
            return
        ious = {index: iou for found, _, _ in parts for index, iou in found.items()}
        classes = _classes(data, pl_module)
        if self.pictures:
            best = _ranked([each for _, found, _ in parts for each in found], best=True)
            worst = _ranked([each for _, _, found in parts for each in found], best=False)
            figures = {
                f"{name}_masks.png": _draw(data.test_set, rows, classes)
                for name, rows in (("best", best), ("worst", worst))
                if rows
            }
            save_figures(trainer, pl_module, self.folder, figures)
        scores = class_scores(matrix)
        save_table(
            trainer,
            pl_module,
            self.folder / "class_scores.csv",
            ["class", *scores._fields, "cells"],
            (
                [name, *(_percent(float(each[label])) for each in scores), int(matrix[label].sum())]
                for label, name in enumerate(classes)
            ),
        )
        save_table(
            trainer,
            pl_module,
            self.folder / "confusion.csv",
            ["true", *classes],
            ([name, *row] for name, row in zip(classes, matrix.tolist(), strict=True)),
        )
        names = _names(data.test_set)
        save_table(
            trainer,
            pl_module,
            self.folder / TEST_ERRORS,
            ["image", "iou"],
            ([names[index], _percent(ious[index])] for index in sorted(ious)),
        )

    @override
    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._areas, self._files = {}, mask_names(_names(data_module(trainer).test_set))

    @override
    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        dataset = data_module(trainer).test_set
        files, classes = self._files, outputs.shape[1]
        for index, scores in zip(batch["index"].tolist(), to_numpy(outputs), strict=True):
            if isinstance(dataset, MaskSet):
                image = open_source(dataset.sources[index], dataset.values)
                mask = mask_in_image(scores, square_box(image.size), image.size)
                if self.pictures and index < OVERLAYS:
                    save_overlay(image, mask, self.folder / "overlays" / files[index])
            else:  # scenes that are made as they are needed, of the input's size
                height, width = batch["image"].shape[-2:]
                mask = mask_in_image(scores, (0, 0, width, height), (width, height))
            save_mask(mask, self.folder / "masks" / files[index])
            self._areas[index] = areas_of(mask, classes)

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        areas = {index: found for part in gathered(self._areas) for index, found in part.items()}
        self._areas = {}
        if not trainer.is_global_zero or not areas:
            return
        data = data_module(trainer)
        names, classes = _names(data.test_set), _classes(data, pl_module)
        rows = [
            [names[index], f"masks/{self._files[index]}", *(f"{area:.6f}" for area in areas[index])]
            for index in sorted(areas)
        ]
        header = ["image", "mask", *(f"area {name}" for name in classes)]
        save_table(trainer, pl_module, self.folder / PREDICTIONS, header, rows)
        save_table(
            trainer, pl_module, self.folder / "classes.csv", CLASSES_HEADER, class_rows(classes)
        )
        rank_zero_info(f"{len(rows)} masks in {self.folder / 'masks'}")


def _ranked(found: Sequence[Judged], best: bool) -> list[Judged]:
    """The best or worst images, at most ``SHOWN``, without those whose score is not a number."""
    known = [each for each in found if not math.isnan(each.iou)]
    return sorted(known, key=lambda each: (-each.iou if best else each.iou, each.index))[:SHOWN]


def _draw(dataset: Any, rows: Sequence[Judged], classes: Sequence[str]) -> Figure:
    """Draw images, read again from the data set, with their true and predicted masks."""
    samples = [dataset[each.index] for each in rows]
    return plot_masks(
        np.stack([to_numpy(each["image"]).astype(np.uint8) for each in samples]),
        [each["labels"].numpy() for each in samples],
        [each.predicted for each in rows],
        classes,
        [f"IoU {100 * each.iou:.0f} %" for each in rows],
    )


def _classes(data: Any, pl_module: Any) -> list[str]:
    return class_names(data, pl_module.num_classes)


def _names(dataset: Any) -> list[str]:
    """Names of a data set's images, or their numbers."""
    return list(getattr(dataset, "names", None) or map(str, range(len(dataset))))


def _percent(score: float) -> str:
    return "" if math.isnan(score) else f"{100 * score:.3f}"
