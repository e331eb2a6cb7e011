"""Numbers as targets: image regression from pooled features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError
from zoo_lightning.metrics.loss import MeanLoss
from zoo_lightning.metrics.regression import OF_TARGETS, NumberErrors
from zoo_lightning.models.backbone import Backbone
from zoo_lightning.models.initialization import check_choice
from zoo_lightning.nn.heads import NumberHead
from zoo_lightning.tasks.base import BaseTask, check_targets

Loss = Literal["mse", "l1", "huber"]


class RegressionTask(BaseTask):
    """Predict ``T`` numbers of an image by a linear head on pooled features.

    The head learns standardised targets, by their mean and standard deviation over the training
    images, which are part of the weights; outputs and metrics are in the targets' units. Numbers
    that are NaN count neither in the loss nor in metrics.

    Logs, for validation and test: ``loss`` (of standardised targets) and, see
    :class:`~zoo_lightning.metrics.NumberErrors`, ``nmae`` (mean absolute error in percent of a
    standard deviation, averaged over the targets, by which the best checkpoint is chosen), ``mae``,
    ``rmse``, ``r2``, ``spearman``; with several targets also ``mae/NAME`` and so on. Outputs for
    several crops of an image, ``(B, crops, 3, H, W)``, are averaged.

    Args:
        backbone: network with pooled features.
        target_names: names of the ``T`` targets; the command line takes them from the data.
            ``None`` for one target, called ``target``.
        loss: ``mse``, ``l1``, or ``huber``, which is squared up to ``delta`` and linear beyond, so
            that a few wrong numbers do little harm.
        delta: ``delta`` of ``huber``, in standard deviations, above 0.
        optimisation: options of :class:`~zoo_lightning.tasks.base.BaseTask`.

    Raises:
        ConfigError: an option is outside its range, the features have places, or the data have
            other targets than the head.
    """

    monitor: ClassVar[str] = "val/nmae"
    monitor_mode: ClassVar[Literal["min", "max"]] = "min"
    head: NumberHead

    def __init__(
        self,
        backbone: Backbone,
        target_names: list[str] | None = None,
        loss: Loss = "huber",
        delta: float = 1.0,
        **optimisation: Any,
    ) -> None:
        super().__init__(backbone, **optimisation)
        check_choice("loss", loss, get_args(Loss))
        if not delta > 0:
            raise ConfigError(f"delta must be above 0, got {delta}")
        if any(backbone.reductions):
            raise ConfigError(
                "regression needs features without places; set backbone.output to pooled"
            )
        names = ["target"] if target_names is None else list(target_names)
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"target_names must be different names, at least one, got {names}")
        self.target_names = names
        self.loss, self.delta = loss, delta
        self.configure_models()
        self.configure_losses()
        self.configure_metrics()

    @property
    def num_outputs(self) -> int:
        """Number of targets."""
        return len(self.target_names)

    def configure_models(self) -> None:
        """Create the head, which includes the loss and the targets' scale."""
        self.head = NumberHead(
            self.backbone.num_features, len(self.target_names), self.loss, self.delta
        )

    def configure_metrics(self) -> None:
        """Create the errors of all targets, and mean losses."""
        self.val_errors, self.test_errors = (NumberErrors(self.target_names) for _ in range(2))
        self.val_loss, self.test_loss = MeanLoss(), MeanLoss()

    @classmethod
    def logged_metrics(cls, options: Mapping[str, Any]) -> list[str]:
        """List the losses and metrics that the task logs; ``*`` stands for names of targets."""
        names = ["loss", "nmae", *OF_TARGETS, *(f"{name}/*" for name in OF_TARGETS)]
        return ["train/loss", *(f"{part}/{name}" for part in ("val", "test") for name in names)]

    def setup(self, stage: str) -> None:
        """Check that head and data have the same targets, and take their scale for training."""
        data = self.data()
        self.check_data(data)
        # Trained weights have the scale that they were trained with.
        if stage != "fit" or self.weights_given:
            return
        mean, std = getattr(data, "target_mean", None), getattr(data, "target_std", None)
        if mean is None or std is None:
            rank_zero_info(
                "the data have no target_mean and target_std: their numbers are taken to be "
                "standardised"
            )
            return
        self.head.set_scale(torch.tensor(mean), torch.tensor(std))

    def check_data(self, data: Any) -> None:
        """Check that the data have the head's targets, in the same order.

        Args:
            data: data module, or ``None`` for a task without one.

        Raises:
            ConfigError: the names differ, or the data have classes or points instead.
        """
        check_targets(data, "numbers")
        kinds = ("class_names", "num_classes", "num_points")
        found = getattr(data, "target_names", None)
        if found is None and any(hasattr(data, name) for name in kinds):
            raise ConfigError(
                f"RegressionTask needs numbers, which {type(data).__name__} does not have; give "
                "data such as ImageNumbers, or ClassificationTask or LandmarkTask"
            )
        if found is not None and list(found) != self.target_names:
            raise ConfigError(
                f"the head predicts {', '.join(self.target_names)}, the data have "
                f"{', '.join(found)}; give data.targets {','.join(self.target_names)}, or train a "
                "head for the data's (target_names)"
            )

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Compute the loss of a batch: ``image`` ``(B, 3, H, W)``, ``numbers`` ``(B, T)``."""
        found = self(batch["image"])
        loss = self.head.loss(found, batch["numbers"])
        loss = self.whole_loss(loss, batch["image"], found)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """Compute the squared difference of two outputs ``(B, T)``, standardised as the targets."""
        return self.head.squared_distance(raw, taught)

    def lesson(
        self, networks: Sequence[BaseTask], runs: Sequence[Sequence[nn.Module]]
    ) -> nn.Module:
        """Build the network that computes the teachers' mean output, in the targets' units.

        Args:
            networks: tasks of all networks of all teachers.
            runs: for each teacher its networks, which map this task's images to outputs.

        Raises:
            ConfigError: a teacher predicts other targets than this task.
        """
        for each in networks:
            names = each.target_names if isinstance(each, RegressionTask) else []
            if names != self.target_names:
                raise ConfigError(
                    f"a teacher predicts {', '.join(names)}, the task "
                    f"{', '.join(self.target_names)}; give teachers of the same targets, or set "
                    "their teach: features"
                )
        return super().lesson(networks, runs)

    def averages_probabilities(self) -> bool:
        """Whether ensembles average probabilities: never; they average numbers."""
        return False

    def describe_outputs(self) -> str:
        """Describe the properties of the output that must agree in an ensemble."""
        return f"{super().describe_outputs()}, targets {', '.join(self.target_names)}"

    def fold(self) -> nn.Module:
        """Build the ordinary network with its head that computes what ``forward`` computes.

        The targets' scale becomes part of a linear layer, which may be timm's classifier.
        """
        if self.ensemble is not None:
            return super().fold()
        return self.backbone.fold(self.head.as_linear())

    def predict_step(self, batch: dict[str, Any], batch_idx: int = 0) -> Tensor:
        """Predict numbers ``(B, T)`` in the targets' units."""
        return self.mean_output(batch["image"])

    def absolute_errors(self, batch: dict[str, Any]) -> Tensor:
        """Absolute errors ``(B,)`` in standard deviations, averaged over an image's known targets.

        Args:
            batch: normalised batch with ``image`` and ``numbers``.
        """
        return self.head.absolute_errors(self.predict_step(batch), batch["numbers"])

    def on_validation_epoch_start(self) -> None:
        """Give the metrics the targets' scale, which a checkpoint may have brought."""
        self.val_errors.set_scale(self.head.target_std)

    def on_test_epoch_start(self) -> None:
        """Give the metrics the targets' scale, which a checkpoint may have brought."""
        self.test_errors.set_scale(self.head.target_std)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the validation metrics; return the predicted ``numbers`` ``(B, T)``."""
        return self._evaluate(batch, "val", self.val_errors, self.val_loss)

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Update the test metrics; return the predicted ``numbers`` ``(B, T)``."""
        return self._evaluate(batch, "test", self.test_errors, self.test_loss)

    def _evaluate(
        self, batch: dict[str, Any], stage: str, errors: NumberErrors, loss: MeanLoss
    ) -> dict[str, Tensor]:
        found = self.predict_step(batch)
        errors.update(found, batch["numbers"])
        # Batches differ in how many numbers they have, by which their losses are weighted.
        loss.update(self.head.loss(found, batch["numbers"]), int((~batch["numbers"].isnan()).sum()))
        self.log(f"{stage}/loss", loss, batch_size=len(found))
        return {"numbers": found}

    def on_validation_epoch_end(self) -> None:
        """Log the validation metrics over all processes."""
        self._log_errors("val", self.val_errors)

    def on_test_epoch_end(self) -> None:
        """Log the test metrics over all processes."""
        self._log_errors("test", self.test_errors)

    def _log_errors(self, part: str, errors: NumberErrors) -> None:
        values = errors.compute()
        self.log_dict({f"{part}/{name}": value for name, value in values.items()})
        errors.reset()
