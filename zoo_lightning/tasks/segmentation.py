"""Semantic segmentation: a class for every cell of a grid over the image."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.joint_output import JointOutput
from zoo_lightning.metrics.loss import MeanLoss
from zoo_lightning.models.backbone import Backbone
from zoo_lightning.models.initialization import check_choice
from zoo_lightning.nn.heads import MapHead
from zoo_lightning.nn.heads.losses import cell_cross_entropy, dice_loss, distillation_loss
from zoo_lightning.tasks.base import BaseTask, check_classes, check_number_of_classes

Loss = Literal["cross_entropy", "dice", "both"]

NEW_OPTIONS = {"loss": "cross_entropy", "ignore_index": 255, "class_weights": None}
"""Options that version 0.1 did not have, with the values that mean the same as without them."""


class SegmentationTask(BaseTask):
    """Segment images into ``C`` classes on a grid of cells.

    Logs, for validation and test: ``loss`` (the cross-entropy without weights), ``acc`` (fraction
    of the label cells that are classified correctly), ``miou`` (intersection over union) and
    ``dice`` (Dice coefficient, the F1 score of cells), both averaged over the classes that occur in
    truth or prediction and computed from the cells of all images together; all but the loss are in
    [0, 1].

    Args:
        backbone: network with ``stages`` or a feature ``map``.
        num_classes: number ``C`` of classes; the command line takes it from the data.
        stride: image pixels per cell of the network's output, a power of two; outputs are resized
            bilinearly to the labels' size.
        head_width: channels of the head's last hidden layer; ``None`` as in HRNet, but at most 256.
        loss: ``cross_entropy``; ``dice``, the soft Dice loss of the batch, averaged over classes;
            or ``both``, their sum.
        ignore_index: label of cells that count neither in the loss nor in the metrics.
        class_weights: weights of the classes in the training's cross-entropy, above 0; ``auto`` for
            the inverse square root of each class's share of the training cells, so scaled that the
            mean over the cells is 1; ``None`` for equal weights.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: an option is outside its range, the features are pooled, or the data have other
            classes than the head.
    """

    monitor: ClassVar[str] = "val/miou"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    cell_weights: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 2,
        stride: int = 4,
        head_width: int | None = None,
        loss: Loss = "cross_entropy",
        ignore_index: int = 255,
        class_weights: Literal["auto"] | list[float] | None = None,
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
        check_choice("loss", loss, get_args(Loss))
        _check_weights(class_weights, num_classes)
        self.num_classes = num_classes
        self.stride, self.head_width = stride, head_width
        self.loss, self.ignore_index, self.class_weights = loss, ignore_index, class_weights
        self.configure_models()
        self.configure_losses()
        self.configure_metrics()

    def configure_models(self) -> None:
        """Create the head, which computes class scores from feature maps."""
        channels = [shape[0] for shape in self.backbone.feature_shapes]
        self.head = MapHead(
            channels, self.backbone.reductions, self.num_classes, self.stride, self.head_width
        )

    def configure_losses(self) -> None:
        """Create the weights of the classes; ``auto`` finds them at the start of ``fit``."""
        given = self.class_weights
        weights = torch.tensor(given) if isinstance(given, list) else None
        # Not saved: it follows from the options and the data.
        self.register_buffer("cell_weights", weights, persistent=False)

    def configure_metrics(self) -> None:
        """Create accuracy, overlaps, mean losses and the test's confusion matrix."""
        classes, ignored = self.num_classes, self.ignore_index
        metrics = MetricCollection(
            {
                "acc": MulticlassAccuracy(classes, average="micro", ignore_index=ignored),
                "miou": MulticlassJaccardIndex(classes, ignore_index=ignored),
                "dice": MulticlassF1Score(classes, average="macro", ignore_index=ignored),
            }
        )
        self.val_metrics, self.test_metrics = metrics.clone("val/"), metrics.clone("test/")
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()
        self.confusion = MulticlassConfusionMatrix(classes, ignore_index=ignored)
        """Confusion matrix of the last test, ``(C, C)`` cell counts by true, predicted class."""

    @classmethod
    def logged_metrics(cls, options: Mapping[str, Any]) -> list[str]:
        """List the losses, accuracy and overlaps that the task logs."""
        names = ("acc", "miou", "dice", "loss")
        return ["train/loss", *(f"{part}/{name}" for part in ("val", "test") for name in names)]

    def setup(self, stage: str) -> None:
        """Check that head and data have the same classes, and the same label of ignored cells."""
        self.check_data(self.data())

    def check_data(self, data: Any) -> None:
        """Check that the data have the head's classes, and the task's label of ignored cells.

        Args:
            data: data module, or ``None`` for a task without one.

        Raises:
            ConfigError: numbers of classes or labels of ignored cells differ.
        """
        check_classes(self.num_classes, data, "a class for each pixel")
        label = getattr(data, "ignored_label", self.ignore_index)
        if label != self.ignore_index:
            raise ConfigError(
                f"model.ignore_index is {self.ignore_index}, and the data mark cells that do not "
                f"count by {label}: leave model.ignore_index out (data.ignore_index is the value "
                "in the masks' files)"
            )

    def on_fit_start(self) -> None:
        """Load the teachers, and find the weights of the classes.

        Raises:
            ConfigError: as in :class:`~zoo_lightning.tasks.base.BaseTask`, or ``class_weights`` is
                ``auto`` and the data do not count their classes' cells.
        """
        super().on_fit_start()
        if self.class_weights != "auto":
            return
        counts = getattr(self.data(), "class_pixels", None)
        if counts is None:
            raise ConfigError(
                f"class_weights auto needs class_pixels of the data module, which "
                f"{type(self.data()).__name__} lacks; give a list of {self.num_classes} weights"
            )
        weights = balanced_weights(torch.as_tensor(counts))
        rank_zero_info(
            f"class_weights auto: {', '.join(f'{weight:.3g}' for weight in weights.tolist())}"
        )
        self.cell_weights = weights.to(self.device)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute the loss of a batch: ``image`` ``(B, 3, H, W)``, ``labels`` ``(B, h, w)``."""
        raw = self(batch["image"]).float()
        scores = _resized(raw, batch["labels"].shape[-2:])
        loss = self.whole_loss(self._own_loss(scores, batch["labels"]), batch["image"], raw)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def _own_loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Loss of scores ``(B, C, h, w)`` and labels ``(B, h, w)``, without what teachers add."""
        parts = []
        if self.loss != "dice":
            parts.append(cell_cross_entropy(scores, labels, self.ignore_index, self.cell_weights))
        if self.loss != "cross_entropy":
            parts.append(dice_loss(scores, labels, self.ignore_index))
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """Compute the distillation loss of two outputs ``(B, C, h, w)``, averaged over the cells.

        A teacher's output with another stride is resized to the student's.
        """
        taught = _resized(taught.float(), raw.shape[-2:])
        student, teacher = (each.movedim(1, -1).flatten(0, -2) for each in (raw.float(), taught))
        return distillation_loss(student, teacher, self.hparams["temperature"])

    def averages_probabilities(self) -> bool:
        """Whether ensembles average probabilities: always, cell by cell."""
        return True

    def joint(self, members: Sequence[nn.Module]) -> JointOutput:
        """Join networks of maps of scores into one whose probabilities are their mean.

        Args:
            members: networks that map images to scores ``(B, C, h, w)``.
        """
        return JointOutput(members, of_probabilities=True, of_cells=True)

    def describe_outputs(self) -> str:
        """Describe the properties of the output that must agree in an ensemble."""
        return f"{super().describe_outputs()}, stride: {self.stride}"

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the validation metrics; return the ``predicted`` classes ``(B, h, w)``."""
        return {"predicted": self._evaluate(batch, "val", self.val_metrics, self.val_loss)}

    def on_test_epoch_start(self) -> None:
        """Reset the confusion matrix of the last test."""
        self.confusion.reset()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the test metrics; return the ``predicted`` classes ``(B, h, w)``."""
        predicted = self._evaluate(batch, "test", self.test_metrics, self.test_loss)
        self.confusion.update(predicted, batch["labels"])
        return {"predicted": predicted}

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Predict the scores of the classes in every cell of the output, ``(B, C, h, w)``.

        Their softmax over ``C`` gives probabilities.
        """
        return self(batch["image"]).float()

    def classified(self, batch: dict[str, Any]) -> Tensor:
        """Predict the class of every cell of a batch's ``labels``, ``(B, h, w)``."""
        return self._scores(batch).argmax(dim=1)

    def _evaluate(
        self, batch: dict[str, Any], stage: str, metrics: MetricCollection, loss: MeanLoss
    ) -> Tensor:
        scores, labels = self._scores(batch), batch["labels"]
        predicted = scores.argmax(dim=1)
        metrics.update(predicted, labels)
        size = len(scores)
        self.log_dict(metrics, prog_bar=stage == "val", batch_size=size)
        # Every cell that counts has the same weight in the mean.
        counted = (labels != self.ignore_index).sum()
        loss.update(cell_cross_entropy(scores, labels, self.ignore_index), counted)
        self.log(f"{stage}/loss", loss, batch_size=size)
        return predicted

    def _scores(self, batch: dict[str, Any]) -> Tensor:
        """``(B, C, h, w)`` in float32, of the labels' size."""
        return _resized(self(batch["image"]).float(), batch["labels"].shape[-2:])

    def _new_options(self) -> dict[str, Any]:
        return super()._new_options() | NEW_OPTIONS


def balanced_weights(counts: Tensor) -> Tensor:
    """Weights ``(C,)`` float32 of classes by the inverse square roots of their shares of the cells.

    Their mean over the cells is 1. A class without cells has the weight of the rarest one.

    Args:
        counts: number of cells of each class, ``(C,)``, at least one of them above 0.
    """
    shares = counts.double() / counts.sum()
    weights = shares[shares > 0].min().clamp(max=1).rsqrt().expand_as(shares).clone()
    weights[shares > 0] = shares[shares > 0].rsqrt()
    return (weights / (weights * shares).sum()).float()


def _resized(scores: Tensor, size: Sequence[int]) -> Tensor:
    """Resize maps of scores ``(B, C, h, w)`` bilinearly to a height and width."""
    if tuple(scores.shape[-2:]) == tuple(size):
        return scores
    return F.interpolate(scores, tuple(size), mode="bilinear")


def _check_weights(weights: Literal["auto"] | list[float] | None, num_classes: int) -> None:
    if weights is None or weights == "auto":
        return
    given = weights if isinstance(weights, list) else []
    if len(given) != num_classes or not all(0 < each < math.inf for each in given):
        raise ConfigError(
            f"class_weights must be auto, or {num_classes} numbers above 0, one for each class, "
            f"got {weights}"
        )
