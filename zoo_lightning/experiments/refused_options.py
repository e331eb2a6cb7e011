"""Check Trainer options that a run cannot use, before sources or data are read."""

from __future__ import annotations

import inspect
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.accelerators import CUDAAccelerator, MPSAccelerator
from lightning.pytorch.callbacks import Callback, Timer
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.refused_callbacks import (
    check_fit_callbacks,
    given_callbacks,
    task_class,
)
from zoo_lightning.experiments.strategies import check_strategy_option, check_sync
from zoo_lightning.runs.length import check_length_options
from zoo_lightning.sources.normalisation import statistics
from zoo_lightning.tasks import BaseTask, PPOTask
from zoo_lightning.tasks.classification import check_not_both
from zoo_lightning.tasks.compatibility import FROM_DATA, OF_IMAGES
from zoo_lightning.tasks.ppo import check_length

SAMPLER = "--trainer.use_distributed_sampler"

UNDONE = {
    "overfit_batches": (
        "the order of the data and their variations belong to the position in training, which it "
        "would replace; leave it out, and train on few images with --data.train_fraction or "
        "--trainer.limit_train_batches"
    ),
    "barebones": (
        "a run logs, saves checkpoints and reports progress, which it would turn off; leave it out"
    ),
    "reload_dataloaders_every_n_epochs": (
        "a reloaded loader would begin with the first epoch's order and variations again; leave it "
        "out: every epoch has its own by itself"
    ),
}
"""Trainer options that conflict with a run, and what to do instead."""

PRECISIONS = ("32", "32-true", "16", "16-mixed", "bf16", "bf16-mixed")
"""Trainer precisions in which images, targets and weights stay float32."""

LEAST = {
    "accumulate_grad_batches": 1,
    "gradient_clip_val": 0,
    "log_every_n_steps": 0,
    "limit_train_batches": 0,
    "limit_val_batches": 0,
    "limit_test_batches": 0,
    "limit_predict_batches": 0,
    "min_steps": 0,
    "min_epochs": 0,
}
"""Least values of numeric Trainer options, whose types have no range."""

FIT_ONLY = ("max_steps", "max_epochs", "limit_train_batches")
"""Trainer options that leave nothing to train if they are 0."""

OBJECTS = ("callbacks", "logger", "plugins", "strategy", "profiler")
"""Trainer options that may be objects, which are built later."""


def check_fit(
    options: Any,
    arguments: Sequence[str],
    run_dir: Path | None,
    judged: bool = False,
    several: bool = False,
) -> list[Callback]:
    """Refuse options of a training that cannot work, before sources or data are read.

    Args:
        options: parsed options of ``fit``.
        arguments: words of the command line.
        run_dir: run folder; ``None`` if it is not yet chosen.
        judged: whether the run is compared with others by the task's own metric.
        several: whether the options are for several runs.

    Returns:
        The user's callbacks.

    Raises:
        ConfigError: naming the option and what to do instead.
    """
    callbacks = given_callbacks(options.trainer.callbacks)
    check_trainer_options(options.trainer, arguments)
    check_length_options(options, arguments)
    check_training(options)
    check_fit_callbacks(callbacks, options, run_dir, judged, several)
    return callbacks


def check_trainer_options(options: Any, arguments: Sequence[str]) -> None:
    """Refuse Trainer options that would have no effect, or fail later.

    Args:
        options: parsed options of the Trainer.
        arguments: words of the command line; they show whether an option with its default value was
            given.

    Raises:
        ConfigError: naming the option and what to use instead.
    """
    if options.default_root_dir is not None:
        raise ConfigError(
            f"trainer.default_root_dir {options.default_root_dir}: all that a run writes goes to "
            "its run folder; leave it out and give --run_dir"
        )
    if options.enable_checkpointing is False and not options.fast_dev_run:
        raise ConfigError(
            "trainer.enable_checkpointing false: a run saves its best and its last checkpoint, "
            "from which it is tested and resumed; leave it out, or try a few steps without "
            "checkpoints with --trainer.fast_dev_run"
        )
    kinds = {
        "gpu": (CUDAAccelerator, MPSAccelerator),
        "cuda": (CUDAAccelerator,),
        "mps": (MPSAccelerator,),
    }.get(options.accelerator, ())
    if kinds and not any(kind.is_available() for kind in kinds):
        raise ConfigError(
            f"trainer.accelerator {options.accelerator}: torch finds none on this machine; use "
            "auto, which takes what there is, or install a torch that is made for it"
        )
    for name, reason in UNDONE.items():
        if options.get(name):
            raise ConfigError(f"trainer.{name} {options[name]}: {reason}")
    given = any(word.partition("=")[0] == SAMPLER for word in arguments)
    if given and options.use_distributed_sampler:
        raise ConfigError(
            f"{SAMPLER} true: the data's own loaders divide the samples among processes, and a "
            "second division would leave some out; leave it out"
        )
    precision = options.precision
    if precision is not None and str(precision) not in PRECISIONS:
        raise ConfigError(
            f"trainer.precision {precision}: the Trainer would convert the network and not the "
            f"images, which the data give as float32; expected one of {', '.join(PRECISIONS)}"
        )
    for name, least in LEAST.items():
        if options[name] is not None and options[name] < least:
            raise ConfigError(f"trainer.{name} must be at least {least}, got {options[name]}")
    try:
        Timer(options.max_time)
    except (MisconfigurationException, TypeError, ValueError) as error:
        raise ConfigError(
            f"trainer.max_time {options.max_time}: expected days, hours, minutes and seconds as "
            "DD:HH:MM:SS"
        ) from error
    check_strategy_option(options.strategy)
    check_sync(options.sync_batchnorm, options.accelerator)
    check_trainer_takes(options)


def check_trainer_takes(options: Any) -> None:
    """Refuse what the Trainer itself refuses, by building a temporary Trainer.

    Args:
        options: parsed options of the Trainer.

    Raises:
        ConfigError: with the Trainer's own message.
    """
    given = vars(options)
    simple = {n: v for n, v in given.items() if n not in OBJECTS or isinstance(v, str)}
    simple |= {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    simple["enable_checkpointing"] = False
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)  # the Trainer that is used logs all of it again
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            Trainer(**simple)
    except REFUSALS as error:
        raise refusal(error) from error
    finally:
        logger.setLevel(level)


REFUSALS = (MisconfigurationException, TypeError, ValueError, RuntimeError, ImportError)
"""Exceptions that the Trainer raises for options that it refuses."""


def refusal(error: BaseException) -> ConfigError:
    """Convert an exception of the Trainer to an error of one line."""
    return ConfigError(f"the Trainer refuses its options: {' '.join(str(error).split())}")


def check_training(options: Any) -> None:
    """Refuse options that leave nothing to train or test, or that contradict each other.

    Args:
        options: parsed options of ``fit``.

    Raises:
        ConfigError: naming the option.
    """
    trainer = options.trainer
    for name in FIT_ONLY:
        if trainer[name] == 0:
            raise ConfigError(
                f"trainer.{name} 0: nothing would be trained; leave it out, or take validate, test "
                "or predict"
            )
    for what in ("steps", "epochs"):
        least, most = trainer[f"min_{what}"], trainer[f"max_{what}"]
        if least and most not in (None, -1) and least > most:
            raise ConfigError(
                f"trainer.min_{what} {least} is more than trainer.max_{what} {most}; leave one of "
                "them out"
            )
    # Before an informed start is computed; the task checks it again for users of Python.
    model, data = (options[name].get("init_args") or {} for name in ("model", "data"))
    check_not_both(model.get("class_weights"), data.get("balanced"))
    if options.run_test and not trainer.fast_dev_run:
        check_tests(trainer)
    if issubclass(task_class(options.model), PPOTask):
        _check_policy(trainer)


def check_tests(trainer: Any) -> None:
    """Refuse a test without any batch.

    Args:
        trainer: parsed options of the Trainer.

    Raises:
        ConfigError: ``limit_test_batches`` is 0.
    """
    if trainer.limit_test_batches == 0:
        raise ConfigError(
            "trainer.limit_test_batches 0: a test of nothing has no figures; leave it out, and to "
            "leave the test data alone give --run_test false"
        )


def _check_policy(trainer: Any) -> None:
    """Refuse options that PPO, with optimizer steps of its own in one epoch, does not use."""
    if trainer.gradient_clip_val:
        raise ConfigError(
            f"trainer.gradient_clip_val {trainer.gradient_clip_val}: a policy's gradients are "
            "clipped by model.max_grad_norm; set that"
        )
    if (trainer.accumulate_grad_batches or 1) != 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches {trainer.accumulate_grad_batches}: a batch is a "
            "rollout, which model.num_minibatches divides; set that"
        )
    if (trainer.check_val_every_n_epoch or 1) != 1:
        raise ConfigError(
            f"trainer.check_val_every_n_epoch {trainer.check_val_every_n_epoch}: the training of a "
            "policy is one epoch; set trainer.val_check_interval, in rollouts"
        )
    for name in ("min_steps", "min_epochs"):
        if trainer[name]:
            raise ConfigError(
                f"trainer.{name} {trainer[name]}: the length of a training on games is "
                "data.total_steps; leave it out"
            )
    if not trainer.fast_dev_run:
        check_length(trainer)


def check_limits(trainer: Trainer, data: LightningDataModule, stages: Sequence[str]) -> None:
    """Refuse fractional batch limits that leave no batch, before training.

    Args:
        trainer: Trainer with its limits.
        data: data module, set up for the stages.
        stages: stages to check, some of ``train``, ``val`` and ``test``.

    Raises:
        ConfigError: naming the option and the smallest fraction that leaves a batch.
    """
    for stage in stages:
        limit = getattr(trainer, f"limit_{stage}_batches")
        if not isinstance(limit, float) or limit == 0:
            continue
        batches = len(getattr(data, f"{stage}_dataloader")()) // trainer.world_size
        if batches and limit * batches < 1:
            raise ConfigError(
                f"trainer.limit_{stage}_batches {limit:g} of {batches} batches is less than one; "
                f"give at least {1 / batches:.3g}, or a number of batches"
            )


def check_from_data(
    options: Any, arguments: Sequence[str], task: BaseTask, data: LightningDataModule
) -> None:
    """Refuse a number of classes, points or actions, or a normalisation, other than the data's.

    Args:
        options: parsed options of the model.
        arguments: words of the command line; they show whether a default value was given
            explicitly.
        task: task built from the options.
        data: data module that the number is taken from.

    Raises:
        ConfigError: naming the option and both numbers.
    """
    given = options.init_args
    defaults = inspect.signature(type(task)).parameters
    for name in FROM_DATA:
        typed = any(re.match(rf"--model\.(init_args\.)?{name}\b", word) for word in arguments)
        if name not in given or not (typed or given[name] != defaults[name].default):
            continue
        ours = getattr(data, name, given[name])
        if given[name] != ours:
            raise ConfigError(
                f"model.{name} is {given[name]}, but the data have {ours}; leave it out, for the "
                "number comes from the data, or give other data"
            )
    backbone = given.backbone.init_args
    for name in OF_IMAGES:
        ours = statistics(getattr(data, name, None))
        if ours and backbone.get(name) is not None and statistics(backbone[name]) != ours:
            raise ConfigError(
                f"model.backbone.{name} is {backbone[name]}, but the data's images have "
                f"{list(ours)}; leave it out, for it comes from the data, or give "
                f"data.{name}"
            )
