"""Semantic segmentation: a class for every cell of a grid over the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from zoo_lightning.errors import ConfigError
from zoo_lightning.metrics.loss import MeanLoss
from zoo_lightning.models.backbone import Backbone
from zoo_lightning.nn.heads import MapHead
from zoo_lightning.tasks.base import BaseTask, check_classes, check_number_of_classes


class SegmentationTask(BaseTask):
    """Segment images into ``C`` classes on a grid of cells, trained by cross-entropy.

    Logs, for validation and test: ``loss``, ``acc`` (fraction of the label cells that are
    classified correctly) and ``miou`` (intersection over union, averaged over the classes), both in
    [0, 1].

    Args:
        backbone: network with ``stages`` or a feature ``map``.
        num_classes: number ``C`` of classes; the command line takes it from the data.
        stride: image pixels per cell of the network's output, a power of two; outputs are resized
            bilinearly to the labels' size.
        head_width: channels of the head's last hidden layer; ``None`` as in HRNet, but at most 256.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: an option is outside its range, the features are pooled, or the data have other
            classes than the head.
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
        if 0 in backbone.reductions:
            raise ConfigError(
                "segmentation needs features with places; set backbone.output to stages (or map)"
            )
        if stride < 1 or stride & (stride - 1):
            raise ConfigError(f"stride must be a power of two, got {stride}")
        check_number_of_classes(num_classes)
        self.num_classes = num_classes
        self.stride, self.head_width = stride, head_width
        self.configure_models()
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self) -> None:
        """Create the head, which computes class scores from feature maps."""
        channels = [shape[0] for shape in self.backbone.feature_shapes]
        self.head = MapHead(
            channels, self.backbone.reductions, self.num_classes, self.stride, self.head_width
        )

    def configure_metrics(self) -> None:
        """Create accuracy, intersection over union and mean losses."""
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(self.num_classes, average="micro"),
                "miou": MulticlassJaccardIndex(self.num_classes),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()

    @classmethod
    def logged_metrics(cls, options: Mapping[str, Any]) -> list[str]:
        """List the losses, accuracy and mean intersection over union that the task logs."""
        names = ("acc", "miou", "loss")
        return ["train/loss", *(f"{part}/{name}" for part in ("val", "test") for name in names)]

    def setup(self, stage: str) -> None:
        """Check that head and data have the same number of classes."""
        check_classes(self.num_classes, self.data())

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute the loss of a batch: ``image`` ``(B, 3, H, W)``, ``labels`` ``(B, h, w)``."""
        scores = self._scores(batch)
        loss = F.cross_entropy(scores, batch["labels"])
        loss = self.whole_loss(loss, batch["image"], scores)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the validation metrics."""
        self._evaluate(batch, "val", self.val_metrics, self.val_loss)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the test metrics."""
        self._evaluate(batch, "test", self.test_metrics, self.test_loss)

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Predict the class of every cell of the network's output, ``(B, h, w)``."""
        return self(batch["image"]).argmax(1)

    def _evaluate(
        self, batch: dict[str, Any], stage: str, metrics: MetricCollection, loss: MeanLoss
    ) -> None:
        scores = self._scores(batch)
        metrics.update(scores, batch["labels"])
        size = len(scores)
        self.log_dict(metrics, prog_bar=stage == "val", batch_size=size)
        loss.update(F.cross_entropy(scores, batch["labels"]), size)
        self.log(f"{stage}/loss", loss, batch_size=size)

    def _scores(self, batch: dict[str, Any]) -> Tensor:
        """``(B, C, h, w)`` in float32, of the labels' size."""
        scores = self(batch["image"]).float()
        size = batch["labels"].shape[-2:]
        return scores if scores.shape[-2:] == size else F.interpolate(scores, size, mode="bilinear")
