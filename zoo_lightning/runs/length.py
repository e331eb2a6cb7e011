"""Length of a training, from the experiment, the data's size or a budget; peak memory."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningDataModule

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.backbone import Headed
from zoo_lightning.nn.multiply_adds import step_multiply_adds
from zoo_lightning.tasks import BaseTask, PPOTask

Scale = Literal["short", "default", "long"]

FACTORS: dict[str, float] = {"short": 0.25, "default": 1.0, "long": 4.0}
"""Factor of an experiment's length for each value of ``--length``."""

FIXED = ("--trainer.max_steps", "--trainer.max_epochs")
"""Options that replace the experiment's length."""


@runtime_checkable
class SizedImages(Protocol):
    """Protocol of image data modules whose size is known after ``setup("fit")``."""

    batch_size: int
    image_size: int
    train_set: Sized


@dataclass
class LengthFromData:
    """Length of a training from the number of training images, with minimum and maximum.

    Args:
        epochs: passes over the training images, above 0.
        min_steps: minimum number of optimiser steps, for small data sets.
        max_steps: maximum number of optimiser steps, for large data sets.
        validations: number of evenly spaced validations, at least 1, if
            ``trainer.val_check_interval`` is not set.
    """

    epochs: float
    min_steps: int
    max_steps: int
    validations: int = 8

    def __post_init__(self) -> None:
        if self.epochs <= 0 or self.validations < 1 or not 1 <= self.min_steps <= self.max_steps:
            raise ConfigError(
                "length_from_data needs epochs above 0, at least 1 validation, and min_steps from "
                f"1 to max_steps; got {vars(self)}"
            )

    def steps(self, batches: int) -> int:
        """Number of optimiser steps for data of ``batches`` optimiser steps per epoch."""
        return min(max(math.ceil(self.epochs * batches), self.min_steps), self.max_steps)


@dataclass(frozen=True)
class Length:
    """Resolved length of a training.

    Attributes:
        steps: number of optimiser steps.
        val_check_interval: value for the Trainer's option: batches between validations, or a
            fraction of an epoch.
        line: description of the length, which a run prints.
        unit: multiply-adds of one ordinary network trained for the experiment's length, the unit
            of budgets; ``None`` without a budget.
    """

    steps: int
    val_check_interval: int | float | None
    line: str
    unit: int | None = None


def check_length_options(options: Any, arguments: Sequence[str]) -> None:
    """Refuse contradictory lengths before any data are read.

    Args:
        options: parsed options of ``fit``.
        arguments: words of the command line.

    Raises:
        ConfigError: two options contradict each other; the message names both.
    """
    if options.budget is not None and not 0 < options.budget < math.inf:
        raise ConfigError(f"budget must be a finite number above 0, got {options.budget}")
    if not 0 < options.stop_after <= 1:
        raise ConfigError(
            "stop_after is the fraction of the steps after which a run ends: expected a number "
            f"above 0, up to 1, got {options.stop_after:g}"
        )
    fixed = next((w for w in arguments if w.partition("=")[0] in FIXED), None)
    if fixed and options.length != "default":
        raise ConfigError(
            f"--length {options.length} multiplies the experiment's length, and {fixed} sets "
            "another one; give one of them"
        )
    game = options.model.class_path.rpartition(".")[2] == PPOTask.__name__
    if game and (options.budget is not None or options.length != "default"):
        raise ConfigError(
            "--length and --budget count optimizer steps over images; set data.total_steps, the "
            "length of a policy's training"
        )
    if game and options.stop_after != 1:
        raise ConfigError(
            "--stop_after counts optimizer steps over images; a policy's training can be stopped "
            "at any time (Ctrl-C), and resumed"
        )


def resolve_length(
    options: Any, task: BaseTask, data: LightningDataModule, spent: int = 0
) -> Length | None:
    """Compute the length of a training from the experiment, ``--length`` and ``--budget``.

    The experiment's length is ``trainer.max_steps`` or ``trainer.max_epochs`` or, if neither is
    set, ``length_from_data``. ``--length`` multiplies it. A budget limits the multiply-adds of the
    training steps, in units of one ordinary network trained for that length: the cost of an
    informed start is subtracted, and the rest is divided by the cost of a step of this method.

    Args:
        options: parsed options of ``fit``.
        task: task to be trained.
        data: data module of this package; it is set up for ``fit`` if its size is needed.
        spent: multiply-adds of the informed start.

    Returns:
        The length; ``None`` if the Trainer's own options set it.

    Raises:
        ConfigError: the experiment has no length to multiply, or the budget does not pay for a
            single step after the informed start.
        DataError: the data cannot be read.
    """
    trainer = options.trainer
    from_data = None if options.length_from_data is None else _from_data(options)
    fixed, by_epochs = _limits(trainer)
    scale, budget = FACTORS[options.length], options.budget
    own = from_data is not None and not fixed and not by_epochs
    # The experiment's number of validations also holds for a length that the user set.
    given = trainer.val_check_interval is not None or (trainer.check_val_every_n_epoch or 1) > 1
    spread = not by_epochs and not given
    if not own and not (from_data and spread) and scale == 1 and budget is None:
        return None
    usual, unit = experiment_steps(options, data), None
    batches, micro = _batches(trainer, data), trainer.accumulate_grad_batches or 1
    steps = usual
    if budget is not None:
        shape = _batch_shape(task, data)
        plain, each, once = _costs(task, shape, data)
        unit = usual * plain * micro
        steps = math.floor((budget * unit - spent - once) / (each * micro))
        if steps < 1:
            parts = {"the informed start alone has": spent, "the teachers' features have": once}
            before = [f"{what} cost {n / plain / micro:.0f}" for what, n in parts.items() if n]
            reasons = f", and {' and '.join(before)}" if before else ""
            least = math.ceil(100 * (spent + once + each * micro) / unit) / 100
            raise ConfigError(
                f"budget {budget:g} pays for {budget * usual:.2g} steps of one network"
                f"{reasons}; give this training a budget of at least {least:g}"
            )
    interval = trainer.val_check_interval
    if from_data and spread:
        interval = max(math.ceil(steps * micro / from_data.validations), 1)
    elif isinstance(interval, int):  # the same number of validations in a longer training
        interval = max(round(interval * scale * steps / usual), 1)
    return Length(steps, interval, _describe(steps, usual, batches, micro, budget), unit)


def experiment_steps(options: Any, data: LightningDataModule) -> int:
    """Number of optimiser steps of the experiment's length, multiplied by ``--length``.

    Args:
        options: parsed options of ``fit``.
        data: data module; it is set up for ``fit``.

    Raises:
        ConfigError: the experiment has no length.
        DataError: the data cannot be read.
    """
    trainer = options.trainer
    fixed, by_epochs = _limits(trainer)
    if not (fixed or by_epochs or options.length_from_data is not None):
        raise ConfigError(
            "--length and --budget multiply the experiment's length, and it has none; set "
            "trainer.max_steps, trainer.max_epochs or length_from_data"
        )
    data.prepare_data()
    data.setup("fit")
    each_epoch = math.ceil(_batches(trainer, data) / (trainer.accumulate_grad_batches or 1))
    if not fixed and not by_epochs:
        steps = _from_data(options).steps(each_epoch)
    else:
        limits = [trainer.max_steps] if fixed else []
        limits += [trainer.max_epochs * each_epoch] if by_epochs else []
        steps = min(limits)
    return max(round(steps * FACTORS[options.length]), 1)


def _limits(trainer: Any) -> tuple[bool, bool]:
    """Whether the Trainer's options limit the steps, and whether they limit the epochs."""
    return trainer.max_steps not in (None, -1), trainer.max_epochs not in (None, -1)


def _from_data(options: Any) -> LengthFromData:
    return LengthFromData(**vars(options.length_from_data))


def _batches(trainer: Any, data: LightningDataModule) -> int:
    """Batches in an epoch of each process."""
    # Without a Trainer the data count one process only.
    found = max(len(data.train_dataloader()) // _processes(trainer), 1)
    limit = trainer.limit_train_batches
    if limit is None:
        return found
    return min(found, limit) if isinstance(limit, int) else max(int(found * limit), 1)


def _processes(trainer: Any) -> int:
    """Number of processes that the Trainer's options ask for, on all nodes."""
    devices = trainer.devices
    if devices in ("auto", "-1", -1, None):
        on_gpus = trainer.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        here = torch.cuda.device_count() if on_gpus else 1
    elif isinstance(devices, (list, tuple)):
        here = len(devices)
    elif isinstance(devices, str) and not devices.isdigit():
        here = len([word for word in devices.split(",") if word.strip()])
    else:
        here = int(devices)
    return max(here, 1) * max(trainer.num_nodes or 1, 1)


def _batch_shape(task: BaseTask, data: LightningDataModule) -> tuple[int, int, int, int]:
    if not isinstance(data, SizedImages):
        raise ConfigError(
            f"--budget needs data with batch_size, image_size and train_set, which "
            f"{type(data).__name__} has not; set trainer.max_steps instead"
        )
    batch = min(data.batch_size, len(data.train_set))
    return batch, task.backbone.architecture.in_chans, data.image_size, data.image_size


def _costs(
    task: BaseTask, shape: tuple[int, ...], data: LightningDataModule
) -> tuple[int, int, int]:
    """Multiply-adds of a step of the ordinary network, and of the task with its teachers.

    Returns:
        Multiply-adds of a step of the ordinary network, of a step of the task, and of what the
        teachers compute before the first step.
    """
    architecture = task.backbone.architecture
    ordinary = Headed(architecture, architecture.build(), copy.deepcopy(task.head))
    plain = step_multiply_adds(ordinary, shape)
    prepared = copy.deepcopy(task)
    prepared.backbone.prepare()
    each = step_multiply_adds(prepared, shape)
    teachers, once = task.teacher_multiply_adds(shape, data)
    return plain, each + teachers, once


def _describe(steps: int, usual: int, batches: int, micro: int, budget: float | None) -> str:
    epochs = steps * micro / batches
    line = f"length        {steps:,} steps: {epochs:.3g} epochs of {batches} batches"
    if budget is None:
        return f"{line} (--length short for a quarter of the default, long for four times)"
    return f"{line}, for a budget of {budget:g} trainings of one network of {usual:,} steps"


def peak_memory_mb(device: torch.device) -> int | None:
    """Peak memory of this process, in megabytes (MiB).

    Args:
        device: device of the run; for CUDA, GPU memory is measured, otherwise that of the process.

    Returns:
        Megabytes, or ``None`` if the operating system does not report them.
    """
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20)
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10))
