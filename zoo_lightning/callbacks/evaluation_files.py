"""Base classes of callbacks that save what validations, tests and ``predict`` find on images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import lightning.pytorch as pl
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from typing_extensions import override

from zoo_lightning.callbacks.trainer_access import data_module, gathered
from zoo_lightning.loggers.figures_and_tables import save_table
from zoo_lightning.runs.run_folder import PREDICTIONS


class ImageResult(Protocol):
    """Result of an evaluation on one image."""

    @property
    def index(self) -> int:
        """Index of the image in the data set."""
        ...


R = TypeVar("R", bound=ImageResult)


class EvaluationFiles(Callback):
    """Base callback that saves pictures and tables of evaluations to a run's folder.

    Args:
        folder: the run's folder.
        pictures: whether to draw pictures; tables are always written.
    """

    def __init__(self, folder: str, pictures: bool = True) -> None:
        super().__init__()
        self.folder = Path(folder)
        self.pictures = pictures
        self._predictions: list[tuple[Any, ...]] = []
        """Index of each image of ``predict``, with what was predicted for it."""

    def take_predictions(self) -> list[tuple[Any, ...]]:
        """Return the predictions of all processes, in the order of the indices, and forget them.

        All processes must call this.
        """
        found = [each for part in gathered(self._predictions) for each in part]
        self._predictions = []
        return sorted(found, key=lambda each: each[0])

    def save_predictions(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        header: Sequence[str],
        rows: Sequence[Sequence[Any]],
    ) -> None:
        """Write ``predictions.csv``, and say so.

        Args:
            trainer: trainer of the run.
            pl_module: task of the run.
            header: names of the columns.
            rows: cells of each image.
        """
        file = self.folder / PREDICTIONS
        save_table(trainer, pl_module, file, header, rows)
        rank_zero_info(f"{len(rows)} predictions in {file}")


class ImageResultFiles(EvaluationFiles, Generic[R]):
    """Base callback that keeps a result for each image of a test, and for a few of a validation.

    A subclass implements :meth:`results_of`, and draws ``_sample`` after a validation.

    Args:
        folder: the run's folder.
        pictures: whether to draw pictures; tables are always written.
    """

    shown: ClassVar[int] = 12
    """Number of images in the validation picture, spread evenly over the data set."""

    def __init__(self, folder: str, pictures: bool = True) -> None:
        super().__init__(folder, pictures)
        self._sample: list[R] = []
        self._results: list[R] = []

    def results_of(
        self, pl_module: Any, outputs: dict[str, Tensor], batch: dict[str, Any]
    ) -> list[R]:
        """Return the results of a batch's images.

        Args:
            pl_module: the task.
            outputs: what the task's validation or test step returned.
            batch: the batch, with ``index`` ``(B,)``.
        """
        raise NotImplementedError

    def take_results(self) -> list[R]:
        """Return the test's results of all processes, in the order of the images.

        All processes must call this.
        """
        found = [each for part in gathered(self._results) for each in part]
        return sorted(found, key=lambda each: each.index)

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sample = []

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
            every = max(len(data_module(trainer).val_set) // self.shown, 1)
            found = [e for e in self.results_of(pl_module, outputs, batch) if e.index % every == 0]
            self._sample += found[: self.shown - len(self._sample)]

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._results = []

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        self._results += self.results_of(pl_module, outputs, batch)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """Convert a tensor on any device to a float32 array of the same shape."""
    return tensor.detach().float().cpu().numpy()
