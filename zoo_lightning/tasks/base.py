"""What all tasks share: optimisation, checkpoints that can be trusted to fit, and their callbacks.

A concrete task adds a head, a loss and metrics. No mathematics of the method is here: that is in
``layers`` and ``backbone``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import lightning.pytorch as pl
import timm.optim
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from zoo_lightning import __version__
from zoo_lightning.backbone import Backbone, ZooBackbone
from zoo_lightning.callbacks.gate_ema import GateEMA
from zoo_lightning.callbacks.gate_log import GateLog
from zoo_lightning.callbacks.zoo_warnings import ZooWarnings
from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.head_start import solve_head
from zoo_lightning.run_folder import describe_ensemble, networks_in
from zoo_lightning.shares import check_choice
from zoo_lightning.tasks.parts import part_of
from zoo_lightning.tasks.same_options import (
    check_class_names,
    data_differences,
    differences,
    trained_classes,
)
from zoo_lightning.tasks.schedules import Schedule, depends_on_length, make_scheduler

if TYPE_CHECKING:
    from zoo_lightning.methods.ensembles import Ensemble

HeadInit = Literal["random", "probe"]


class BaseTask(pl.LightningModule):
    """A backbone in training.

    Args:
        backbone: the network without a head.
        lr: learning rate of the backbone's kernels, its highest value over the schedule.
        optimizer: any optimiser that timm knows by name; ``sgd`` is SGD with Nesterov momentum.
        momentum: of optimisers that have one.
        weight_decay: of kernels and head matrices.
        decay_all: decay gates, alignment, norm layers and biases as well, as the authors' code
            does; alignment then decays towards zero, not towards the identity.
        schedule: ``onecycle`` (rise over the first ``warmup``, then cosine to zero), ``cosine``,
            ``linear`` (falling to zero), ``step`` (a tenth at each of ``milestones``) or
            ``constant``.
        warmup: share of the training in which ``onecycle`` rises, in (0, 1).
        milestones: where ``step`` drops the rate: optimiser steps, or below 1 shares of the
            training.
        head_lr_factor: the head's learning rate as a multiple of ``lr``.
        gate_lr_factor: the gates' likewise.
        alignment_lr_factor: the alignments' likewise.
        gate_momentum: ``μ`` of the gates' moving average, in (0, 1].
        teachers: trained runs whose joint output is imitated, see
            :mod:`zoo_lightning.methods.distillation`; ``None`` for none.
        teacher_weight: share of the imitation in the loss, in [0, 1].
        temperature: of classes, by which teachers' and student's scores are divided, above 0.
        head_init: ``random``, or ``probe`` to solve a linear head on pooled features for the
            training data before the first step, see :mod:`zoo_lightning.head_start`.
    """

    monitor: ClassVar[str]
    """Logged validation metric by which the best checkpoint is chosen."""
    monitor_mode: ClassVar[Literal["min", "max"]]
    head: nn.Module

    def __init__(
        self,
        backbone: Backbone,
        lr: float = 2e-3,
        optimizer: str = "adamw",
        momentum: float = 0.9,
        weight_decay: float = 0.05,
        decay_all: bool = False,
        schedule: Schedule = "onecycle",
        warmup: float = 0.25,
        milestones: list[float] | None = None,
        head_lr_factor: float = 1.0,
        gate_lr_factor: float = 1.0,
        alignment_lr_factor: float = 1.0,
        gate_momentum: float = 0.1,
        head_init: HeadInit = "random",
        teachers: list[str] | None = None,
        teacher_weight: float = 0.5,
        temperature: float = 2.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone"])
        known = timm.optim.list_optimizers()
        if optimizer not in known:
            raise ConfigError(
                f"unknown optimizer {optimizer!r}; expected a name of timm.optim.list_optimizers()."
                f"{nearest(optimizer, known)}"
            )
        if lr < 0:
            raise ConfigError(f"lr must be at least 0, got {lr}")
        if not 0 < warmup < 1:
            raise ConfigError(f"warmup must lie in (0, 1), got {warmup}")
        if schedule == "step" and not milestones:
            raise ConfigError("schedule 'step' needs milestones: the steps at which the rate drops")
        if not all(place > 0 for place in milestones or []):
            raise ConfigError(f"milestones must be above 0, got {milestones}")
        if not 0 <= teacher_weight <= 1:
            raise ConfigError(f"teacher_weight must lie in [0, 1], got {teacher_weight}")
        if temperature <= 0:
            raise ConfigError(f"temperature must be above 0, got {temperature}")
        check_choice("head_init", head_init, get_args(HeadInit))
        # Plain values, so that a checkpoint holds all it takes to build the task again.
        described = {"class_path": type(backbone).__name__, "init_args": backbone.config}
        self.hparams["backbone"] = described
        self.backbone = backbone
        self.start_cost: dict[str, float] = {}
        """``seconds`` and ``multiply_adds`` of the search for the start, if there was one."""
        self.weights_given = False
        """Whether a trained model's weights were put in, head included."""
        self.teacher: Callable[[BaseTask, Tensor, Tensor, Tensor], Tensor] | None = None
        self.ensemble: Ensemble | None = None
        """The networks whose mean prediction this task gives, if it is of several."""
        self.made_by: str | None = None
        """Method by which the model was made of finished runs, if it was not trained."""

    def configure_callbacks(self) -> list[Callback]:
        """Gates' moving average, log and warnings, so that no Trainer can be without them."""
        if not isinstance(self.backbone, ZooBackbone) or self.ensemble is not None:
            return []
        return [GateEMA(self.hparams["gate_momentum"]), GateLog(), ZooWarnings()]

    def on_fit_start(self) -> None:
        """Read the teachers, and check that a head that is to be solved for can be.

        Raises:
            ConfigError: teachers cannot be read; the head is not linear, or there are no data; the
                task is of an ensemble.
        """
        if self.ensemble is not None:
            raise ConfigError(
                f"an ensemble of {len(self.networks())} networks cannot be trained; train one of "
                "its networks"
            )
        self.backbone.prepare()
        if self.hparams["teachers"]:
            if type(self).imitation is BaseTask.imitation:
                raise ConfigError(
                    f"{type(self).__name__} cannot learn from teachers; leave them out"
                )
            # Imports the tasks, which import this.
            from zoo_lightning.methods.distillation import Teacher

            options = self.hparams
            self.teacher = Teacher(options["teachers"], options["teacher_weight"], self.device)
        if self.hparams["head_init"] != "probe":
            return
        if not isinstance(self.head, nn.Linear):
            raise ConfigError(
                "head_init 'probe' solves a linear head on pooled features; this task's is a "
                f"{type(self.head).__name__}: set head_init: random"
            )
        if getattr(self.trainer, "datamodule", None) is None:
            raise ConfigError(
                "head_init 'probe' looks at the training data and needs a data module; give "
                "trainer.fit one, or set head_init: random"
            )

    def on_train_start(self) -> None:
        """Let a new head start from the linear probe, if that is wanted."""
        going_on = self.trainer.ckpt_path is not None or self.weights_given
        if self.hparams["head_init"] != "probe" or going_on:
            return
        smoothing = self.hparams.get("label_smoothing", 0.0)
        data, outputs = self.trainer.datamodule, self.head.out_features
        solved = solve_head(self.backbone, data, outputs, self.device, smoothing)
        # Devices round differently; all processes must begin alike.
        self.start_head(*self.trainer.strategy.broadcast(solved))

    @torch.no_grad()
    def start_head(self, weight: Tensor, bias: Tensor) -> None:
        """Put a solved head in: ``(outputs, F)`` and ``(outputs,)``."""
        self.head.weight.copy_(weight)
        self.head.bias.copy_(bias)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tell the backbone how far the training is."""
        steps = self._total_steps()
        self.backbone.progress = self.global_step / steps if steps else 1.0

    def whole_loss(self, loss: Tensor, images: Tensor, raw: Tensor) -> Tensor:
        """A loss with what teachers and backbone add to it.

        Args:
            loss: of the batch.
            images: of the batch, normalised.
            raw: this task's output for them.
        """
        if self.teacher is not None:
            loss = self.teacher(self, loss, images, raw)
        penalty = self.backbone.penalty()
        return loss if penalty is None else loss + penalty

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """Loss of an output against a teacher's."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """Head's output for normalised images ``(B, C, H, W)``, of an ensemble the joint one."""
        if self.ensemble is not None:
            return self.ensemble(images)
        # Channels last is the faster layout of convolutions on CPUs and on tensor cores.
        images = images.contiguous(memory_format=torch.channels_last)
        return self.head(self.backbone(images))

    def facts(self) -> dict[str, Any]:
        """What ``summary.json`` has of this task besides what it has of all."""
        return {}

    def fold(self) -> nn.Module:
        """Ordinary network with the head, which computes what this task's ``forward`` computes.

        Of an ensemble the folded networks of all members, and their joint output.
        """
        return self.backbone.fold(self.head) if self.ensemble is None else self.ensemble.fold()

    @property
    def method(self) -> str:
        """Name of the method that made the model, as ``summary.json`` has it."""
        return self.made_by or self.backbone.method

    def networks(self) -> list[BaseTask]:
        """The tasks of single networks that the prediction is made of: usually this one alone."""
        return [self] if self.ensemble is None else list(self.ensemble.members)

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of the backbones' parameters: ``training``, and ``folded`` into ordinary ones."""
        counts = [task.backbone.parameter_counts() for task in self.networks()]
        return {key: sum(count[key] for count in counts) for key in counts[0]}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trainable parameters by part and by whether they decay, with their learning rates."""
        options = self.hparams
        factors = {
            "head": options["head_lr_factor"],
            "gates": options["gate_lr_factor"],
            "alignment": options["alignment_lr_factor"],
            "backbone": 1.0,
        }
        groups: dict[tuple[str, bool], dict[str, Any]] = {}
        for name, parameter in self.named_parameters():
            if not parameter.requires_grad:
                continue
            part = part_of(name)
            # Kernels of a zoo have one dimension more than ordinary ones; so have its biases.
            matrix = parameter.dim() > 1 and not name.endswith("bias")
            decays = options["decay_all"] or (matrix and part in ("head", "backbone"))
            group = groups.setdefault(
                (part, decays),
                {
                    "name": f"{part}{'' if decays else '_no_decay'}",
                    "params": [],
                    "lr": options["lr"] * factors[part],
                    "weight_decay": options["weight_decay"] if decays else 0.0,
                },
            )
            group["params"].append(parameter)
        return list(groups.values())

    def configure_optimizers(self) -> Any:
        """Optimiser over the parts, and its schedule, stepped once per optimiser step."""
        options = self.hparams
        optimizer = timm.optim.create_optimizer_v2(
            self.parameter_groups(),
            opt=options["optimizer"],
            lr=options["lr"],
            weight_decay=0.0,
            momentum=options["momentum"],
            **self.optimizer_options(options["optimizer"]),
        )
        steps = self._total_steps() if depends_on_length(options) else None
        scheduler = make_scheduler(optimizer, options, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def optimizer_options(self, name: str) -> dict[str, Any]:
        """Further options of an optimiser by its name."""
        return {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what is needed to build the task again and to know whether it may go on."""
        data = getattr(self.trainer, "datamodule", None)
        checkpoint["zoo_lightning"] = {
            "task": type(self).__name__,
            "version": __version__,
            "total_steps": self._total_steps(),
            # For those who use the model without its data.
            "data": data.facts() if hasattr(data, "facts") else {},
            # For those who go on with the run.
            "data_options": training_options(data),
            **({"start_cost": dict(self.start_cost)} if self.start_cost else {}),
        }

    def _total_steps(self) -> int | None:
        """Optimiser steps of the whole training, ``None`` if it has no end."""
        steps = self.trainer.estimated_stepping_batches
        return int(steps) if math.isfinite(steps) else None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not belong to this task and configuration.

        With an ensemble's checkpoint, a Trainer that validates, tests or predicts does so with the
        ensemble, whatever the configuration's backbone is.

        Raises:
            ConfigError: naming each option, the checkpoint's value and the one given, or the
                first class whose name differs; an ensemble's checkpoint for a training.
        """
        ours = checkpoint.get("zoo_lightning")
        if ours is None:
            raise ConfigError(
                "the checkpoint was not written by zoo_lightning; to start from foreign weights "
                "name the file as a source"
            )
        fitting = self._trainer is not None and self.trainer.training
        members = networks_in(checkpoint)
        if members and (fitting or self._trainer is None):
            raise ConfigError(
                f"the checkpoint is {describe_ensemble(checkpoint)}, and a training starts from "
                "one network: give the run of one of them"
            )
        found = dict((members[0] if members else checkpoint)["hyper_parameters"])
        wanted = dict(self.hparams)
        if members:  # each brings its own
            found["backbone"] = wanted["backbone"]
        found["task"], wanted["task"] = ours["task"], type(self).__name__
        different = differences(found, wanted, everything=fitting)
        if fitting and depends_on_length(self.hparams):
            steps = self._total_steps()
            if steps != ours["total_steps"]:
                different.append(
                    f"length of the {self.hparams['schedule']} schedule is {ours['total_steps']} "
                    f"steps in the checkpoint, {steps} here"
                )
        if fitting:
            options = training_options(getattr(self.trainer, "datamodule", None))
            different += data_differences(ours.get("data_options") or {}, options)
        if different:
            mend = (
                "going on with a run takes its own options; to start anew from its weights use "
                "--init_from instead of --ckpt_path"
                if fitting
                else "give the experiment and options it was trained with: --config "
                "RUN_DIR/config.yaml has them"
            )
            raise ConfigError(f"the checkpoint has other options: {'; '.join(different)}. {mend}")
        data = self._trainer and getattr(self.trainer, "datamodule", None)
        check_class_names(trained_classes(ours), data)
        if members:
            # Imports the tasks, which import this.
            from zoo_lightning.methods.ensembles import join
            from zoo_lightning.tasks.loading import build_networks

            join(self, build_networks(checkpoint, "the checkpoint"))
            # What the first network knows of the data, such as mirror images, is known to all.
            checkpoint["state_dict"] = self.state_dict() | members[0]["state_dict"]


def training_options(data: Any) -> dict[str, Any]:
    """What data say of what is trained on; nothing of data modules that do not say it."""
    return data.training_options() if hasattr(data, "training_options") else {}


def check_classes(num_classes: int, data: Any) -> None:
    """Check that a head has as many classes as the data, if these say how many they have.

    Raises:
        ConfigError: they have other ones.
    """
    found = getattr(data, "num_classes", num_classes)
    if found != num_classes:
        raise ConfigError(
            f"the head has {num_classes} classes, the data have {found}; give data of "
            f"{num_classes} classes or train a head of {found} (num_classes)"
        )
