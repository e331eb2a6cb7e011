"""Callbacks that the command line adds to a run, and their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeGuard

from lightning.pytorch.callbacks import (
    Callback,
    ModelCheckpoint,
    ModelSummary,
    ProgressBar,
    Timer,
    WeightAveraging,
)
from lightning.pytorch.cli import LightningArgumentParser

from zoo_lightning.callbacks.averaged_weights import AveragedWeights
from zoo_lightning.callbacks.checkpoints import (
    LastCheckpoint,
    LastValidation,
    MovedRun,
    ValidatedWeights,
)
from zoo_lightning.callbacks.classification_files import ClassificationFiles
from zoo_lightning.callbacks.console import LayerSummary, StepProgress
from zoo_lightning.callbacks.finite_numbers import FiniteNumbers, Policy
from zoo_lightning.callbacks.gate_pictures import GatePictures
from zoo_lightning.callbacks.gradient_norms import GradientNorms
from zoo_lightning.callbacks.landmark_files import LandmarkFiles
from zoo_lightning.callbacks.mask_files import MaskFiles
from zoo_lightning.callbacks.multi_label_files import MultiLabelFiles
from zoo_lightning.callbacks.policy_files import PolicyFiles
from zoo_lightning.callbacks.regression_files import RegressionFiles
from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.refused_callbacks import KNOWN_MODULES, task_class
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.sources.own_runs import CHECKPOINTS, describe_ensemble
from zoo_lightning.tasks import (
    BaseTask,
    ClassificationTask,
    LandmarkTask,
    MultiLabelTask,
    PPOTask,
    RegressionTask,
    SegmentationTask,
)

FILE_CALLBACKS: dict[
    type[BaseTask],
    type[LandmarkFiles | ClassificationFiles | MaskFiles | MultiLabelFiles | RegressionFiles],
] = {
    LandmarkTask: LandmarkFiles,
    ClassificationTask: ClassificationFiles,
    MultiLabelTask: MultiLabelFiles,
    RegressionTask: RegressionFiles,
    SegmentationTask: MaskFiles,
}
"""Callback that writes tables and pictures, by task of images."""

Selection = Literal["auto", "best", "final"]

FINAL = "step"
"""Metric that selects the final weights: it grows, so the newest checkpoint is the best."""

FEW_IMAGES = 1000
"""Number of validation images below which the best of several validations is mostly luck: on 100
images, an accuracy of 90 % has a standard error of 3 points."""


def add_callback_options(parser: LightningArgumentParser) -> None:
    """Add options of the callbacks to a parser."""
    parser.add_argument(
        "--gradient_norms",
        type=bool,
        default=False,
        help="Log the gradient norm of the network and of each part in every logged step.",
    )
    parser.add_argument(
        "--pictures",
        type=bool,
        default=True,
        help="Draw pictures/ at validations and tests, which takes much of the time of short runs. "
        "Tables and metrics are written in any case.",
    )
    parser.add_argument(
        "--on_nonfinite",
        type=Policy,
        default="stop",
        help="What to do at NaN or infinity in loss or gradients: stop before the step, or skip it "
        "(skipped_steps counts them).",
    )
    parser.add_argument(
        "--average_weights",
        type=bool,
        default=False,
        help="Validate, test and save a moving average of the weights, over about the last quarter "
        "of the training so far.",
    )
    parser.add_argument(
        "--select",
        type=Selection,
        default="auto",
        help="Weights to keep in best.ckpt: those of the best validation, or the final ones. auto "
        f"keeps the final ones if weights are averaged and there are fewer than {FEW_IMAGES} "
        "validation images, else the best.",
    )


def resume_callback_options(
    options: Any, checkpoint: Mapping[str, Any], given: Sequence[Callback] = ()
) -> None:
    """Refuse to resume a run with other callback options if its weights depend on them.

    Args:
        options: options of ``fit``; ``select: auto`` is replaced by the run's selection.
        checkpoint: content of the checkpoint to resume from.
        given: the user's callbacks.

    Raises:
        ConfigError: ``average_weights``, ``select`` or the monitored metric differ from the run's,
            or the checkpoint was made from finished runs or has no training state.
    """
    made_by = checkpoint.get("zoo_lightning", {}).get("method")
    if ensemble := describe_ensemble(checkpoint):
        raise ConfigError(
            f"--ckpt_path: the checkpoint is {ensemble}, which were not trained together; give "
            "the run of one of them"
        )
    if made_by is not None:
        raise ConfigError(
            f"--ckpt_path: the checkpoint was made of finished runs (method {made_by}) and has no "
            "training to resume; train from its weights with --init_from"
        )
    if "optimizer_states" not in checkpoint:
        raise ConfigError(
            "--ckpt_path: the checkpoint has weights only, and no training state to resume from; "
            "give the run's checkpoints/last.ckpt, or start from the weights with --init_from"
        )
    states = checkpoint.get("callbacks", {})
    averaged = any(key.startswith(AveragedWeights.__qualname__) for key in states)
    before: dict[str, Any] = {"average_weights": averaged}
    keepers = [key for key, state in states.items() if _has_best(state)]
    choosing = [each.monitor for each in given if chooses_best(each)]
    if keepers and not choosing:
        final = any(f"'monitor': '{FINAL}'" in key for key in keepers)
        before["select"] = "final" if final else "best"
        if options.select == "auto":
            options.select = before["select"]
    averages = options.average_weights or _has(given, WeightAveraging)
    now = {"average_weights": averages, "select": options.select}
    for name, value in before.items():
        if now[name] != value:
            raise ConfigError(
                f"{name} is {now[name]}, and the checkpoint's run had {value}; resume a run "
                "with its own options, or start from its weights with --init_from"
            )
    ours = FINAL if options.select == "final" else task_class(options.model).monitor
    _check_same_best(states, choosing[0] if choosing else ours)


def _check_same_best(states: Mapping[str, Any], now: str | None) -> None:
    """Refuse to resume a run whose best checkpoint was kept by another metric."""
    before = {state["monitor"] for state in states.values() if _has_best(state)}
    if before and now not in before:
        raise ConfigError(
            f"--ckpt_path: the checkpoint's run kept its best by {', '.join(sorted(before))}, not "
            f"by {now}; resume a run with its own callbacks, or start from its weights with "
            "--init_from"
        )


def _has_best(state: Any) -> bool:
    """Whether a callback's state is that of a ``ModelCheckpoint``, or a subclass, with a metric."""
    return isinstance(state, Mapping) and "best_model_path" in state and bool(state["monitor"])


def run_callbacks(
    model: BaseTask, options: Any, run_dir: Path, given: Sequence[Callback], few: bool = False
) -> list[Callback]:
    """Create a run's callbacks for progress, time, files, pictures and checkpoints.

    Args:
        model: task to be trained.
        options: options of the subcommand.
        run_dir: run folder.
        given: the user's callbacks, each of which replaces the default of its kind.
        few: whether there are too few validation images to select the best checkpoint.
    """
    callbacks: list[Callback] = []
    trainer = options.trainer
    if trainer.enable_progress_bar is not False and not _has(given, ProgressBar):
        callbacks.append(StepProgress())
    if trainer.enable_model_summary is not False and not _has(given, ModelSummary):
        callbacks.append(LayerSummary())
    if options.gradient_norms and not _has(given, GradientNorms):
        callbacks.append(GradientNorms())
    if not _has(given, FiniteNumbers):
        callbacks.append(FiniteNumbers(options.on_nonfinite))
    if trainer.fast_dev_run:
        return callbacks
    if not _has(given, Timer):
        # Lightning leaves max_time to an existing timer.
        callbacks.append(Timer(trainer.max_time))
    callbacks += file_callbacks(model, run_dir, options.pictures)
    if options.pictures and isinstance(model.backbone, ZooBackbone):
        callbacks.append(GatePictures(str(run_dir)))
    if options.average_weights and not _has(given, WeightAveraging):
        callbacks.append(AveragedWeights())
    checkpoints = str(run_dir / CHECKPOINTS)
    if not any(map(chooses_best, given)):
        final = options.select == "final" or (
            options.select == "auto" and options.average_weights and few
        )
        callbacks.append(
            ModelCheckpoint(
                dirpath=checkpoints,
                filename="best",
                monitor=FINAL if final else model.monitor,
                mode="max" if final else model.monitor_mode,
                enable_version_counter=False,
                save_on_train_epoch_end=False,  # right after the validation
            )
        )
    own = [type(each) for each in given if not type(each).__module__.startswith(KNOWN_MODULES)]
    if own:  # after averages, which put themselves into checkpoints
        callbacks.append(ValidatedWeights(each.__name__ for each in own))
    return [*callbacks, MovedRun(), LastValidation(options.stop_after), LastCheckpoint(checkpoints)]


def _has(callbacks: Sequence[Callback], kind: type[Callback]) -> bool:
    return any(isinstance(each, kind) for each in callbacks)


def file_callbacks(model: BaseTask, run_dir: Path, pictures: bool = True) -> list[Callback]:
    """Create callbacks that write a task's tables, and optionally pictures, to a run folder."""
    folder = str(run_dir)
    if isinstance(model, PPOTask):
        return [PolicyFiles(folder)]
    return [
        kind(folder, pictures) for task, kind in FILE_CALLBACKS.items() if isinstance(model, task)
    ]


def chooses_best(callback: Callback) -> TypeGuard[ModelCheckpoint]:
    """Whether a callback is a ``ModelCheckpoint`` with a monitor."""
    return isinstance(callback, ModelCheckpoint) and callback.monitor is not None
