"""Check the user's callbacks for conflicts with a run, other options and each other."""

from __future__ import annotations

import importlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    Callback,
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelPruning,
    ModelSummary,
    OnExceptionCheckpoint,
    ProgressBar,
    SpikeDetection,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.model_helpers import is_overridden

from zoo_lightning.callbacks.averaged_weights import AveragedWeights
from zoo_lightning.callbacks.checkpoints import LastCheckpoint, LastValidation, MovedRun
from zoo_lightning.callbacks.finite_numbers import FiniteNumbers
from zoo_lightning.callbacks.gates import GateEMA, GateLog, ZooWarnings
from zoo_lightning.callbacks.gradient_norms import GradientNorms
from zoo_lightning.callbacks.training_compute import TrainingCompute
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.logged_metrics import better_mode, check_logged, logged_names
from zoo_lightning.tasks import BaseTask, PPOTask

UNFIT: dict[type[Callback], str] = {
    StochasticWeightAveraging: (
        "its average exists only after the last validation and would be in no checkpoint; leave it "
        "out and set average_weights: true"
    ),
    WeightAveraging: (
        "a run would test other weights than those that were validated and saved; leave it out and "
        "set average_weights: true"
    ),
    LearningRateFinder: (
        "the run would train with a rate that its configuration does not show; leave it out and "
        "choose model.lr with compare --tune or sweep"
    ),
    BatchSizeFinder: (
        "the order of the data and the length of the training belong to one batch size; leave it "
        "out and set data.batch_size"
    ),
    BaseFinetuning: (
        "the learning rate schedule is made for the parameters that train from the first step; "
        "leave it out, and start the head from the data with model.head_init: probe"
    ),
    ModelPruning: (
        "kernels are computed from those of the sources, which it would prune one by one; leave it "
        "out and prune the exported network"
    ),
    GradientAccumulationScheduler: (
        "the learning rate schedule and a budget count steps of one and the same number of "
        "batches; leave it out and set trainer.accumulate_grad_batches"
    ),
    OnExceptionCheckpoint: (
        "a new training would resume from what it, or another run, left in its folder; leave it "
        "out: a run saves checkpoints/last.ckpt at every validation and when it is stopped"
    ),
    SpikeDetection: (
        "it ends a training in order to leave batches out of the next one, which loaders here do "
        "not; leave it out: on_nonfinite stops before a step that is not finite"
    ),
}
"""Callback classes, including subclasses, that conflict with a run, and the reasons."""

BROUGHT: dict[type[Callback], str] = {
    GateEMA: "the task brings it with model.gate_momentum",
    GateLog: "the task brings it",
    ZooWarnings: "the task brings it",
    TrainingCompute: "every run has it",
    MovedRun: "every run has it",
    LastValidation: "every run has it",
    LastCheckpoint: "every run has it",
    SaveConfigCallback: "every run has one that writes config.yaml",
}
"""Callbacks that every run has, which a second one would undo or repeat."""

SINGLE: dict[type[Callback], str] = {
    ProgressBar: "progress bars",
    Timer: "timers",
    ModelSummary: "model summaries",
    FiniteNumbers: "checks of finite numbers",
    GradientNorms: "logs of gradient norms",
    WeightAveraging: "averages of the weights",
}
"""Kinds of callbacks of which a run takes only one, with the plural for messages."""

LOGGING = (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor)
"""Callbacks that only log."""

KNOWN_MODULES = ("lightning.", "pytorch_lightning.", "zoo_lightning.")
"""Modules whose callbacks log only declared names."""

UNMONITORED = ("charts/episodic_return", "charts/episodic_length")
"""Metrics that are sent to loggers only and cannot be monitored."""

FIXED_NAME = re.compile(r"[^{}]+")
"""Pattern of a checkpoint's file name without a placeholder."""


def given_callbacks(described: Any) -> list[Callback]:
    """Build the user's callbacks from parsed options.

    Args:
        described: parsed ``trainer.callbacks``: one callback, a list or ``None``.

    Raises:
        ConfigError: a callback refuses its own options.
    """
    if not described:
        return []
    parser = LightningArgumentParser()
    parser.add_argument("--callback", type=Callback)
    found = []
    for each in described if isinstance(described, list) else [described]:
        config = parser.get_defaults()
        config.callback = each
        try:
            found.append(parser.instantiate(config).callback)
        except Exception as error:  # whatever a constructor of anybody's raises
            raise _refused_by_itself(each, error) from error
    return found


def _refused_by_itself(described: Any, error: BaseException) -> ConfigError:
    """Return the message of a callback's own constructor, without that of jsonargparse."""
    first = error
    while following := first.__cause__ or first.__context__:
        first = following
    name = str(getattr(described, "class_path", described)).rpartition(".")[2]
    said = " ".join(str(first).split()) or type(first).__name__
    return ConfigError(f"trainer.callbacks {name} refuses its options: {said}")


def task_class(described: Any) -> type[BaseTask]:
    """Import the task class of parsed options.

    Args:
        described: parsed ``model``, with the full ``class_path``.
    """
    module, _, name = described.class_path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def check_callbacks(callbacks: Sequence[Callback]) -> None:
    """Refuse callbacks that a run would undo, or that contradict each other.

    Args:
        callbacks: the user's callbacks.

    Raises:
        ConfigError: a callback conflicts; the message names its class, the reason and what to use
            instead.
    """
    for each in callbacks:
        for kind, reason in UNFIT.items():
            if isinstance(each, kind) and not isinstance(each, AveragedWeights):
                raise ConfigError(f"trainer.callbacks {type(each).__name__}: {reason}")
        for kind, reason in BROUGHT.items():
            if isinstance(each, kind):
                raise ConfigError(
                    f"trainer.callbacks {type(each).__name__}: {reason}; leave it out"
                )
    for kind, name in SINGLE.items():
        found = [type(each).__name__ for each in callbacks if isinstance(each, kind)]
        if len(found) > 1:
            raise ConfigError(
                f"trainer.callbacks has {len(found)} {name} ({', '.join(found)}), and a run takes "
                "one; leave the others out"
            )
    keys = Counter(
        each.state_key for each in callbacks if is_overridden("state_dict", each, parent=Callback)
    )
    for key, count in keys.items():
        if count > 1:
            raise ConfigError(
                f"trainer.callbacks has {count} alike, {key}: checkpoints cannot tell their states "
                "apart; leave the others out, or give them another monitor or interval"
            )
    check_monitors(callbacks)


def check_fit_callbacks(
    callbacks: Sequence[Callback],
    options: Any,
    run_dir: Path | None,
    judged: bool = False,
    several: bool = False,
) -> None:
    """Refuse callbacks that contradict other options of a training, before data are read.

    Args:
        callbacks: the user's callbacks.
        options: parsed options of ``fit``.
        run_dir: run folder; ``None`` if it is not yet chosen.
        judged: whether the run is compared with others by the task's own metric.
        several: whether the options are for several runs.

    Raises:
        ConfigError: a callback conflicts; the message names its class, the reason and what to do
            instead.
    """
    check_callbacks(callbacks)
    trainer, task = options.trainer, task_class(options.model)
    has = {kind: any(isinstance(each, kind) for each in callbacks) for kind in SINGLE}
    if has[Timer] and trainer.max_time is not None:
        raise ConfigError(
            f"trainer.max_time {trainer.max_time} beside a Timer in trainer.callbacks: the run has "
            "one of them; leave the other out"
        )
    if has[ProgressBar] and trainer.enable_progress_bar is False:
        raise ConfigError(
            "trainer.enable_progress_bar false, and trainer.callbacks has a progress bar; leave "
            "one of them out"
        )
    averages = options.average_weights or has[WeightAveraging]
    names = logged_names(task, options.model.init_args, options)
    check_logged_monitors(callbacks, names)
    for each in callbacks:
        if isinstance(each, LOGGING) and trainer.logger is False:
            raise ConfigError(
                f"trainer.callbacks {type(each).__name__} logs, and trainer.logger false leaves "
                "nothing to log to; leave one of them out"
            )
        if isinstance(each, ModelCheckpoint):
            _check_keeper(each, run_dir, averages, several or judged)
        if issubclass(task, PPOTask):
            _check_for_policies(each)
    choosing = [each for each in callbacks if isinstance(each, ModelCheckpoint) and each.monitor]
    if judged and choosing and choosing[0].monitor != task.monitor:
        raise ConfigError(
            f"{type(choosing[0]).__name__} keeps the best by {choosing[0].monitor}, and runs of "
            f"this command are compared by {task.monitor}: set monitor: {task.monitor}"
        )
    if len(choosing) > 1:
        rank_zero_info(
            f"note          the run's best checkpoint is that by {choosing[0].monitor}, the first "
            f"of {len(choosing)} callbacks that keep one"
        )


def _check_keeper(
    keeper: ModelCheckpoint, run_dir: Path | None, averages: bool, several: bool
) -> None:
    """Refuse a ``ModelCheckpoint`` whose files could not be found, trusted or resumed from."""
    name = f"trainer.callbacks {type(keeper).__name__}"
    elsewhere = keeper.dirpath is not None and not _inside(str(keeper.dirpath), run_dir)
    if elsewhere and (keeper.monitor or several):
        where = f"the run folder {run_dir}" if run_dir else "the run folder, which has no name yet"
        raise ConfigError(
            f"{name}: dirpath {keeper.dirpath} is not in {where}, by which a run and its "
            "checkpoints are found, also when it is moved; leave dirpath out"
        )
    never = not (keeper._every_n_train_steps or keeper._every_n_epochs)
    never = never and keeper._train_time_interval is None
    if keeper.save_top_k == 0 and (keeper.monitor or not keeper.save_last):
        raise ConfigError(
            f"{name}: save_top_k 0 keeps no {'best checkpoint' if keeper.monitor else 'checkpoint'}"
            "; leave it out, or leave the callback out"
        )
    if never and not keeper.save_on_exception:
        raise ConfigError(
            f"{name}: every_n_epochs and every_n_train_steps are 0, so it saves nothing; give one "
            "of them, or leave the callback out"
        )
    if keeper.save_weights_only and (keeper.monitor or keeper.save_last or averages):
        raise ConfigError(
            f"{name}: save_weights_only true, but "
            + (
                "averaged weights are put into whole checkpoints only"
                if averages
                else "a run is resumed from its best and its last checkpoint"
            )
            + "; leave it out (export and predict take whole checkpoints, too)"
        )
    stem = keeper.filename if FIXED_NAME.fullmatch(keeper.filename or "") else None
    if stem == keeper.CHECKPOINT_NAME_LAST:
        raise ConfigError(
            f"{name}: filename {stem!r} is that of the checkpoint from which a run is resumed, "
            "which every run saves; give another"
        )
    if stem == "best" and (keeper.monitor is None or keeper.save_top_k != 1):
        raise ConfigError(
            f"{name}: filename 'best' is for the one best checkpoint of a run; give another, or a "
            "monitor and save_top_k 1"
        )
    if keeper.monitor and keeper._save_on_train_epoch_end and _of_validation(keeper.monitor):
        raise ConfigError(
            f"{name}: save_on_train_epoch_end true saves other weights than those that "
            f"{keeper.monitor} is of; leave it out"
        )
    for option in ("every_n_train_steps", "train_time_interval"):
        given = getattr(keeper, f"_{option}")
        if keeper.monitor and given and _of_validation(keeper.monitor):
            raise ConfigError(
                f"{name}: {option} saves other weights than those that {keeper.monitor} is of; "
                "leave one of them out: with a monitor every validation is looked at"
            )


def _inside(dirpath: str, run_dir: Path | None) -> bool:
    return run_dir is not None and Path(dirpath).resolve().is_relative_to(run_dir.resolve())


def _of_validation(monitor: str) -> bool:
    return monitor.startswith("val/")


def check_logged_monitors(callbacks: Sequence[Callback], logged: list[str] | None) -> None:
    """Refuse a monitor that is not logged or is ``train/loss``.

    Args:
        callbacks: the user's callbacks.
        logged: names that the run logs; ``None`` if they are unknown.

    Raises:
        ConfigError: a monitor is refused; the message names suitable metrics.
    """
    if not all(type(each).__module__.startswith(KNOWN_MODULES) for each in callbacks):
        return  # a callback of the user's own may log anything
    for each in callbacks:
        name = getattr(each, "monitor", None)
        if not isinstance(each, (EarlyStopping, ModelCheckpoint)) or not name:
            continue
        place = f"trainer.callbacks {type(each).__name__}: monitor {name}"
        if name in UNMONITORED:
            raise ConfigError(
                f"{place} is logged where games end, and cannot be monitored; monitor "
                "val/episodic_return"
            )
        check_logged(name, logged, place)
        if logged is not None and name == "train/loss":
            raise ConfigError(
                f"{place} is that of a single batch each time; monitor a metric of the validation, "
                "such as val/loss"
            )


def _check_for_policies(each: Callback) -> None:
    """Refuse callbacks that wait for the end of epochs: a policy trains for a single one."""
    found = ""
    if isinstance(each, EarlyStopping) and each._check_on_train_epoch_end:
        found = "check_on_train_epoch_end true"
    elif isinstance(each, Timer) and each._interval == "epoch":
        found = "interval epoch"
    elif isinstance(each, ModelCheckpoint) and each._every_n_epochs > 1:
        found = f"every_n_epochs {each._every_n_epochs}"
    if found:
        raise ConfigError(
            f"trainer.callbacks {type(each).__name__}: {found}, but the training of a policy is "
            "one epoch; leave it out"
        )


def check_monitors(callbacks: Sequence[Callback]) -> None:
    """Check the ``mode`` of monitoring callbacks against the metric's direction.

    Args:
        callbacks: the user's callbacks.

    Raises:
        ConfigError: ``min`` for a metric that is better if higher, or the other way round.
    """
    for each in callbacks:
        if not isinstance(each, (EarlyStopping, ModelCheckpoint)) or not each.monitor:
            continue
        mode = better_mode(each.monitor)
        if mode is not None and each.mode != mode:
            better = "higher" if mode == "max" else "lower"
            raise ConfigError(
                f"{type(each).__name__} has mode {each.mode!r} for {each.monitor}, which is better "
                f"where it is {better}: set mode: {mode}"
            )
