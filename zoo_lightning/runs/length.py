"""How long a training lasts: from the experiment, from the size of the data, or from a budget."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule

from zoo_lightning.backbone import Headed
from zoo_lightning.errors import ConfigError
from zoo_lightning.layers.multiply_adds import counting, step_multiply_adds
from zoo_lightning.tasks import BaseTask, PPOTask

Scale = Literal["short", "default", "long"]

FACTORS: dict[str, float] = {"short": 0.25, "default": 1.0, "long": 4.0}
"""By which ``--length`` multiplies an experiment's own length."""

FIXED = ("--trainer.max_steps", "--trainer.max_epochs")
"""Words of the command line that set a length of the user's own."""


@dataclass
class LengthFromData:
    """Length of a training by the number of training images, with a floor and a ceiling.

    Args:
        epochs: passes over the training images, above 0.
        min_steps: fewest optimizer steps; a few images have to be seen more often.
        max_steps: most optimizer steps; of many images each is seen less often.
        validations: evenly spaced over the training, at least 1, where
            ``trainer.val_check_interval`` does not say how often.
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
        """Optimizer steps for data of so many batches an epoch."""
        return min(max(math.ceil(self.epochs * batches), self.min_steps), self.max_steps)


@dataclass(frozen=True)
class Length:
    """A training's length, resolved.

    Attributes:
        steps: optimizer steps.
        val_check_interval: batches between validations, or as the Trainer's option was.
        line: what a run prints of it.
        unit: multiply-adds of one ordinary network trained for the experiment's own length, in
            whose multiples a budget is given; ``None`` without a budget.
    """

    steps: int
    val_check_interval: int | float | None
    line: str
    unit: int | None = None


def check_length_options(options: Any, arguments: Sequence[str]) -> None:
    """Refuse lengths that contradict each other, before any data are read.

    Args:
        options: the parsed options of ``fit``.
        arguments: the words of the command line.

    Raises:
        ConfigError: naming both options.
    """
    if options.budget is not None and not options.budget > 0:
        raise ConfigError(f"budget must be above 0, got {options.budget}")
    fixed = next((w for w in arguments if w.partition("=")[0] in FIXED), None)
    if fixed and options.length != "default":
        raise ConfigError(
            f"--length {options.length} multiplies the experiment's length, and {fixed} sets "
            "another one; give one of them"
        )
    game = options.model.class_path.rpartition(".")[2] == PPOTask.__name__
    if game and (options.budget is not None or options.length != "default"):
        raise ConfigError(
            "--length and --budget count optimizer steps over images; the length of a policy's "
            "training is data.total_steps: set that"
        )


def resolve_length(
    options: Any, task: BaseTask, data: LightningDataModule, spent: int = 0
) -> Length | None:
    """Decide how long to train.

    The experiment's own length is ``trainer.max_steps`` or ``trainer.max_epochs``, or where neither
    is set ``length_from_data``. ``--length`` multiplies it. A budget then says what the run may
    cost in multiply-adds of training steps, in units of one ordinary network trained for that
    length: what a start has cost is subtracted, and the rest is divided by what a step of this
    method costs.

    Args:
        options: the parsed options of ``fit``.
        task: to be trained.
        data: of this package; set up for ``fit`` if its size matters.
        spent: multiply-adds that have gone into the start.

    Returns:
        ``None`` where the Trainer's own options say it all.

    Raises:
        ConfigError: there is no length to multiply, or a budget that the start has used up.
        DataError: as the data raise it.
    """
    trainer = options.trainer
    from_data = None if options.length_from_data is None else _from_data(options)
    fixed, by_epochs = _limits(trainer)
    scale, budget = FACTORS[options.length], options.budget
    own = from_data is not None and not fixed and not by_epochs
    # An experiment says how often to validate, also in a length of the user's own.
    said = trainer.val_check_interval is not None or (trainer.check_val_every_n_epoch or 1) > 1
    spread = from_data is not None and not by_epochs and not said
    if not own and not spread and scale == 1 and budget is None:
        return None
    usual, unit = usual_steps(options, data), None
    batches, micro = _batches(trainer, data), trainer.accumulate_grad_batches or 1
    steps = usual
    if budget is not None:
        shape = _batch_shape(task, data)
        plain, each = _costs(task, shape)
        unit = usual * plain * micro
        steps = math.floor((budget * unit - spent) / (each * micro))
        if steps < 1:
            start = (
                f", and the informed start alone has cost {spent / plain / micro:.0f}; give a "
                "larger budget, or gate_init and weights as numbers"
            )
            raise ConfigError(
                f"budget {budget:g} pays for {budget * usual:.2g} steps of one network"
                f"{start if spent else '; give a larger one'}"
            )
    interval = trainer.val_check_interval
    if spread:
        interval = max(math.ceil(steps * micro / from_data.validations), 1)
    elif isinstance(interval, int):  # so that longer trainings have as many validations
        interval = max(round(interval * scale * steps / usual), 1)
    return Length(steps, interval, _describe(steps, usual, batches, micro, budget), unit)


def usual_steps(options: Any, data: LightningDataModule) -> int:
    """Optimizer steps of one training of the experiment's length, times what ``--length`` says.

    Args:
        options: the parsed options of ``fit``.
        data: of this package; set up for ``fit`` here.

    Raises:
        ConfigError: the experiment has no length.
        DataError: as the data raise it.
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
    """Whether the Trainer's options limit the steps, and the epochs."""
    return trainer.max_steps not in (None, -1), trainer.max_epochs not in (None, -1)


def _from_data(options: Any) -> LengthFromData:
    return LengthFromData(**vars(options.length_from_data))


def _batches(trainer: Any, data: LightningDataModule) -> int:
    """Batches an epoch of each process."""
    # Before there is a Trainer the data know of one process only.
    found = max(len(data.train_dataloader()) // _processes(trainer), 1)
    limit = trainer.limit_train_batches
    if limit is None:
        return found
    return min(found, limit) if isinstance(limit, int) else max(int(found * limit), 1)


def _processes(trainer: Any) -> int:
    """Processes that the Trainer's options ask for, on all nodes."""
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
    batch = min(data.batch_size, len(data.train_set))
    return batch, task.backbone.architecture.in_chans, data.image_size, data.image_size


def _costs(task: BaseTask, shape: tuple[int, ...]) -> tuple[int, int]:
    """Multiply-adds of one step: of the ordinary network, and of the task with its teachers."""
    architecture = task.backbone.architecture
    ordinary = Headed(architecture, architecture.build(), copy.deepcopy(task.head))
    plain = step_multiply_adds(ordinary, shape)
    prepared = copy.deepcopy(task)
    prepared.backbone.prepare()
    each = step_multiply_adds(prepared, shape)
    if teachers := task.hparams["teachers"]:
        # Teachers are of the student's kind: they predict the same classes or points.
        with torch.no_grad(), counting() as forward:
            ordinary(torch.zeros(shape))
        each += len(teachers) * forward.multiply_adds
    return plain, each


def _describe(steps: int, usual: int, batches: int, micro: int, budget: float | None) -> str:
    epochs = steps * micro / batches
    line = f"length        {steps:,} steps: {epochs:.3g} epochs of {batches} batches"
    if budget is None:
        return f"{line} (--length short for a quarter of the default, long for four times)"
    return f"{line}, for a budget of {budget:g} trainings of one network of {usual:,} steps"
