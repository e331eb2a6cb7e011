"""Files that a landmark run leaves for people to look at: pictures, errors, predictions."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from zoo_lightning.metrics.functional import per_image_nme
from zoo_lightning.plots import plot_error_curve, plot_landmarks, save_figure
from zoo_lightning.run_folder import PICTURES

SHOWN = 12
"""Faces in a picture."""


class LandmarkFiles(Callback):
    """Pictures of validation and test faces, the cumulative error curve, and CSV of predictions.

    Writes ``pictures/val_faces.png`` at every validation; ``pictures/test_faces.png``,
    ``pictures/error_curve.png`` and ``test_errors.csv`` (error of each test image, percent) after a
    test; ``predictions.csv`` (``image,x0,y0,...`` in pixels of the original images) after
    ``predict``. With several processes each sees its share; the first one's share is shown.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = Path(folder)
        self._faces: dict[str, list] = {}
        self._errors: list[tuple[str, float]] = []
        self._predictions: list[tuple[str, np.ndarray]] = []

    @override
    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._faces = {"images": [], "true": [], "pred": []}

    @override
    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        self._keep_faces(trainer.datamodule.val_set, trainer, outputs, batch)

    @override
    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._draw_faces(trainer, "val_faces.png")

    @override
    def on_test_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._faces, self._errors = {"images": [], "true": [], "pred": []}, []

    @override
    def on_test_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        self._keep_faces(trainer.datamodule.test_set, trainer, outputs, batch)
        errors = per_image_nme(outputs["original"], batch["original"], outputs["distance"])
        self._errors += zip(batch["name"], errors.tolist(), strict=True)

    @override
    def on_test_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._draw_faces(trainer, "test_faces.png")
        if not trainer.is_global_zero:
            return
        label = getattr(pl_module.backbone, "method", "model")
        errors = np.array([error for _, error in self._errors])
        save_figure(plot_error_curve({label: errors}), self.folder / PICTURES / "error_curve.png")
        with (self.folder / "test_errors.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", "nme"])
            writer.writerows([name, f"{100 * error:.4f}"] for name, error in self._errors)

    @override
    def on_predict_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: dict[str, Any],
        *args: Any,
    ) -> None:
        points = outputs["original"].cpu().numpy()
        self._predictions += zip(batch["name"], points, strict=True)

    @override
    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.is_global_zero or not self._predictions:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        count = len(self._predictions[0][1])
        with (self.folder / "predictions.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(["image", *(f"{axis}{k}" for k in range(count) for axis in "xy")])
            for name, points in self._predictions:
                writer.writerow([name, *(f"{value:.3f}" for value in points.flatten())])

    def _keep_faces(self, dataset: Any, trainer: pl.Trainer, outputs: Any, batch: Any) -> None:
        """Keep faces spread evenly over the data set: neighbours often show the same person."""
        if not trainer.is_global_zero:
            return
        chosen = batch["index"] % max(len(dataset) // SHOWN, 1) == 0
        room = SHOWN - len(self._faces["images"])
        rows = chosen.nonzero().flatten()[: max(room, 0)]
        data = trainer.datamodule
        self._faces["images"] += list(_to_uint8(batch["image"][rows], data.mean, data.std))
        self._faces["true"] += list(batch["points"][rows].cpu().numpy())
        self._faces["pred"] += list(outputs["input"][rows].detach().cpu().numpy())

    def _draw_faces(self, trainer: pl.Trainer, name: str) -> None:
        if trainer.is_global_zero and self._faces["images"]:
            faces = self._faces
            figure = plot_landmarks(faces["images"], faces["true"], faces["pred"])
            save_figure(figure, self.folder / PICTURES / name)


def _to_uint8(images: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Normalised ``(B, 3, H, W)`` back to ``(B, H, W, 3)`` uint8."""
    scale, shift = (torch.tensor(v, device=images.device).view(-1, 1, 1) for v in (std, mean))
    pixels = ((images * scale + shift) * 255).round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
