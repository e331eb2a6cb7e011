"""Base class of all tasks: optimisation, teachers, folding, ensembles, checkpoints.

A concrete task adds a head, a loss and metrics. The method itself is in ``nn`` and ``models``.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Literal, get_args

import lightning.pytorch as pl
import timm.optim
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from zoo_lightning import __version__
from zoo_lightning.callbacks.gates import GateEMA, GateLog, ZooWarnings
from zoo_lightning.callbacks.head_probe import HeadProbe
from zoo_lightning.callbacks.trainer_access import data_module
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments.option_names import present_names
from zoo_lightning.methods.distillation import Teacher
from zoo_lightning.methods.feature_transfer import (
    FeatureScales,
    FeatureTransfer,
    Kernels,
    View,
    is_cacheable,
)
from zoo_lightning.methods.joint_output import JointOutput, OfProbabilities, check_alike
from zoo_lightning.methods.teachers import (
    TaskInput,
    load_feature_teacher,
    load_output_teachers,
)
from zoo_lightning.models.architecture import is_vouched_for
from zoo_lightning.models.backbone import Backbone, ZooBackbone
from zoo_lightning.models.initialization import check_choice
from zoo_lightning.nn.multiply_adds import counting
from zoo_lightning.sources.own_runs import describe_ensemble, networks_in
from zoo_lightning.sources.teachers import TeacherSpec, parse_teachers
from zoo_lightning.tasks.building import build_networks
from zoo_lightning.tasks.compatibility import (
    check_class_names,
    check_options,
    check_resumed,
    check_value_range,
    trained_classes,
)
from zoo_lightning.tasks.memory import NormStatisticsKept, checkpoint_stages
from zoo_lightning.tasks.optimisation import (
    Schedule,
    choose_fused,
    depends_on_length,
    make_scheduler,
    parameter_groups,
)

HeadInit = Literal["random", "probe"]

ADDED_OPTIONS = ("feature_weight", "feature_kernels", "teacher_drop", "feature_view")
"""Options of every task that version 0.1 did not have."""


class BaseTask(pl.LightningModule):
    """Base class of tasks: a LightningModule of a backbone and a head, and their optimisation.

    The constructor of a concrete task stores its options and calls ``configure_models``,
    ``configure_losses`` and ``configure_metrics``.

    Args:
        backbone: network without a head; its features are the head's input.
        lr: learning rate of the backbone's kernels, at the schedule's maximum.
        optimizer: name of any optimiser in timm; ``sgd`` is SGD with Nesterov momentum.
        momentum: momentum of optimisers that have one.
        weight_decay: weight decay of kernels and head matrices.
        decay_all: decay gates, alignment, norm layers and biases as well, as the authors' code
            does; alignment then decays towards zero, not towards the identity.
        schedule: ``onecycle`` (rise over the first ``warmup``, then cosine to zero), ``cosine``,
            ``linear`` (falling to zero), ``step`` (a tenth at each of ``milestones``) or
            ``constant``.
        warmup: fraction of the training in which ``onecycle`` rises, in (0, 1).
        milestones: positions at which ``step`` drops the learning rate, in optimiser steps, or as
            fractions of the training if below 1.
        head_lr_factor: learning rate of the head as a multiple of ``lr``.
        gate_lr_factor: learning rate of the gates as a multiple of ``lr``.
        alignment_lr_factor: learning rate of the alignments as a multiple of ``lr``.
        gate_momentum: ``μ`` of the gates' moving average, in (0, 1].
        teachers: frozen networks to learn from, each given as sources are, or as a mapping that may
            also have ``architecture``, ``teach``, ``image_size`` and the keys of a preprocessing,
            see :mod:`zoo_lightning.sources.teachers`. The mean output of trained runs is distilled
            (:mod:`zoo_lightning.methods.distillation`), of all others features are followed
            (:mod:`zoo_lightning.methods.feature_transfer`). ``None`` for none.
        teacher_weight: weight of the distillation loss in the loss, in [0, 1].
        temperature: temperature of distillation, above 0, by which logits of teachers and student
            are divided.
        feature_weight: weight, at least 0, of the distance from the teachers' features.
        feature_kernels: ``joint`` to compare with all teachers' features together, ``each`` to
            compare with each teacher's.
        teacher_drop: with ``feature_kernels: each``, probability in [0, 1) of leaving a teacher out
            for an image; that from which the image differs most is always followed.
        feature_view: images that teachers of features see: the ``same`` augmented ones as the
            student, or ``plain`` ones without augmentation, whose features are computed once.
        head_init: ``random``, or ``probe`` to solve a linear head on pooled features of the
            training data before the first step, see :mod:`zoo_lightning.transfer.head_start`.
        compile: whether training runs the backbone through ``torch.compile``; evaluation does not.
        checkpoint_activations: whether to compute the activations of each of the backbone's stages
            again in the backward pass instead of storing them, as its
            ``set_grad_checkpointing`` does: less memory, one more forward pass.
        fused: whether the optimiser updates all weights in one fused operation; ``None`` does so on
            GPUs, where the optimiser has one and no gradients are scaled, as in ``16-mixed``.

    Raises:
        ConfigError: an option is outside its range, or the backbone or the optimiser lacks what an
            option asks for.
    """

    monitor: ClassVar[str]
    """Logged validation metric by which the best checkpoint is chosen."""
    monitor_mode: ClassVar[Literal["min", "max"]]
    """Whether a lower or a higher value of ``monitor`` is better."""
    backbone: Backbone
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
        teachers: list[str | dict[str, Any]] | None = None,
        teacher_weight: float = 0.5,
        temperature: float = 2.0,
        feature_weight: float = 10.0,
        feature_kernels: Kernels = "joint",
        teacher_drop: float = 0.0,
        feature_view: View = "same",
        compile: bool = False,
        checkpoint_activations: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone"])
        _check_optimizer(optimizer)
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
        _check_feature_options(feature_weight, feature_kernels, teacher_drop, feature_view)
        parse_teachers(teachers or [])
        check_choice("head_init", head_init, get_args(HeadInit))
        # Plain values, so that a checkpoint holds all it takes to build the task again.
        described = {"class_path": type(backbone).__name__, "init_args": backbone.config}
        self.hparams["backbone"] = described
        self.backbone = backbone
        self.compiled_backbone: Callable[[Tensor], Any] | None = None
        """The backbone as training runs it, if it is compiled; set at the start of ``fit``."""
        if checkpoint_activations:
            checkpoint_stages(backbone, compile)
        self.start_cost: dict[str, float] = {}
        """``seconds`` and ``multiply_adds`` of finding the initial weights, if any were spent."""
        self.experiment = ""
        """Name of the run's experiment, under which it is resumed; empty outside of ``fit``."""
        self.weights_given = False
        """Whether a trained model's weights were loaded, head included."""
        self.teacher: Teacher | None = None
        """Trained runs that this task distils, loaded at the start of ``fit``."""
        self.transfer: FeatureTransfer | None = None
        """Frozen networks whose features this task follows, loaded at the start of ``fit``."""
        self._features: Any = None
        self._index: Tensor | None = None
        self.ensemble: JointOutput | None = None
        """Networks whose mean prediction this task computes, if it is an ensemble."""
        self.from_checkpoint = False
        """Whether the task was built from a checkpoint, whose options are not the user's."""
        self.made_by: str | None = None
        """Method by which the model was made from finished runs, if it was not trained."""

    @classmethod
    def logged_metrics(cls, options: Mapping[str, Any]) -> list[str]:
        """List the metrics that the task logs, so that unknown monitors can be refused early.

        A subclass that logs other metrics than its parent overrides this; for one that has no such
        method itself, no metric is refused.

        Args:
            options: options of the task; those that are absent have their defaults.

        Returns:
            Names such as ``val/acc``, with ``*`` for what depends on the data.
        """
        raise NotImplementedError

    def configure_models(self) -> None:
        """Create the head."""

    def configure_losses(self) -> None:
        """Create what the training loss needs."""

    def configure_metrics(self) -> None:
        """Create the metrics of validation and test."""

    def configure_callbacks(self) -> list[Callback]:
        """Create the callbacks that every training of this task needs."""
        if self.ensemble is not None:
            return []
        callbacks: list[Callback] = []
        if isinstance(self.backbone, ZooBackbone):
            callbacks += [GateEMA(self.hparams["gate_momentum"]), GateLog(), ZooWarnings()]
        if self.hparams["head_init"] == "probe":
            smoothing = self.hparams.get("label_smoothing", 0.0)
            callbacks.append(HeadProbe(self.backbone, self.head, smoothing, self.weights_given))
        if self.hparams["teachers"]:
            callbacks.append(FeatureScales())
        return callbacks

    def configure_optimizers(self) -> Any:
        """Create the optimiser and its learning-rate schedule, stepped once per optimiser step."""
        options = self.hparams
        own = self.optimizer_options(options["optimizer"])
        precision = getattr(self._attached(), "precision_plugin", None)
        scaled = getattr(precision, "scaler", None) is not None
        fused = choose_fused(options["fused"], options["optimizer"], self.device.type, scaled)
        if fused is not None:
            own["fused"] = fused
        optimizer = timm.optim.create_optimizer_v2(
            parameter_groups(self.named_parameters(), options),
            opt=options["optimizer"],
            lr=options["lr"],
            weight_decay=0.0,
            momentum=options["momentum"],
            **own,
        )
        steps = self.total_steps() if depends_on_length(options) else None
        scheduler = make_scheduler(optimizer, options, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def optimizer_options(self, name: str) -> dict[str, Any]:
        """Return further keyword arguments of an optimiser, by its name."""
        return {}

    def total_steps(self) -> int | None:
        """Number of schedule steps in the whole training; ``None`` if it has no end."""
        steps = self.trainer.estimated_stepping_batches
        return int(steps) if math.isfinite(steps) else None

    def data(self) -> Any:
        """Data module in use, or ``None`` without one or without a Trainer."""
        trainer = self._attached()
        return None if trainer is None else data_module(trainer)

    def _attached(self) -> pl.Trainer | None:
        """Trainer that the task is attached to, or ``None``."""
        try:
            return self.trainer
        except RuntimeError:
            return None

    # Training

    def on_fit_start(self) -> None:
        """Load the teachers.

        Raises:
            ConfigError: teachers cannot be loaded, or the task predicts with an ensemble.
        """
        if self.ensemble is not None:
            raise ConfigError(
                f"an ensemble of {len(self.networks())} networks cannot be trained; train one of "
                "its networks"
            )
        self.backbone.prepare()
        if self.hparams["compile"]:
            # Fixed sizes: the planner chooses by them. A smaller last batch compiles once more.
            self.compiled_backbone = torch.compile(self._backbone_features, dynamic=False)
        self.load_teachers(self.data())
        if self.teacher is not None:
            self.teacher.model.to(self.device)
        if self.transfer is not None:
            self.transfer.to(self.device)

    def load_teachers(self, data: Any) -> None:
        """Load the teachers, unless they are loaded already.

        Args:
            data: data module, from whose normalisation the teachers' own inputs are computed; or
                ``None``.

        Raises:
            ConfigError: teachers cannot be loaded or do not fit the task.
            SourceError: a teacher's weights cannot be read.
        """
        specs = parse_teachers(self.hparams["teachers"] or [])
        if not specs or self.teacher is not None or self.transfer is not None:
            return
        if not self.learns_from_teachers():
            raise ConfigError(f"{type(self).__name__} cannot learn from teachers; leave them out")
        self._check_trust(specs)
        seen = TaskInput.of(data)
        outputs = [spec for spec in specs if spec.teaches_outputs()]
        if outputs:
            if type(self).imitation is BaseTask.imitation:
                raise ConfigError(
                    f"{type(self).__name__} cannot learn from the outputs of teachers; set their "
                    "teach: features, or leave them out"
                )
            model = self._load_output_teachers(outputs, seen)
            self.teacher = Teacher(model, self.hparams["teacher_weight"])
        frozen = [
            load_feature_teacher(spec, self.backbone.architecture, seen)
            for spec in specs
            if spec not in outputs
        ]
        if frozen:
            options = self.hparams
            if options["feature_view"] == "plain" and getattr(self, "mixing", None) is not None:
                raise ConfigError(
                    "feature_view plain has features of single images, and mixup or cutmix mix "
                    "them; set feature_view: same, or mixup and cutmix to 0"
                )
            self.transfer = FeatureTransfer(
                frozen,
                options["feature_weight"],
                options["feature_kernels"],
                options["teacher_drop"],
                options["feature_view"],
            )

    def _check_trust(self, specs: Sequence[TeacherSpec]) -> None:
        """Refuse to call functions that a checkpoint names as its teachers' architectures."""
        named = [spec.architecture for spec in specs if spec.architecture]
        for name in named if self.from_checkpoint else []:
            if not is_vouched_for(name):
                raise ConfigError(
                    f"a teacher's network is made by calling {name}, which the checkpoint names, "
                    "and a file that calls code can do anything. If you trust that function, name "
                    f"it: load_task(..., architecture={name!r})"
                )

    def learns_from_teachers(self) -> bool:
        """Whether the task's training uses teachers; policies' does not."""
        return True

    def _load_output_teachers(self, specs: Sequence[TeacherSpec], seen: TaskInput) -> nn.Module:
        """Load trained runs, each of one network or an ensemble, as one model."""

        def build(content: Mapping[str, Any], path: str) -> list[BaseTask]:
            kind = content["zoo_lightning"].get("task")
            if kind is not None and kind not in self._kinds():
                raise ConfigError(
                    f"the teacher {path} is of a task {kind!r}, this one is "
                    f"{type(self).__name__}; give teachers of this task, or set their teach: "
                    "features"
                )
            return build_networks(content, path, self._kinds())

        networks, runs = load_output_teachers(specs, build, seen)
        for each in networks:
            if each.num_outputs != self.num_outputs:
                raise ConfigError(
                    f"teachers give {each.num_outputs} outputs, the task has {self.num_outputs}; "
                    "give teachers of the same classes or points, or set their teach: features"
                )
        return self.lesson(networks, runs)

    def lesson(
        self, networks: Sequence[BaseTask], runs: Sequence[Sequence[nn.Module]]
    ) -> nn.Module:
        """Build the network that computes what this task imitates: the teachers' mean output.

        Args:
            networks: tasks of all networks of all teachers.
            runs: for each teacher its networks, which map this task's images to outputs.

        Raises:
            ConfigError: the outputs cannot be averaged.
        """
        check_alike(networks)
        first = networks[0]
        return first.joint([run[0] if len(run) == 1 else first.joint(run) for run in runs])

    @property
    def num_outputs(self) -> int | None:
        """Number of classes or points; ``None`` for other tasks."""
        return getattr(self, "num_classes", None) or getattr(self, "num_points", None)

    def teacher_runs(self) -> list[str]:
        """References of the trained runs among the teachers, whose training is part of the cost."""
        specs = parse_teachers(self.hparams["teachers"] or [])
        return [spec.source.weights for spec in specs if spec.teaches_outputs()]

    def teacher_multiply_adds(self, shape: Sequence[int], data: Any) -> tuple[int, int]:
        """Count the multiply-adds of the teachers' forward passes.

        Args:
            shape: shape ``(B, C, H, W)`` of a training batch.
            data: data module, set up for ``fit``.

        Returns:
            Multiply-adds in each step, and before the first one, for features that are cached.
        """
        self.load_teachers(data)
        images = torch.zeros(*shape)
        with torch.no_grad(), counting() as of_outputs:
            if self.teacher is not None:
                self.teacher.model(images)
        if self.transfer is None:
            return of_outputs.multiply_adds, 0
        with counting() as of_features:
            self.transfer.taught(images)
        features = of_features.multiply_adds
        if is_cacheable(self.transfer, data, self):
            return of_outputs.multiply_adds, features * len(data.train_set) // shape[0]
        return of_outputs.multiply_adds + features, 0

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the backbone's progress, the completed fraction of the training, and the batch."""
        steps = self.total_steps()
        self.backbone.progress = self.global_step / steps if steps else 1.0
        self._index = batch.get("index") if isinstance(batch, Mapping) else None

    def whole_loss(self, loss: Tensor, images: Tensor, raw: Tensor) -> Tensor:
        """Add to a loss what teachers teach, outputs and features, and the backbone's penalty.

        Args:
            loss: the task's loss for the batch.
            images: the batch's normalised images ``(B, C, H, W)``.
            raw: output of this task for these images.
        """
        if self.teacher is not None:
            loss = self.teacher(loss, images, raw, self.imitation)
        if self.transfer is not None:
            loss = loss + self.transfer.weight * self._feature_distance(self.transfer, images)
        penalty = self.backbone.penalty()
        return loss if penalty is None else loss + penalty

    def _feature_distance(self, transfer: FeatureTransfer, images: Tensor) -> Tensor:
        """Distance of the last forward pass's features from the teachers', a scalar."""
        features, self._features = pooled_features(self._features), None
        # As a resumed run draws them; the first image tells batches of one step apart.
        first = 0 if self._index is None else int(self._index[0])
        seed = getattr(self.data(), "seed", 0)
        generator = sample_generator(seed, self.global_step, -4 - first)
        taught = transfer.taught(images, self._index)
        with torch.autocast(images.device.type, enabled=False):
            distance = transfer.distance(features, taught, generator)
        self.log("train/feature_distance", distance)
        return distance

    def imitation(self, raw: Tensor, taught: Tensor) -> Tensor:
        """Compute the distillation loss of this task's output against a teacher's output."""
        raise NotImplementedError

    # Prediction

    def forward(self, images: Tensor) -> Any:
        """Compute the head's output for normalised images ``(B, C, H, W)``.

        A task that is an ensemble returns the networks' mean output.
        """
        if self.ensemble is not None:
            return self.ensemble(images)
        # Channels last is the faster layout of convolutions on CPUs and on tensor cores.
        images = images.contiguous(memory_format=torch.channels_last)
        compiled = self.compiled_backbone if self.training else None
        features = self.backbone(images) if compiled is None else compiled(images)
        if self.transfer is not None and self.training:
            self._features = features
        return self.head(features)

    def _backbone_features(self, images: Tensor) -> Any:
        return self.backbone(images)

    def on_before_backward(self, loss: Tensor) -> None:
        """Keep norm statistics as they are while activations are computed again."""
        if self.hparams["checkpoint_activations"]:
            self._norms_kept = NormStatisticsKept(self.backbone)

    def on_after_backward(self) -> None:
        """Let norm statistics follow again."""
        if self.hparams["checkpoint_activations"]:
            self._norms_kept.release()

    def fold(self) -> nn.Module:
        """Build the ordinary network with its head that computes what ``forward`` computes.

        For an ensemble, the result holds all folded networks and averages their outputs.
        """
        if self.ensemble is None:
            return self.backbone.fold(self.head)
        return self.joint([task.fold() for task in self.networks()]).eval()

    def mean_output(self, images: Tensor) -> Tensor:
        """Compute the output in float32, averaged over the crops of each image, if there are any.

        Args:
            images: normalised images ``(B, C, H, W)``, or crops of each ``(B, K, C, H, W)``, which
                are computed one after the other, so that they need no more memory.

        Returns:
            Output of the head, ``(B, ...)``.
        """
        if images.dim() == 4:
            return self(images).float()
        crops = images.unbind(dim=1)
        zero = torch.zeros((), device=images.device)
        return sum((self(crop).float() for crop in crops), zero) / len(crops)

    def joint(self, members: Sequence[nn.Module]) -> JointOutput:
        """Join networks with outputs of this task's kind into one with their mean output.

        Args:
            members: networks that map images to outputs.

        Raises:
            ConfigError: this kind of task has no ensembles.
        """
        return JointOutput(members, self.averages_probabilities())

    def averages_probabilities(self) -> OfProbabilities:
        """Whether ensembles of this task average probabilities rather than raw outputs, and which.

        Raises:
            ConfigError: this kind of task has no ensembles.
        """
        raise ConfigError(
            "models of classes, labels, landmarks, numbers and masks are averaged, not "
            f"{type(self).__name__}"
        )

    def describe_outputs(self) -> str:
        """Describe the properties of the output that must agree in an ensemble."""
        decode = getattr(self.head, "decode", None)
        return (
            f"{type(self).__name__} of {self.num_outputs} outputs by a {type(self.head).__name__}"
            f"{f' with decode: {decode}' if decode else ''}, in_chans: "
            f"{self.backbone.architecture.in_chans}"
        )

    def join(self, members: Sequence[BaseTask]) -> None:
        """Turn this task into an ensemble of several trained tasks.

        Args:
            members: trained tasks of this task's kind; the first one's backbone and head become
                this task's.

        Raises:
            ConfigError: no tasks, or tasks of different kinds.
        """
        self.ensemble = joint_output(members)
        self.backbone, self.head = members[0].backbone, members[0].head
        self.made_by = "ensemble"

    # What is known of the model

    @property
    def method(self) -> str:
        """Name of the transfer method that made the model, as in ``summary.json``."""
        return self.made_by or self.backbone.method

    def networks(self) -> list[BaseTask]:
        """Tasks of the single networks: an ensemble's members, otherwise this task alone."""
        if self.ensemble is None:
            return [self]
        return [member for member in self.ensemble.members if isinstance(member, BaseTask)]

    def parameter_counts(self) -> dict[str, int]:
        """Count the backbones' parameters: ``training``, and ``folded`` into ordinary networks."""
        counts = [task.backbone.parameter_counts() for task in self.networks()]
        return {key: sum(count[key] for count in counts) for key in counts[0]}

    def facts(self) -> dict[str, Any]:
        """Facts about this task for ``summary.json``."""
        return {} if self.transfer is None else {"feature_scales": self.transfer.mean_scales()}

    # Checkpoints

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add to a checkpoint what rebuilding the task and checking a resumption need."""
        data = self.data()
        checkpoint["zoo_lightning"] = {
            "task": type(self).__name__,
            "version": __version__,
            "total_steps": self.total_steps(),
            # For those who use the model without its data.
            "data": data.facts() if hasattr(data, "facts") else {},
            # For those who resume the run.
            "data_options": training_options(data),
            **({"start_cost": dict(self.start_cost)} if self.start_cost else {}),
            **({"experiment": self.experiment} if self.experiment else {}),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check that a checkpoint belongs to this task, its options and its data.

        With an ensemble's checkpoint, a Trainer that validates, tests or predicts does so with the
        ensemble, whatever the configuration's backbone is.

        Raises:
            ConfigError: options, class names or the value range differ (the message has the values
                in the checkpoint and those given), the file was not written by this package, or an
                ensemble's checkpoint is given for training.
        """
        ours = checkpoint.get("zoo_lightning")
        if ours is None:
            raise ConfigError(
                "the checkpoint was not written by zoo_lightning; to start from foreign weights "
                "name the file as a source"
            )
        trainer = self._attached()
        fitting = trainer is not None and trainer.training
        members = networks_in(checkpoint)
        if members and (fitting or trainer is None):
            raise ConfigError(
                f"the checkpoint is {describe_ensemble(checkpoint)}, and a training starts from "
                "one network: give the run of one of them"
            )
        found = dict((members[0] if members else checkpoint)["hyper_parameters"])
        # Options that an earlier version did not have are at their defaults.
        found = self._new_options() | present_names(type(self), found)
        wanted = dict(self.hparams)
        if members:  # each brings its own
            found["backbone"] = wanted["backbone"]
        found["task"], wanted["task"] = ours["task"], type(self).__name__
        data = self.data()
        if fitting:
            scheduled = depends_on_length(self.hparams)
            lengths = (ours["total_steps"], self.total_steps()) if scheduled else None
            before = present_names(type(data), ours.get("data_options") or {})
            options = before, training_options(data)
            check_resumed(found, wanted, lengths, options)
        else:
            check_options(found, wanted)
        check_class_names(trained_classes(ours), data)
        check_value_range(ours, data)
        if members:
            self.join(build_networks(checkpoint, "the checkpoint", self._kinds()))
            # What the first network knows of the data, such as mirror images, is known to all.
            checkpoint["state_dict"] = self.state_dict() | members[0]["state_dict"]

    def _new_options(self) -> dict[str, Any]:
        """Defaults of the options that checkpoints of earlier versions may lack."""
        parameters = inspect.signature(BaseTask.__init__).parameters
        return {name: parameters[name].default for name in ADDED_OPTIONS}

    def _kinds(self) -> dict[str, type[BaseTask]]:
        """Classes that the checkpoints of teachers and members may name: this task's own."""
        kinds = type(self).__mro__
        return {kind.__name__: kind for kind in kinds if issubclass(kind, BaseTask)}


def joint_output(tasks: Sequence[BaseTask]) -> JointOutput:
    """Join trained tasks of one kind into a network that computes their mean prediction.

    Args:
        tasks: tasks with the same classes or points; they are not copied.

    Raises:
        ConfigError: no tasks, or tasks of different kinds.
    """
    check_alike(tasks)
    return tasks[0].joint(tasks)


def pooled_features(features: Tensor | Sequence[Tensor]) -> Tensor:
    """Average features over positions, and take those of the last stage, ``(B, F)`` in float32.

    Args:
        features: output of a backbone: ``(B, F)``, tokens ``(B, N, F)``, maps ``(B, F, H, W)`` or
            a list of such.
    """
    last = features if isinstance(features, Tensor) else features[-1]
    places = {2: (), 3: (1,), 4: (2, 3)}[last.dim()]
    return (last.mean(dim=places) if places else last).float()


def training_options(data: Any) -> dict[str, Any]:
    """Options of a data module that determine training; empty if it does not list them."""
    return data.training_options() if hasattr(data, "training_options") else {}


def check_number_of_classes(num_classes: int) -> None:
    """Check that there are at least two classes.

    Raises:
        ConfigError: fewer than two classes.
    """
    if num_classes < 2:
        raise ConfigError(
            f"num_classes is {num_classes}, and with fewer than 2 classes there is nothing to tell "
            "apart; where the number comes from the data, add images of what is not of the one "
            "class as a class of their own"
        )


TASKS = {
    "a class for each image": "ClassificationTask",
    "several labels for each image": "MultiLabelTask",
    "a class for each pixel": "SegmentationTask",
    "numbers": "RegressionTask",
    "points": "LandmarkTask",
}
"""Tasks by the targets of which a data module says, as ``target_kind``, that it has them."""


def check_classes(num_classes: int, data: Any, kind: str | None = None) -> None:
    """Check that a head has as many classes as the data.

    Args:
        num_classes: number of the head's classes.
        data: data module; one without ``num_classes`` is not checked.
        kind: targets of the task, one of :data:`TASKS`; ``None`` for any but numbers.

    Raises:
        ConfigError: the numbers differ, or the data have other targets.
    """
    check_targets(data, kind)
    found = getattr(data, "num_classes", num_classes)
    if found != num_classes:
        raise ConfigError(
            f"the head has {num_classes} classes, the data have {found}; give data of "
            f"{num_classes} classes or train a head of {found} (num_classes)"
        )


def check_targets(data: Any, wanted: str | None) -> None:
    """Check that data have the kind of targets that a task learns.

    Args:
        data: data module, or ``None``; one that does not state its ``target_kind`` is refused only
            if it has ``target_names``, which those for ``RegressionTask`` have.
        wanted: targets of the task, one of :data:`TASKS`; ``None`` for any but numbers.

    Raises:
        ConfigError: the data have other targets.
    """
    numbers = "numbers" if getattr(data, "target_names", None) is not None else None
    found = getattr(data, "target_kind", numbers)
    if found in (None, wanted) or (wanted is None and found != "numbers"):
        return
    needed = f"the task needs {wanted or 'classes'}, and {type(data).__name__} has {found}"
    other = TASKS.get(found)
    raise ConfigError(f"{needed}; give {f'model {other}, or ' if other else ''}other data")


def _check_feature_options(weight: float, kernels: str, drop: float, view: str) -> None:
    if weight < 0:
        raise ConfigError(f"feature_weight must be at least 0, got {weight}")
    check_choice("feature_kernels", kernels, get_args(Kernels))
    check_choice("feature_view", view, get_args(View))
    if not 0 <= drop < 1:
        raise ConfigError(f"teacher_drop must lie in [0, 1), got {drop}")
    if drop and kernels == "joint":
        raise ConfigError(
            f"teacher_drop is {drop}, and feature_kernels joint has one kernel of all teachers; "
            "set feature_kernels: each, or teacher_drop: 0"
        )


def _check_optimizer(name: str) -> None:
    known = [str(each) for each in timm.optim.list_optimizers()]
    if name not in known:
        raise ConfigError(
            f"unknown optimizer {name!r}; expected a name of timm.optim.list_optimizers()."
            f"{nearest(name, known)}"
        )
