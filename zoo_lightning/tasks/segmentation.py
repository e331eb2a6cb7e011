"""Segmentation: a class for every cell of a grid over the image."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from zoo_lightning.backbone import Backbone
from zoo_lightning.errors import ConfigError
from zoo_lightning.heads import MapHead
from zoo_lightning.metrics.loss import MeanLoss
from zoo_lightning.tasks.base import BaseTask, check_classes


class SegmentationTask(BaseTask):
    """Cross-entropy over ``C`` classes in every cell of the labels ``(B, h, w)``.

    Logs, for validation and test: ``loss``, ``acc`` (share of the cells that are right) and
    ``miou`` (intersection over union, averaged over the classes), both in [0, 1].

    Args:
        backbone: with ``stages`` or a feature ``map``.
        num_classes: ``C``; the command line takes it from the data.
        stride: pixels of the image that a cell of the network's output spans; it is brought to the
            labels' size by bilinear interpolation.
        head_width: channels of the last hidden layer; ``None`` as HRNet, at most 256.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: options outside their range, pooled features, or data of other classes.
    """

    monitor: ClassVar[str] = "val/miou"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 2,
        stride: int = 4,
        head_width: int | None = None,
        **optimisation: Any,
    ) -> None:
        super().__init__(backbone, **optimisation)
        channels = [shape[0] for shape in backbone.feature_shapes]
        if 0 in backbone.reductions:
            raise ConfigError(
                "segmentation needs features with places; set backbone.output to stages (or map)"
            )
        if stride < 1 or stride & (stride - 1):
            raise ConfigError(f"stride must be a power of two, got {stride}")
        self.num_classes = num_classes
        self.head = MapHead(channels, backbone.reductions, num_classes, stride, head_width)
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(num_classes, average="micro"),
                "miou": MulticlassJaccardIndex(num_classes),
            }
        )
        self.losses = nn.ModuleDict({"val": MeanLoss(), "test": MeanLoss()})
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")

    def setup(self, stage: str) -> None:
        """Check that head and data agree, before anything runs."""
        check_classes(self.num_classes, self.trainer.datamodule)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch of ``image`` ``(B, 3, H, W)`` and ``labels`` ``(B, h, w)``."""
        scores = self._scores(batch)
        loss = F.cross_entropy(scores, batch["labels"])
        loss = self.whole_loss(loss, batch["image"], scores)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the validation metrics."""
        self._evaluate(batch, self.val_metrics, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the test metrics."""
        self._evaluate(batch, self.test_metrics, "test")

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Class of every cell of the network's output, ``(B, h, w)``."""
        return self(batch["image"]).argmax(1)

    def _evaluate(self, batch: dict[str, Any], metrics: MetricCollection, stage: str) -> None:
        scores = self._scores(batch)
        metrics.update(scores, batch["labels"])
        size = len(scores)
        self.log_dict(metrics, prog_bar=stage == "val", batch_size=size)
        self.losses[stage].update(F.cross_entropy(scores, batch["labels"]), size)
        self.log(f"{stage}/loss", self.losses[stage], batch_size=size)

    def _scores(self, batch: dict[str, Any]) -> Tensor:
        """``(B, C, h, w)`` in float32, of the labels' size."""
        scores = self(batch["image"]).float()
        size = batch["labels"].shape[-2:]
        return scores if scores.shape[-2:] == size else F.interpolate(scores, size, mode="bilinear")
