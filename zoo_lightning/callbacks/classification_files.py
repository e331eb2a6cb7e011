"""Save figures, test errors and predictions of a classification run to its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
from matplotlib.figure import Figure
from torch import Tensor
from torchmetrics import Metric
from typing_extensions import override

from zoo_lightning.callbacks.evaluation_files import EvaluationFiles, to_numpy
from zoo_lightning.callbacks.trainer_access import data_module, gathered
from zoo_lightning.loggers.figures_and_tables import save_figures, save_table
from zoo_lightning.plotting.classification import plot_confusion, plot_mistakes
from zoo_lightning.runs.run_folder import CLASSES, PICTURES, TEST_ERRORS

VALIDATION_IMAGES = 12
"""Number of images in the validation picture."""

MISTAKES = 24
"""Number of images in the picture of the most confident mistakes."""

BEST = 5
"""Number of most probable classes in ``predictions.csv``."""


class ClassificationFiles(EvaluationFiles):
    """Save pictures, the confusion matrix, test errors and predictions of a classifier.

    At every validation: ``pictures/val_images.png``, images spread evenly over the data set with
    their true and predicted classes.

    After a test: ``pictures/confusion.png``, ``pictures/mistakes.png`` (the most confident ones; no
    such file if there are none), ``confusion.csv`` (image counts, a row for each true class),
    ``classes.csv`` (``class,images,precision,recall,f1``, a row for each class),
    ``test_errors.csv`` (``image,true,predicted,probability`` of every test image; the probability
    is that of the predicted class).

    After ``predict``: ``predictions.csv`` (``image,class_1,probability_1,...``, the five most
    probable classes).

    With several processes, the files of test and ``predict`` cover the images of all, in the data's
    order; the validation picture shows images of the first process.

    Args:
        folder: the run's folder.
        pictures: whether to draw pictures; the CSV files are always written.
    """

    def __init__(self, folder: str, pictures: bool = True) -> None:
        super().__init__(folder, pictures)
        self._sample, self._results = _Results(), _Results()

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
        if self.pictures and trainer.is_global_zero and not trainer.sanity_checking:
            every = max(len(data_module(trainer).val_set) // VALIDATION_IMAGES, 1)
            rows = (batch["index"] % every == 0).nonzero().flatten()
            rows = rows[: max(VALIDATION_IMAGES - len(self._sample.indices), 0)]
            if len(rows):
                picked = {name: batch[name][rows] for name in ("index", "label")}
                self._sample.add(outputs["probabilities"][rows], picked)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        data, rows = data_module(trainer), list(self._sample.rows())
        if rows:
            figure = _draw(data.val_set, rows, class_names(data, _num_classes(pl_module)))
            save_figures(trainer, pl_module, self.folder, {"val_images.png": figure})

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
        confusion = pl_module.confusion
        assert isinstance(confusion, Metric)
        matrix = to_numpy(confusion.compute())  # all processes take part
        results, data = _Results.joined(gathered(self._results)), data_module(trainer)
        if not trainer.is_global_zero or not results.indices:
            return
        classes = class_names(data, len(matrix))
        if self.pictures:
            figures = {"confusion.png": plot_confusion(matrix, classes)}
            (self.folder / PICTURES / "mistakes.png").unlink(missing_ok=True)
            if mistakes := results.mistakes()[:MISTAKES]:
                figures["mistakes.png"] = _draw(data.test_set, mistakes, classes)
            save_figures(trainer, pl_module, self.folder, figures)
        save_table(
            trainer,
            pl_module,
            self.folder / "confusion.csv",
            ["true", *classes],
            ([name, *row.astype(int)] for name, row in zip(classes, matrix, strict=True)),
        )
        save_table(
            trainer,
            pl_module,
            self.folder / CLASSES,
            ["class", "images", "precision", "recall", "f1"],
            class_scores(matrix, classes),
        )
        names = data.test_set.names
        save_table(
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
        rows = (batch["index"].tolist(), to_numpy(best.indices), to_numpy(best.values))
        self._predictions += zip(*rows, strict=True)

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        predictions = self.take_predictions()
        if not trainer.is_global_zero or not predictions:
            return
        data = data_module(trainer)
        classes = class_names(data, _num_classes(pl_module))
        count = len(predictions[0][1])
        header = [f"{word}_{k + 1}" for k in range(count) for word in ("class", "probability")]
        rows = []
        for index, labels, probabilities in predictions:
            cells = zip(labels.astype(int), probabilities, strict=True)
            pairs = [(classes[label], f"{value:.6f}") for label, value in cells]
            rows.append([data.test_set.names[index], *(word for pair in pairs for word in pair)])
        self.save_predictions(trainer, pl_module, ["image", *header], rows)


class _Results:
    """Index, true class, predicted class and its probability of the images of a test."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.true: list[int] = []
        self.pred: list[int] = []
        self.probabilities: list[float] = []

    def add(self, probabilities: Tensor, batch: dict[str, Any]) -> None:
        """Add a batch."""
        best = probabilities.max(dim=1)
        self.indices += batch["index"].tolist()
        self.true += batch["label"].tolist()
        self.pred += best.indices.tolist()
        self.probabilities += best.values.tolist()

    @classmethod
    def joined(cls, parts: Sequence[_Results]) -> _Results:
        """Join the results of several processes, in the order of the images."""
        rows = sorted(row for part in parts for row in part.rows())
        found = cls()
        for index, true, pred, probability in rows:
            found.indices.append(index)
            found.true.append(true)
            found.pred.append(pred)
            found.probabilities.append(probability)
        return found

    def rows(self) -> Iterable[tuple[int, int, int, float]]:
        """Iterate over index, true class, predicted class and probability of each image."""
        return zip(self.indices, self.true, self.pred, self.probabilities, strict=True)

    def mistakes(self) -> list[tuple[int, int, int, float]]:
        """List the rows of misclassified images, the most confident mistake first."""
        wrong = [row for row in self.rows() if row[1] != row[2]]
        # Not a number, after a training that diverged, comes last.
        return sorted(wrong, key=lambda row: -row[3] if row[3] == row[3] else 1.0)


def _draw(
    dataset: Any, rows: Sequence[tuple[int, int, int, float]], classes: Sequence[str]
) -> Figure:
    """Draw images, read again from the data set, with their true and predicted classes."""
    indices, true, pred, probabilities = zip(*rows, strict=True)
    return plot_mistakes(
        np.stack([picture_of(dataset, dataset[index]["image"]) for index in indices]),
        [classes[label] for label in true],
        [classes[label] for label in pred],
        probabilities,
    )


def class_scores(matrix: np.ndarray, classes: Sequence[str]) -> list[list[Any]]:
    """Compute each class's number of images, precision, recall and F1.

    Args:
        matrix: confusion matrix ``(C, C)``, image counts by true, predicted class.
        classes: names of the classes.

    Returns:
        A row for each class; empty cells for the recall of a class without images, the precision
        of one that was never predicted, and the F1 of one that was neither.
    """
    hits, true, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)

    def share(part: float, whole: float) -> str:
        return f"{part / whole:.4f}" if whole else ""

    return [
        [name, int(n), share(hit, taken), share(hit, n), share(2 * hit, n + taken)]
        for name, hit, n, taken in zip(classes, hits, true, predicted, strict=True)
    ]


def _num_classes(pl_module: pl.LightningModule) -> int:
    count = pl_module.num_classes
    assert isinstance(count, int)
    return count


def class_names(data: Any, count: int) -> list[str]:
    """Class names of the data module, or the numbers 0 to ``count - 1``."""
    return list(getattr(data, "class_names", None) or map(str, range(count)))


def picture_of(dataset: Any, image: Tensor) -> np.ndarray:
    """Draw an image of a data set as ``(3, S, S)`` uint8, whatever its channels."""
    image = image[4] if image.dim() == 4 else image
    picture = getattr(dataset, "picture", None)
    return central_crop(image if picture is None else picture(image))


def central_crop(image: Tensor) -> np.ndarray:
    """Select the image ``(3, S, S)`` to draw: the centre crop of ``(10, 3, S, S)``."""
    return to_numpy(image[4] if image.dim() == 4 else image).astype(np.uint8)
