"""Files that a classification run leaves for people to look at: pictures, errors, predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from zoo_lightning.callbacks.gathering import gathered
from zoo_lightning.classification_plots import plot_confusion, plot_mistakes
from zoo_lightning.exhibits import show_pictures, show_table
from zoo_lightning.run_folder import PICTURES, TEST_ERRORS

LOOKED_AT = 12
"""Images in a picture of validation."""

SHOWN = 24
"""Mistakes in the picture of the most confident ones."""

BEST = 5
"""Classes of a prediction that are written."""


class ClassificationFiles(Callback):
    """Pictures of validation and of mistakes, confusion matrix, CSV of errors and predictions.

    At every validation: ``pictures/val_images.png``, images spread evenly over the data set with
    their true and predicted classes.

    After a test: ``pictures/confusion.png``, ``pictures/mistakes.png`` (the most confident ones; no
    such file if there are none), ``confusion.csv`` (numbers of images, a row for each true class),
    ``test_errors.csv`` (``image,true,predicted,probability`` of every test image; the probability
    is that of the predicted class).

    After ``predict``: ``predictions.csv`` (``image,class1,probability1,...``, the five most
    probable classes).

    With several processes the files of test and ``predict`` hold the images of all, in the data's
    order; the picture of validation shows images that the first one sees.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)
        self._sample, self._results = _Results(), _Results()
        self._predictions: list[tuple[int, np.ndarray, np.ndarray]] = []

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sample = _Results()

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        if trainer.is_global_zero and not trainer.sanity_checking:
            every = max(len(trainer.datamodule.val_set) // LOOKED_AT, 1)
            rows = (batch["index"] % every == 0).nonzero().flatten()
            rows = rows[: max(LOOKED_AT - len(self._sample.indices), 0)]
            if len(rows):
                picked = {name: batch[name][rows] for name in ("index", "label")}
                self._sample.add(outputs["probabilities"][rows], picked)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data, rows = trainer.datamodule, list(self._sample.rows())
        if rows:
            figure = _draw(data.val_set, rows, class_names(data, pl_module.num_classes))
            show_pictures(trainer, pl_module, self.folder, {"val_images.png": figure})

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._results = _Results()

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        self._results.add(outputs["probabilities"], batch)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        matrix = _numpy(pl_module.confusion.compute())  # all processes take part
        results, data = _Results.joined(gathered(self._results)), trainer.datamodule
        if not trainer.is_global_zero or not results.indices:
            return
        classes = class_names(data, len(matrix))
        figures = {"confusion.png": plot_confusion(matrix, classes)}
        (self.folder / PICTURES / "mistakes.png").unlink(missing_ok=True)
        if mistakes := results.mistakes()[:SHOWN]:
            figures["mistakes.png"] = _draw(data.test_set, mistakes, classes)
        show_pictures(trainer, pl_module, self.folder, figures)
        show_table(
            trainer,
            pl_module,
            self.folder / "confusion.csv",
            ["true", *classes],
            ([name, *row.astype(int)] for name, row in zip(classes, matrix, strict=True)),
        )
        names = data.test_set.names
        show_table(
            trainer,
            pl_module,
            self.folder / TEST_ERRORS,
            ["image", "true", "predicted", "probability"],
            (
                [names[index], classes[true], classes[pred], f"{probability:.4f}"]
                for index, true, pred, probability in results.rows()
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
        best = outputs.topk(min(BEST, outputs.shape[1]), dim=1)
        rows = (batch["index"].tolist(), _numpy(best.indices), _numpy(best.values))
        self._predictions += zip(*rows, strict=True)

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        predictions = [each for part in gathered(self._predictions) for each in part]
        self._predictions = []
        if not trainer.is_global_zero or not predictions:
            return
        predictions.sort(key=lambda each: each[0])
        data = trainer.datamodule
        classes = class_names(data, pl_module.num_classes)
        count = len(predictions[0][1])
        header = [f"{word}{k + 1}" for k in range(count) for word in ("class", "probability")]
        rows = []
        for index, labels, probabilities in predictions:
            cells = zip(labels.astype(int), probabilities, strict=True)
            pairs = [(classes[label], f"{value:.4f}") for label, value in cells]
            rows.append([data.test_set.names[index], *(word for pair in pairs for word in pair)])
        file = self.folder / "predictions.csv"
        show_table(trainer, pl_module, file, ["image", *header], rows)


class _Results:
    """What is kept of each image: its class, the predicted one and that one's probability."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.true: list[int] = []
        self.pred: list[int] = []
        self.probabilities: list[float] = []

    def add(self, probabilities: Tensor, batch: dict[str, Any]) -> None:
        """Take a batch in."""
        best = probabilities.max(dim=1)
        self.indices += batch["index"].tolist()
        self.true += batch["label"].tolist()
        self.pred += best.indices.tolist()
        self.probabilities += best.values.tolist()

    @classmethod
    def joined(cls, parts: Sequence[_Results]) -> _Results:
        """Those of several processes, in the order of the images."""
        rows = sorted(row for part in parts for row in part.rows())
        found = cls()
        for index, true, pred, probability in rows:
            found.indices.append(index)
            found.true.append(true)
            found.pred.append(pred)
            found.probabilities.append(probability)
        return found

    def rows(self) -> Iterable[tuple[int, int, int, float]]:
        """Index, true class, predicted class, probability of each image."""
        return zip(self.indices, self.true, self.pred, self.probabilities, strict=True)

    def mistakes(self) -> list[tuple[int, int, int, float]]:
        """Rows of the images that were not recognised, the most confident mistake first."""
        wrong = [row for row in self.rows() if row[1] != row[2]]
        # Not a number, after a training that diverged, comes last.
        return sorted(wrong, key=lambda row: -row[3] if row[3] == row[3] else 1.0)


def _draw(
    dataset: Any, rows: Sequence[tuple[int, int, int, float]], classes: Sequence[str]
) -> Figure:
    """Images, read anew, with the classes they have and were given."""
    indices, true, pred, probabilities = zip(*rows, strict=True)
    return plot_mistakes(
        np.stack([central_crop(dataset[index]["image"]) for index in indices]),
        [classes[label] for label in true],
        [classes[label] for label in pred],
        probabilities,
    )


def class_names(data: Any, count: int) -> list[str]:
    """What the data call the classes, else their numbers."""
    return list(getattr(data, "class_names", None) or map(str, range(count)))


def central_crop(image: Tensor) -> np.ndarray:
    """The image ``(3, S, S)`` to show, of several crops ``(10, 3, S, S)`` the central one."""
    return _numpy(image[4] if image.dim() == 4 else image).astype(np.uint8)


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.detach().float().cpu().numpy()
