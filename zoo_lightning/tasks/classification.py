"""Image classification from pooled features."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from zoo_lightning.backbone import Backbone
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import ConfigError
from zoo_lightning.heads.losses import distillation_loss
from zoo_lightning.metrics.classification import ClassAccuracy
from zoo_lightning.metrics.loss import MeanLoss
from zoo_lightning.tasks.base import BaseTask, check_classes
from zoo_lightning.tasks.mixing import BatchMixing


class ClassificationTask(BaseTask):
    """Cross-entropy over ``C`` classes.

    Logs, for validation and test: ``loss``, ``acc`` and ``acc5`` (top-1 and top-5 accuracy over all
    samples, in [0, 1]) and ``acc_class`` (top-1 accuracy of each class that occurs, averaged).
    Several crops of an image ``(B, crops, 3, H, W)`` get the mean of their logits, which chooses
    the same classes as the sum.

    Args:
        backbone: with pooled features.
        num_classes: ``C``; the command line takes it from the data.
        label_smoothing: in [0, 1).
        mixup: ``α`` of mixup, at least 0; 0 for none.
        cutmix: ``α`` of CutMix, at least 0; 0 for none. If both are on, each batch takes one.
        mix_probability: that a training batch is mixed, in [0, 1].
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: options outside their range, or a head of other classes than the data have.
    """

    monitor: ClassVar[str] = "val/acc"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 10,
        label_smoothing: float = 0.1,
        mixup: float = 0.0,
        cutmix: float = 0.0,
        mix_probability: float = 1.0,
        **optimisation: Any,
    ) -> None:
        super().__init__(backbone, **optimisation)
        _check_numbers(label_smoothing, mixup, cutmix, mix_probability)
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.mixing: BatchMixing | None = None
        if mixup or cutmix:
            self.mixing = BatchMixing(num_classes, mixup, cutmix, mix_probability, label_smoothing)
        self.head = nn.Linear(backbone.num_features, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        options = {"num_classes": num_classes, "average": "micro"}
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(**options),
                "acc5": MulticlassAccuracy(**options, top_k=min(5, num_classes)),
                "acc_class": ClassAccuracy(num_classes),
            }
        )
        self.losses = nn.ModuleDict({"val": MeanLoss(), "test": MeanLoss()})
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")
        self.confusion = MulticlassConfusionMatrix(num_classes)
        """Of the last test, ``(C, C)`` numbers of images: true class, predicted class."""

    def setup(self, stage: str) -> None:
        """Check that head and data agree, before anything runs."""
        self.check_data(self.trainer.datamodule)

    def check_data(self, data: Any) -> None:
        """Check that the data have the head's classes.

        Raises:
            ConfigError: they have others.
        """
        check_classes(self.num_classes, data)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of a batch of ``image`` ``(B, 3, H, W)``, ``label`` and ``index`` ``(B,)``."""
        images, labels = batch["image"], batch["label"]
        if self.mixing is None:
            logits = self(images).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        else:
            images, targets = self.mixing(images, labels, self._mixing_seed(batch))
            logits = self(images).float()
            loss = F.cross_entropy(logits, targets)
        loss = self.whole_loss(loss, images, logits)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """Distillation of logits ``(B, C)``."""
        return distillation_loss(raw, taught, self.hparams["temperature"])

    def _mixing_seed(self, batch: dict[str, Any]) -> int:
        """Depends on the run's seed, the step and the batch, so that a resumed run has the same."""
        seed = getattr(self.trainer.datamodule, "seed", 0)
        # The first image tells batches apart that are accumulated or on other devices.
        return sample_generator(seed, self.global_step, int(batch["index"][0])).initial_seed()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the validation metrics; gives class ``probabilities`` ``(B, C)``."""
        logits = self._evaluate(batch, self.val_metrics, "val")
        return {"probabilities": logits.softmax(dim=-1)}

    def on_test_epoch_start(self) -> None:
        """Forget the last test."""
        self.confusion.reset()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the test metrics; gives class ``probabilities`` ``(B, C)``."""
        logits = self._evaluate(batch, self.test_metrics, "test")
        self.confusion.update(logits, batch["label"])
        return {"probabilities": logits.softmax(dim=-1)}

    def _evaluate(self, batch: dict[str, Any], metrics: MetricCollection, stage: str) -> Tensor:
        logits = self._logits(batch["image"])
        metrics.update(logits, batch["label"])
        size = len(logits)
        self.log_dict(metrics, prog_bar=stage == "val", batch_size=size)
        self.losses[stage].update(F.cross_entropy(logits, batch["label"]), size)
        self.log(f"{stage}/loss", self.losses[stage], batch_size=size)
        return logits

    def _logits(self, images: Tensor) -> Tensor:
        """``(B, C)`` of images, or of crops, one after the other so that memory stays the same."""
        if images.dim() == 4:
            return self(images).float()
        crops = images.unbind(dim=1)
        return sum(self(crop).float() for crop in crops) / len(crops)

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Class probabilities ``(B, C)``."""
        return self._logits(batch["image"]).softmax(dim=-1)


def _check_numbers(
    label_smoothing: float, mixup: float, cutmix: float, mix_probability: float
) -> None:
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    for name, value in (("mixup", mixup), ("cutmix", cutmix)):
        if value < 0:
            raise ConfigError(f"{name} must be at least 0, got {value}")
    if not 0 <= mix_probability <= 1:
        raise ConfigError(f"mix_probability must lie in [0, 1], got {mix_probability}")
