"""Save figures, test errors and predictions of a landmark run to its folder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from typing_extensions import override

from zoo_lightning.callbacks.evaluation_files import EvaluationFiles, to_numpy
from zoo_lightning.callbacks.trainer_access import data_module, gathered
from zoo_lightning.loggers.figures_and_tables import save_figures, save_table
from zoo_lightning.metrics.functional import per_image_nme, per_point_error
from zoo_lightning.plotting.figures import (
    Faces,
    plot_error_curve,
    plot_landmarks,
    plot_ranked_faces,
)
from zoo_lightning.plotting.landmarks import (
    CONNECTIONS,
    combine_heatmaps,
    plot_heatmaps,
    plot_point_errors,
)
from zoo_lightning.runs.run_folder import TEST_ERRORS

VALIDATION_FACES = 12
"""Number of faces in the validation picture."""

HEATMAP_FACES = 6
"""Number of faces in the picture of heat maps."""

RANKED_FACES = 6
"""Number of faces in each row of the picture of the best, median and worst faces."""


class LandmarkFiles(EvaluationFiles):
    """Save pictures of faces and errors, test errors and predictions of a landmark task.

    At every validation: ``pictures/val_faces.png``, faces spread evenly over the data set.

    After a test: ``pictures/test_faces.png`` (best, median and worst faces),
    ``pictures/error_curve.png`` (cumulative, of all images and of each subset),
    ``pictures/point_errors.png`` (of each point, on the mean face), ``test_errors.csv``
    (``image,nme`` and a 0/1 column for each subset), ``point_errors.csv`` (``point,nme``). All
    errors are in percent of the task's normalisation distance; faces without that distance have an
    empty ``nme`` and are in no picture.

    With heat map heads also ``pictures/val_heatmaps.png`` and ``pictures/heatmaps.png``.

    After ``predict``: ``predictions.csv`` (``image,x0,y0,...`` in pixels of the original images).

    With several processes, the files of test and ``predict`` cover the images of all, in the data's
    order; the validation picture and heat maps show faces of the first process.

    Args:
        folder: the run's folder.
        pictures: whether to draw pictures; the CSV files are always written.
    """

    def __init__(self, folder: str, pictures: bool = True) -> None:
        super().__init__(folder, pictures)
        self._sample = _SpreadFaces()
        self._results = _TestResults()

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sample = _SpreadFaces()

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        if self.pictures and trainer.is_global_zero:
            data = data_module(trainer)
            self._sample.add(data, data.val_set, outputs, batch)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sample = self._sample
        if not trainer.is_global_zero or trainer.sanity_checking or not sample.images:
            return
        figure = plot_landmarks(sample.images, sample.true, sample.pred, visible=sample.visible)
        figures = {"val_faces.png": figure, **self._draw_heatmaps("val_heatmaps.png")}
        save_figures(trainer, pl_module, self.folder, figures)

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._sample, self._results = _SpreadFaces(), _TestResults()

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        self._results.add(outputs, batch)
        if self.pictures and trainer.is_global_zero and "heatmaps" in outputs:
            data = data_module(trainer)
            self._sample.add(data, data.test_set, outputs, batch)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        results, data = _TestResults.joined(gathered(self._results)), data_module(trainer)
        if not trainer.is_global_zero or not results.names:
            return
        subsets = tuple(getattr(data, "subset_names", ()))
        point_errors = results.point_errors()
        if self.pictures:
            figures = self._draw_test(data, pl_module, results, point_errors)
            save_figures(trainer, pl_module, self.folder, figures)
        save_table(
            trainer,
            pl_module,
            self.folder / TEST_ERRORS,
            ["image", "nme", *subsets],
            results.rows(len(subsets)),
        )
        save_table(
            trainer,
            pl_module,
            self.folder / "point_errors.csv",
            ["point", "nme"],
            ([k, f"{error:.4f}"] for k, error in enumerate(point_errors)),
        )

    def _draw_test(
        self,
        data: Any,
        pl_module: pl.LightningModule,
        results: _TestResults,
        point_errors: np.ndarray,
    ) -> dict[str, Figure]:
        subsets = tuple(getattr(data, "subset_names", ()))
        label = getattr(pl_module.backbone, "method", "model")
        threshold = getattr(pl_module, "thresholds", (0.10,))[0]
        figures: dict[str, Figure] = {}
        if any(results.measured):  # faces of a short test may all lack the distance
            figures["test_faces.png"] = plot_ranked_faces(*results.ranked(data.test_set))
            curves = results.curves(label, subsets)
            figures["error_curve.png"] = plot_error_curve(curves, threshold)
        if np.isfinite(point_errors).any():  # no point has an error if the training diverged
            lines = CONNECTIONS.get(getattr(data.scheme, "name", ""), ())
            figures["point_errors.png"] = plot_point_errors(
                results.mean_shape(), point_errors, lines
            )
        return figures | self._draw_heatmaps("heatmaps.png")

    def _draw_heatmaps(self, name: str) -> dict[str, Figure]:
        sample = self._sample
        if not sample.heat:
            return {}
        count = len(sample.heat)
        heat = np.stack(sample.heat)[:, None]
        return {name: plot_heatmaps(sample.images[:count], heat, sample.pred[:count])}

    @override
    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        rows = (batch["index"].tolist(), batch["name"], to_numpy(outputs["original"]))
        self._predictions += zip(*rows, strict=True)

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        predictions = self.take_predictions()
        if not trainer.is_global_zero or not predictions:
            return
        count = len(predictions[0][2])
        header = ["image", *(f"{axis}{k}" for k in range(count) for axis in "xy")]
        rows = [
            [name, *(f"{value:.3f}" for value in points.flatten())]
            for _, name, points in predictions
        ]
        self.save_predictions(trainer, pl_module, header, rows)


class _SpreadFaces:
    """Collect a few faces spread evenly over a data set: neighbours often show the same person."""

    def __init__(self) -> None:
        self.images: list[np.ndarray] = []
        self.true: list[np.ndarray] = []
        self.pred: list[np.ndarray] = []
        self.visible: list[np.ndarray] = []
        self.heat: list[np.ndarray] = []
        """Combined heat map ``(h, w)`` of each of the first faces; empty without heat maps."""

    def add(self, data: Any, dataset: Any, outputs: Any, batch: dict[str, Any]) -> None:
        """Keep those faces of a batch that belong to the sample.

        Args:
            data: data module, for mean and standard deviation of the pixels.
            dataset: data set that the batch is from.
            outputs: the task's predictions for the batch.
            batch: the batch.
        """
        chosen = batch["index"] % max(len(dataset) // VALIDATION_FACES, 1) == 0
        rows = chosen.nonzero().flatten()[: max(VALIDATION_FACES - len(self.images), 0)]
        if "heatmaps" in outputs:
            heated = rows[: max(HEATMAP_FACES - len(self.images), 0)]
            self.heat += list(combine_heatmaps(to_numpy(outputs["heatmaps"][heated])))
        self.images += list(_to_uint8(batch["image"][rows], data.mean, data.std))
        self.true += list(to_numpy(batch["points"][rows]))
        self.pred += list(to_numpy(outputs["input"][rows]))
        self.visible += list(_visible(batch)[rows].cpu().numpy())


class _TestResults:
    """Names, errors, predictions and subsets of all test images."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.indices: list[int] = []
        self.errors: list[float] = []
        self.measured: list[bool] = []
        """Whether a face has the distance that errors are divided by."""
        self.pred: list[np.ndarray] = []
        self.subsets: list[np.ndarray] = []
        # Sums over the images, and in how many of them each point counts.
        self._point_errors: np.ndarray = np.zeros(())
        self._shapes: np.ndarray = np.zeros(())
        self._counts: np.ndarray = np.zeros((), dtype=np.int64)

    def add(self, outputs: Any, batch: dict[str, Any]) -> None:
        """Add a batch."""
        visible = _visible(batch).cpu()
        pred, true, distance = (
            tensor.detach().cpu().double()
            for tensor in (outputs["original"], batch["original"], outputs["distance"])
        )
        known = ~distance.isnan()
        self.names += batch["name"]
        self.indices += batch["index"].tolist()
        self.errors += per_image_nme(pred, true, torch.where(known, distance, 1), visible).tolist()
        self.measured += known.tolist()
        self.pred += list(to_numpy(outputs["input"]))
        if "subsets" in batch:
            self.subsets += list(to_numpy(batch["subsets"]).astype(bool))
        pred, true, distance, visible = (each[known] for each in (pred, true, distance, visible))
        points = per_point_error(pred, true, distance, visible)
        shapes = torch.where(visible[..., None], _in_box(true, visible), 0)
        self._point_errors = self._point_errors + torch.where(visible, points, 0).sum(0).numpy()
        self._shapes = self._shapes + shapes.sum(dim=0).numpy()
        self._counts = self._counts + visible.sum(dim=0).numpy()

    @classmethod
    def joined(cls, parts: Sequence[_TestResults]) -> _TestResults:
        """Join the results of several processes, in the order of the images."""
        found = cls()
        order = sorted(
            (index, number, place)
            for number, part in enumerate(parts)
            for place, index in enumerate(part.indices)
        )
        for index, number, place in order:
            part = parts[number]
            found.indices.append(index)
            for name in ("names", "errors", "measured", "pred", "subsets"):
                if values := getattr(part, name):
                    getattr(found, name).append(values[place])
        for part in parts:
            found._point_errors = found._point_errors + part._point_errors
            found._shapes = found._shapes + part._shapes
            found._counts = found._counts + part._counts
        return found

    def point_errors(self) -> np.ndarray:
        """Compute the mean error ``(K,)`` of each point, percent; NaN if it never counts."""
        counts = np.where(self._counts == 0, np.nan, self._counts)
        return 100 * self._point_errors / counts

    def mean_shape(self) -> np.ndarray:
        """Compute the mean of the true points ``(K, 2)``, all faces moved and scaled to one box."""
        counts = np.where(self._counts == 0, np.nan, self._counts)
        return self._shapes / counts[:, None]

    def curves(self, label: str, subsets: Sequence[str]) -> dict[str, np.ndarray]:
        """Collect the errors of all images, and of each subset that has images, by label."""
        errors, measured = np.array(self.errors), np.array(self.measured)
        curves = {f"{label}, all images" if subsets else label: errors[measured]}
        for column, name in enumerate(subsets):
            member = np.array([each[column] for each in self.subsets]) & measured
            if member.any():
                curves[name] = errors[member]
        return curves

    def rows(self, subsets: int) -> Iterable[list]:
        """Iterate over the rows of ``test_errors.csv``."""
        for i, (name, error) in enumerate(zip(self.names, self.errors, strict=True)):
            member = self.subsets[i].astype(int) if subsets else ()
            yield [name, f"{100 * error:.4f}" if self.measured[i] else "", *member]

    def ranked(self, dataset: Any) -> list[Faces]:
        """Choose the best, median and worst faces; images are read again from the data set."""
        measured = np.flatnonzero(self.measured)
        order = measured[np.argsort(np.array(self.errors)[measured])]  # NaN last
        count = min(RANKED_FACES, max(len(order) // 3, 1))
        middle = (len(order) - count) // 2
        parts = order[:count], order[middle : middle + count], order[-count:]
        return [self._faces(dataset, part) for part in parts]

    def _faces(self, dataset: Any, positions: np.ndarray) -> Faces:
        samples = [dataset[self.indices[i]] for i in positions]
        return Faces(
            images=[sample["image"].numpy().transpose(1, 2, 0) for sample in samples],
            true=[sample["points"].numpy() for sample in samples],
            pred=[self.pred[i] for i in positions],
            errors=[100 * self.errors[i] for i in positions],
            visible=[_visible(sample).numpy() for sample in samples],
        )


def _visible(sample: dict[str, Any]) -> Tensor:
    """Points that count, bool ``(..., K)``: all of them if the data do not say."""
    points = sample["points"]
    everything = torch.ones(points.shape[:-1], dtype=torch.bool, device=points.device)
    return sample.get("visible", everything)


def _in_box(points: Tensor, visible: Tensor) -> Tensor:
    """Points ``(B, K, 2)`` relative to centre and size of the box of those that count."""
    low = points.masked_fill(~visible[..., None], torch.inf).amin(dim=1, keepdim=True)
    high = points.masked_fill(~visible[..., None], -torch.inf).amax(dim=1, keepdim=True)
    # The longer side: unlike the area, it is not 0 for two points on a level.
    size = (high - low).amax(dim=-1, keepdim=True).clamp(min=1e-6)
    return (points - (low + high) / 2) / size


def _to_uint8(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Convert normalised images ``(B, 3, H, W)`` back to ``(B, H, W, 3)`` uint8."""
    scale, shift = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (std, mean))
    pixels = ((images * scale + shift) * 255).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
