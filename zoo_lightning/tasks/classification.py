"""Image classification from pooled features."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from zoo_lightning.backbone import Backbone
from zoo_lightning.errors import ConfigError
from zoo_lightning.tasks.base import BaseTask


class ClassificationTask(BaseTask):
    """Cross-entropy over ``num_classes`` classes.

    Logs, for validation and test: ``loss``, ``acc`` and ``acc5`` (top-1 and top-5 accuracy over all
    samples, in [0, 1]).

    Args:
        backbone: with pooled features.
        num_classes: the command line takes it from the data.
        label_smoothing: in [0, 1).
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.
    """

    monitor: ClassVar[str] = "val/acc"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 10,
        label_smoothing: float = 0.1,
        **optimisation: Any,
    ) -> None:
        super().__init__(backbone, **optimisation)
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.head = nn.Linear(backbone.num_features, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        options = {"num_classes": num_classes, "average": "micro"}
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(**options),
                "acc5": MulticlassAccuracy(**options, top_k=min(5, num_classes)),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")

    def setup(self, stage: str) -> None:
        """Check that head and data agree, before anything runs."""
        classes = getattr(self.trainer.datamodule, "num_classes", self.num_classes)
        if classes != self.num_classes:
            raise ConfigError(
                f"the head has {self.num_classes} classes, the data have {classes}; give data of "
                f"{self.num_classes} classes or train a head of {classes} (num_classes)"
            )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch of ``image`` ``(B, 3, H, W)`` and ``label`` ``(B,)``."""
        loss = F.cross_entropy(
            self(batch["image"]).float(), batch["label"], label_smoothing=self.label_smoothing
        )
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the validation metrics."""
        self._evaluate(batch, self.val_metrics, "val")

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Update the test metrics."""
        self._evaluate(batch, self.test_metrics, "test")

    def _evaluate(self, batch: dict[str, Any], metrics: MetricCollection, stage: str) -> None:
        logits = self(batch["image"]).float()
        metrics.update(logits, batch["label"])
        size = len(logits)
        self.log_dict(metrics, prog_bar=stage == "val", batch_size=size)
        self.log(f"{stage}/loss", F.cross_entropy(logits, batch["label"]), batch_size=size)

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Class probabilities ``(B, num_classes)``."""
        return self(batch["image"]).float().softmax(dim=-1)
