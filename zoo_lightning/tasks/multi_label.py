"""Multi-label classification: several labels an image, each there or not, from pooled features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch.trainer.states import TrainerFn
from timm.loss import AsymmetricLossMultiLabel
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.joint_output import OfProbabilities
from zoo_lightning.metrics.loss import MeanLoss
from zoo_lightning.metrics.multi_label import LabelPredictions, best_thresholds, label_scores
from zoo_lightning.models.backbone import Backbone
from zoo_lightning.models.initialization import check_choice
from zoo_lightning.nn.heads.losses import (
    label_cross_entropy,
    label_distillation_loss,
    masked_mean,
)
from zoo_lightning.tasks.base import BaseTask, check_classes

LabelLoss = Literal["bce", "asymmetric"]

DEFAULT_THRESHOLD = 0.5
"""Probability from which on a label is predicted before validation has chosen another one."""

LARGEST_WEIGHT = 100.0
"""Upper limit of the weights of ``pos_weight: auto``: a single image must not rule the loss."""


class MultiLabelTask(BaseTask):
    """Predict which of ``L`` labels an image has, with a linear head and a sigmoid for each label.

    Logs, for validation and test: ``loss`` (binary cross-entropy over all known labels), ``map``
    (mean average precision over the labels that some image has), ``f1_macro``, ``f1_micro`` and
    ``exact_match`` (share of images all of whose labels are right), all in [0, 1]. Labels that are
    unknown count nowhere. Logits of several crops of an image are averaged.

    Every validation in training chooses the threshold of each label that has the highest F1 on the
    validation images; a checkpoint has those of its own weights. F1 and exact match of a test are
    at these thresholds. In validation they are, too, and too good, since the thresholds were chosen
    by the same images. Ensembles and averages of weights have the mean of their members'
    thresholds.

    Args:
        backbone: network with pooled features.
        num_classes: number ``L`` of labels; the command line takes it from the data.
        loss: ``bce`` for binary cross-entropy, or ``asymmetric`` (Ridnik et al., *Asymmetric Loss
            For Multi-Label Classification*, ICCV 2021, as in timm), in which labels that are absent
            and found so count little. Both are averaged over the known labels.
        pos_weight: factor of a label's loss where it is there: ``none`` for 1, ``auto`` for the
            ratio of training images without it to those with it, at most 100, or a number for each
            label.
        label_smoothing: ``ε`` in [0, 1) of training, by which targets become ``(1 - ε) y + ε / 2``.
        gamma_neg: for ``asymmetric``, exponent at least 0 by which absent labels are focused.
        gamma_pos: for ``asymmetric``, exponent at least 0 by which labels that are there are.
        clip: for ``asymmetric``, probability in [0, 1) below which an absent label has no loss.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Attributes:
        thresholds: probability of each label from which on it is predicted, ``(L,)``.

    Raises:
        ConfigError: an option is outside its range, or the data have other labels than the head.
    """

    monitor: ClassVar[str] = "val/map"
    monitor_mode: ClassVar[Literal["min", "max"]] = "max"
    thresholds: Tensor
    positive_weight: Tensor

    def __init__(
        self,
        backbone: Backbone,
        num_classes: int = 10,
        loss: LabelLoss = "bce",
        pos_weight: Literal["none", "auto"] | list[float] = "none",
        label_smoothing: float = 0.0,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        clip: float = 0.05,
        **optimisation: Any,
    ) -> None:
        super().__init__(backbone, **optimisation)
        check_choice("loss", loss, get_args(LabelLoss))
        if num_classes < 1:
            raise ConfigError(f"num_classes must be at least 1, got {num_classes}")
        _check_numbers(label_smoothing, gamma_neg, gamma_pos, clip)
        self.num_classes = num_classes
        self.loss, self.pos_weight, self.label_smoothing = loss, pos_weight, label_smoothing
        self.gamma_neg, self.gamma_pos, self.clip = gamma_neg, gamma_pos, clip
        self.register_buffer("thresholds", torch.full((num_classes,), DEFAULT_THRESHOLD))
        self._chosen: Tensor | None = None
        self.register_buffer("positive_weight", _given_weights(pos_weight, num_classes))
        self.configure_models()
        self.configure_metrics()

    def configure_models(self) -> None:
        """Create the head: a linear layer on pooled features."""
        head = nn.Linear(self.backbone.num_features, self.num_classes)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        self.head = head

    def configure_metrics(self) -> None:
        """Create mean losses, and what collects the predictions of validation and test."""
        self.val_predictions, self.test_predictions = LabelPredictions(), LabelPredictions()
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()

    @classmethod
    def logged_metrics(cls, options: Mapping[str, Any]) -> list[str]:
        """List the losses and scores that the task logs."""
        names = ("map", "f1_macro", "f1_micro", "exact_match", "loss")
        return ["train/loss", *(f"{part}/{name}" for part in ("val", "test") for name in names)]

    def setup(self, stage: str) -> None:
        """Check that head and data have the same labels."""
        self.check_data(self.data())

    def check_data(self, data: Any) -> None:
        """Check that the data have the head's labels.

        Args:
            data: data module, or ``None`` for a task without one.

        Raises:
            ConfigError: the numbers of labels differ.
        """
        check_classes(self.num_classes, data, "several labels for each image")

    def on_fit_start(self) -> None:
        """Compute the weights of ``pos_weight: auto`` from the training labels.

        Raises:
            ConfigError: the data module has no ``label_states()``.
        """
        super().on_fit_start()
        if self.pos_weight != "auto":
            return
        data = self.data()
        if not hasattr(data, "label_states"):
            raise ConfigError(
                f"pos_weight auto counts labels by label_states() of the data module, which "
                f"{type(data).__name__} lacks; add the method, or give a number for each label"
            )
        states = torch.as_tensor(data.label_states())
        positives, negatives = (states == 1).sum(0), (states == 0).sum(0)
        ratio = negatives / positives.clamp(min=1)
        self.positive_weight.copy_(ratio.clamp(1 / LARGEST_WEIGHT, LARGEST_WEIGHT))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute the loss of a batch of ``image`` ``(B, 3, H, W)`` and ``label`` ``(B, L)``."""
        logits = self(batch["image"]).float()
        loss = self._loss(logits, batch["label"])
        loss = self.whole_loss(loss, batch["image"], logits)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self.loss == "bce":
            return label_cross_entropy(logits, labels, self.label_smoothing, self.positive_weight)
        asymmetric = AsymmetricLossMultiLabel(
            self.gamma_neg,
            self.gamma_pos,
            self.clip,
            smoothing=self.label_smoothing,
            reduction="none",
            pos_weight=self.positive_weight,
        )
        return masked_mean(asymmetric(logits, labels.clamp(min=0)), labels >= 0)

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """Compute the distillation loss between two logits ``(B, L)``, label by label."""
        return label_distillation_loss(raw, taught, self.hparams["temperature"])

    def averages_probabilities(self) -> OfProbabilities:
        """Whether ensembles average probabilities: always, those of each label."""
        return "independent"

    def join(self, members: Sequence[BaseTask]) -> None:
        """Turn this task into an ensemble, with the mean of the members' thresholds.

        Args:
            members: trained tasks with the same labels.

        Raises:
            ConfigError: no tasks, or tasks of different kinds.
        """
        super().join(members)
        self.thresholds.copy_(torch.stack([each.thresholds for each in members]).mean(dim=0))  # type: ignore[misc]

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Collect the predictions; return the labels' ``probabilities`` ``(B, L)``."""
        return self._evaluate(batch, "val", self.val_predictions, self.val_loss)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Collect the predictions; return the labels' ``probabilities`` ``(B, L)``."""
        return self._evaluate(batch, "test", self.test_predictions, self.test_loss)

    def _evaluate(
        self, batch: dict[str, Any], stage: str, predictions: LabelPredictions, loss: MeanLoss
    ) -> dict[str, Tensor]:
        logits, labels = self.mean_output(batch["image"]), batch["label"]
        probabilities = logits.sigmoid()
        predictions.update(probabilities, labels)
        # Weighted by what is known, of which batches may have more or less.
        loss.update(label_cross_entropy(logits, labels), int((labels >= 0).sum()))
        self.log(f"{stage}/loss", loss, batch_size=len(labels))
        return {"probabilities": probabilities}

    def on_validation_epoch_end(self) -> None:
        """Choose the thresholds, in training, and log the scores over all processes."""
        outputs = self.val_predictions.compute()
        trainer = self.trainer
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._chosen = best_thresholds(outputs, self.thresholds)
            self.thresholds.copy_(self._chosen)
        self.val_predictions.reset()
        self._log_scores("val", label_scores(outputs, self.thresholds))

    def on_train_end(self) -> None:
        """Restore the thresholds that the last validation chose.

        The callback that averages weights replaces them by those that it had at the last step.
        """
        if self._chosen is not None:
            self.thresholds.copy_(self._chosen)

    def on_test_epoch_end(self) -> None:
        """Log the scores over all processes."""
        scores = label_scores(self.test_predictions.compute(), self.thresholds)
        self.test_predictions.reset()
        self._log_scores("test", scores)

    def _log_scores(self, part: str, scores: Mapping[str, Tensor]) -> None:
        self.log_dict({f"{part}/{name}": value for name, value in scores.items()})

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Predict the labels' probabilities ``(B, L)``."""
        return self.mean_output(batch["image"]).sigmoid()

    def facts(self) -> dict[str, Any]:
        """Facts of :class:`BaseTask`, and the labels' thresholds."""
        return super().facts() | {"thresholds": [round(x, 6) for x in self.thresholds.tolist()]}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the thresholds that the last validation chose, also with averaged weights."""
        super().on_save_checkpoint(checkpoint)
        # The callback that averages weights copies buffers to the average at the next step only.
        chosen = self.thresholds if self._chosen is None else self._chosen
        checkpoint["state_dict"]["thresholds"] = chosen.detach().clone()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this task; an ensemble keeps its mean thresholds.

        Raises:
            ConfigError: as :meth:`BaseTask.on_load_checkpoint` raises it.
        """
        super().on_load_checkpoint(checkpoint)
        if self.ensemble is not None:
            checkpoint["state_dict"]["thresholds"] = self.thresholds.detach().clone()


def _given_weights(pos_weight: str | list[float], num_classes: int) -> Tensor:
    """Factors ``(L,)`` of the option ``pos_weight``; 1 where they are still to be computed."""
    if isinstance(pos_weight, str):
        check_choice("pos_weight", pos_weight, ("none", "auto"))
        return torch.ones(num_classes)
    if len(pos_weight) != num_classes or not all(0 < each < float("inf") for each in pos_weight):
        raise ConfigError(
            f"pos_weight must be none, auto, or a number above 0 for each of the {num_classes} "
            f"labels, got {pos_weight}"
        )
    return torch.tensor(pos_weight, dtype=torch.float32)


def _check_numbers(label_smoothing: float, gamma_neg: float, gamma_pos: float, clip: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label_smoothing must lie in [0, 1), got {label_smoothing}")
    for name, value in (("gamma_neg", gamma_neg), ("gamma_pos", gamma_pos)):
        if value < 0:
            raise ConfigError(f"{name} must be at least 0, got {value}")
    if not 0 <= clip < 1:
        raise ConfigError(f"clip must lie in [0, 1), got {clip}")
