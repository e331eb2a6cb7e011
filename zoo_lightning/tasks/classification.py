"""Image classification from pooled features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import ConfigError
from zoo_lightning.metrics.classification import ClassAccuracy
from zoo_lightning.metrics.loss import MeanLoss
from zoo_lightning.models.backbone import Backbone
from zoo_lightning.models.initialization import check_choice
from zoo_lightning.nn.heads.losses import (
    distillation_loss,
    focal_cross_entropy,
    sample_weights,
    smoothed_targets,
)
from zoo_lightning.tasks.base import BaseTask, check_classes, check_number_of_classes
from zoo_lightning.tasks.mixing import BatchMixing

Loss = Literal["cross_entropy", "focal"]


class ClassificationTask(BaseTask):
    """Classify images into ``C`` classes with a linear head, by cross-entropy or focal loss.

    Logs, for validation and test: ``loss``, ``acc`` and ``acc5`` (top-1 and top-5 accuracy over all
    samples, in [0, 1]) and ``acc_class`` (top-1 accuracy of each class that occurs, averaged).
    The logged ``val/loss`` and ``test/loss`` are plain cross-entropy whatever the training's loss
    is, without weights and label smoothing, so that they can be compared.
    Logits of several crops of an image, ``(B, crops, 3, H, W)``, are averaged.

    Args:
        backbone: network with pooled features.
        num_classes: number ``C`` of classes; the command line takes it from the data.
        label_smoothing: label smoothing in training, in [0, 1).
        mixup: ``α`` of mixup's Beta(α, α), at least 0; 0 for none.
        cutmix: ``α`` of CutMix's Beta(α, α), at least 0; 0 for none. With both, each batch uses one
            of them at random.
        mix_probability: probability that a training batch is mixed, in [0, 1].
        class_weights: factor, at least 0, of the training loss of each class's samples, in the
            order of the classes; ``auto`` takes factors inversely proportional to the numbers of
            training images, with a mean of 1 over these images. The mean over a batch is not
            divided by its weights. Distillation and features of teachers have no such weights.
        loss: ``cross_entropy``, or ``focal`` to weigh down samples that are classified well.
        focal_gamma: ``γ`` of the focal loss, at least 0.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: an option is outside its range, or the data have other classes than the head.
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
        class_weights: Literal["auto"] | list[float] | None = None,
        loss: Loss = "cross_entropy",
        focal_gamma: float = 2.0,
        **optimisation: Any,
    ) -> None:
        super().__init__(backbone, **optimisation)
        _check_numbers(label_smoothing, mixup, cutmix, mix_probability)
        check_number_of_classes(num_classes)
        check_choice("loss", loss, get_args(Loss))
        if not 0 <= focal_gamma < math.inf:
            raise ConfigError(f"focal_gamma must be at least 0, got {focal_gamma}")
        _check_weights(class_weights, num_classes)
        self.class_weights, self.loss, self.focal_gamma = class_weights, loss, focal_gamma
        self.num_classes = num_classes
        self.label_smoothing = label_smoothing
        self.mixup, self.cutmix, self.mix_probability = mixup, cutmix, mix_probability
        self.configure_models()
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self) -> None:
        """Create the head: a linear layer on pooled features."""
        head = nn.Linear(self.backbone.num_features, self.num_classes)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        self.head = head

    def configure_losses(self) -> None:
        """Create mixup or CutMix, if it is enabled, and the weights of the classes, if given."""
        given = self.class_weights
        self._weights: Tensor | None
        # No buffer: options and data say them, and averaged weights have none of it.
        self._weights = None if given is None or given == "auto" else torch.tensor(given).float()
        self.mixing: BatchMixing | None = None
        if self.mixup or self.cutmix:
            self.mixing = BatchMixing(
                self.num_classes,
                self.mixup,
                self.cutmix,
                self.mix_probability,
                self.label_smoothing,
            )

    def configure_metrics(self) -> None:
        """Create accuracies, mean losses and the test's confusion matrix."""
        classes = self.num_classes
        top5 = MulticlassAccuracy(classes, average="micro", top_k=min(5, classes))
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(classes, average="micro"),
                "acc5": top5,
                "acc_class": ClassAccuracy(classes),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()
        self.confusion = MulticlassConfusionMatrix(classes)
        """Confusion matrix of the last test, ``(C, C)`` image counts by true, predicted class."""

    @classmethod
    def logged_metrics(cls, options: Mapping[str, Any]) -> list[str]:
        """List the losses and accuracies that the task logs."""
        names = ("acc", "acc5", "acc_class", "loss")
        return ["train/loss", *(f"{part}/{name}" for part in ("val", "test") for name in names)]

    def setup(self, stage: str) -> None:
        """Check that head and data have the same classes; weigh these by the training images."""
        data = self.data()
        self.check_data(data)
        if stage == "fit" and self.class_weights == "auto":
            self._weigh_classes(data)

    def _weigh_classes(self, data: Any) -> None:
        """Compute the classes' weights from the labels of the training images.

        Raises:
            ConfigError: the data do not say them, or draw all classes equally often already.
        """
        if not hasattr(data, "training_labels"):
            raise ConfigError(
                "class_weights: auto counts the training labels, which "
                f"{'no data module' if data is None else type(data).__name__} does not list "
                "(training_labels); give a weight for each class"
            )
        check_not_both(self.class_weights, getattr(data, "balanced", False))
        counts = torch.bincount(torch.tensor(data.training_labels()), minlength=self.num_classes)
        present = counts > 0
        weights = counts.sum() / (present.sum() * counts.clamp(min=1)) * present
        self._weights = weights
        names = getattr(data, "class_names", None) or range(self.num_classes)
        most, least = int(counts.argmax()), int(counts.where(present, counts.max()).argmin())
        rank_zero_info(
            f"class_weights: auto weighs {self.num_classes} classes from "
            f"{float(weights[most]):.3g} ({names[most]}, {int(counts[most])} training images) to "
            f"{float(weights[least]):.3g} ({names[least]}, {int(counts[least])}); the losses of "
            "validation and test have no weights"
        )

    def check_data(self, data: Any) -> None:
        """Check that the data have the head's classes.

        Args:
            data: data module, or ``None`` for a task without one.

        Raises:
            ConfigError: the numbers of classes differ.
        """
        check_classes(self.num_classes, data, "a class for each image")

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute the loss of a batch of ``image`` ``(B, 3, H, W)``, ``label`` and ``index``."""
        images, labels = batch["image"], batch["label"]
        plain = self._weights is None and self.loss == "cross_entropy"
        if self.mixing is not None:
            images, targets = self.mixing(images, labels, self._mixing_seed(batch))
            logits = self(images).float()
            loss = F.cross_entropy(logits, targets) if plain else self._loss(logits, targets)
        elif plain:
            logits = self(images).float()
            loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        else:
            logits = self(images).float()
            targets = smoothed_targets(labels, self.num_classes, self.label_smoothing)
            loss = self._loss(logits, targets)
        loss = self.whole_loss(loss, images, logits)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def _loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss with the classes' weights and the focal factor, a scalar.

        Args:
            logits: logits ``(B, C)``.
            targets: class probabilities ``(B, C)``, smoothed and perhaps mixed.
        """
        gamma = self.focal_gamma if self.loss == "focal" else 0.0
        losses = focal_cross_entropy(logits, targets, gamma)
        if self._weights is not None:
            weights = self._weights.to(targets.device)
            losses = losses * sample_weights(targets, weights, self.label_smoothing)
        return losses.mean()

    def _new_options(self) -> dict[str, Any]:
        new = {"class_weights": None, "loss": "cross_entropy", "focal_gamma": 2.0}
        return super()._new_options() | new

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """Compute the distillation loss between two logits ``(B, C)``."""
        return distillation_loss(raw, taught, self.hparams["temperature"])

    def averages_probabilities(self) -> bool:
        """Whether ensembles average probabilities: always, for classification."""
        return True

    def _mixing_seed(self, batch: dict[str, Any]) -> int:
        """Seed from the run's seed, the step and the batch, so that a resumed run has the same."""
        seed = getattr(self.data(), "seed", 0)
        # The first image tells batches apart that are accumulated or on other devices.
        return sample_generator(seed, self.global_step, int(batch["index"][0])).initial_seed()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the validation metrics; return class ``probabilities`` ``(B, C)``."""
        logits = self._evaluate(batch, "val", self.val_metrics, self.val_loss)
        return {"probabilities": logits.softmax(dim=-1)}

    def on_test_epoch_start(self) -> None:
        """Reset the confusion matrix of the last test."""
        self.confusion.reset()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the test metrics; return class ``probabilities`` ``(B, C)``."""
        logits = self._evaluate(batch, "test", self.test_metrics, self.test_loss)
        self.confusion.update(logits, batch["label"])
        return {"probabilities": logits.softmax(dim=-1)}

    def _evaluate(
        self, batch: dict[str, Any], stage: str, metrics: MetricCollection, loss: MeanLoss
    ) -> Tensor:
        logits = self.mean_output(batch["image"])
        metrics.update(logits, batch["label"])
        size = len(logits)
        self.log_dict(metrics, prog_bar=stage == "val", batch_size=size)
        loss.update(F.cross_entropy(logits, batch["label"]), size)
        self.log(f"{stage}/loss", loss, batch_size=size)
        return logits

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Predict class probabilities ``(B, C)``."""
        return self.mean_output(batch["image"]).softmax(dim=-1)


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


def check_not_both(class_weights: object, balanced: object) -> None:
    """Raise ConfigError if rare classes would be both weighed up and drawn more often."""
    if class_weights == "auto" and balanced:
        raise ConfigError(
            "data.balanced draws all classes equally often already, and class_weights: auto "
            "would weigh the rare ones up once more; leave one of them out"
        )


def _check_weights(weights: Literal["auto"] | Sequence[float] | None, num_classes: int) -> None:
    if weights is None or weights == "auto":
        return
    if isinstance(weights, str):
        raise ConfigError(f"class_weights must be auto or a number per class, got {weights!r}")
    if len(weights) != num_classes:
        raise ConfigError(
            f"class_weights has {len(weights)} weights, and there are {num_classes} classes; give "
            "one for each, in the order of the classes, or auto"
        )
    if not all(0 <= weight < math.inf for weight in weights) or not any(weights):
        raise ConfigError(
            f"class_weights must be numbers of at least 0, one of them above 0, got {weights}"
        )
