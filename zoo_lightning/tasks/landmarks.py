"""Facial landmarks: K points regressed from pooled features."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection

from zoo_lightning.backbone import Backbone
from zoo_lightning.data.codec import FractionCodec, to_original
from zoo_lightning.errors import ConfigError
from zoo_lightning.metrics.landmarks import ErrorAUC, FailureRate, NormalizedMeanError
from zoo_lightning.tasks.base import BaseTask
from zoo_lightning.tasks.losses import LOSSES

HEAD_STD = 0.01
"""Standard deviation of a new head's weights: it starts near the mean shape, as in the authors'
code, whatever the size of the features."""

MEAN_SHAPE_SAMPLES = 256
"""Training samples, spread evenly, whose mean shape a new head starts from."""


class LandmarkTask(BaseTask):
    """Coordinates of ``K`` points as fractions of the image, from pooled features.

    Logs, for validation and test: ``nme`` (percent of the normalising distance), ``failure_rate``
    (percent of images with an error above the threshold), ``auc`` (of the cumulative error curve
    up to the threshold, in [0, 1]) and ``nme_box`` (percent of the box's size).

    Args:
        backbone: with pooled features.
        num_points: ``K``; the command line takes it from the data.
        loss: ``l1``, ``smooth_l1`` or ``wing``.
        normalization: distance that errors are divided by: ``interocular`` or ``box``.
        threshold: of failure rate and AUC, as a fraction of that distance.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: a backbone without pooled features, an unknown loss, or data with another
            number of points.
    """

    monitor: ClassVar[str] = "val/nme"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"

    def __init__(
        self,
        backbone: Backbone,
        num_points: int = 68,
        loss: Literal["l1", "smooth_l1", "wing"] = "wing",
        normalization: Literal["interocular", "box"] = "interocular",
        threshold: float = 0.10,
        **optimisation: Any,
    ) -> None:
        super().__init__(backbone, **optimisation)
        if len(backbone.feature_shapes) != 1 or len(backbone.feature_shapes[0]) != 1:
            raise ConfigError(
                f"coordinates are regressed from pooled features, the backbone gives "
                f"{backbone.architecture.output!r}; set backbone.output to pooled"
            )
        self.num_points = num_points
        self.normalization = normalization
        self.codec = FractionCodec()
        self.head = nn.Linear(backbone.num_features, 2 * num_points)
        nn.init.normal_(self.head.weight, std=HEAD_STD)
        nn.init.constant_(self.head.bias, 0.5)
        self.loss = LOSSES[loss]
        metrics = MetricCollection(
            {
                "nme": NormalizedMeanError(),
                "failure_rate": FailureRate(threshold),
                "auc": ErrorAUC(threshold),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")
        self.val_box, self.test_box = NormalizedMeanError(), NormalizedMeanError()

    def setup(self, stage: str) -> None:
        """Check that head and data agree, before anything runs."""
        data = getattr(self.trainer, "datamodule", None)
        points = getattr(data, "num_points", self.num_points)
        if points != self.num_points:
            raise ConfigError(
                f"the head predicts {self.num_points} points, the data have {points}; give data "
                f"of {self.num_points} points or train a head of {points} (num_points)"
            )
        scheme = getattr(data, "scheme", None)
        if self.normalization == "interocular" and scheme is not None and scheme.eyes is None:
            raise ConfigError(
                f"data of {points} points without a known scheme have no eyes to measure by; name "
                "them with --data.eyes, or use --model.normalization box"
            )

    def on_fit_start(self) -> None:
        """Let a new head start from the training set's mean shape."""
        train_set = getattr(getattr(self.trainer, "datamodule", None), "train_set", None)
        if self.trainer.ckpt_path is not None or self.weights_given or train_set is None:
            return
        stride = max(len(train_set) // MEAN_SHAPE_SAMPLES, 1)
        samples = [train_set[0, i] for i in range(0, len(train_set), stride)]
        size = samples[0]["image"].shape[-1], samples[0]["image"].shape[-2]
        shapes = self.codec.encode(torch.stack([s["points"] for s in samples]), size)
        with torch.no_grad():
            self.head.bias.copy_(shapes.mean(dim=0).flatten())

    def forward(self, images: Tensor) -> Tensor:
        """Fractions of the image ``(B, K, 2)`` from normalised images ``(B, 3, H, W)``."""
        return super().forward(images).unflatten(1, (self.num_points, 2))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch."""
        target = self.codec.encode(batch["points"], image_size(batch))
        loss = self.loss(self(batch["image"]).float(), target)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> dict[str, Any]:
        """Predicted points in pixels of the ``input`` and of the ``original`` image."""
        points = self.codec.decode(self(batch["image"]).float(), image_size(batch))
        return {"input": points, "original": to_original(points, batch["to_original"])}

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Update the validation metrics; gives the predictions to the callbacks."""
        return self._evaluate(batch, self.val_metrics, self.val_box, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Update the test metrics; gives the predictions to the callbacks."""
        return self._evaluate(batch, self.test_metrics, self.test_box, "test")

    def _evaluate(
        self,
        batch: dict[str, Any],
        metrics: MetricCollection,
        box: NormalizedMeanError,
        stage: str,
    ) -> dict[str, Any]:
        predicted = self.predict_step(batch)
        distance = batch[self.normalization]
        metrics.update(predicted["original"], batch["original"], distance)
        box.update(predicted["original"], batch["original"], batch["box"])
        size = len(distance)
        self.log_dict(metrics, prog_bar=stage == "val", batch_size=size)
        self.log(f"{stage}/nme_box", box, batch_size=size)
        return predicted | {"distance": distance}


def image_size(batch: dict[str, Any]) -> tuple[int, int]:
    """Width and height of a batch's images, pixels."""
    height, width = batch["image"].shape[-2:]
    return width, height
