"""The callbacks that a run of the command line has besides the user's and the task's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.callbacks import Callback, ModelCheckpoint, Timer, WeightAveraging
from lightning.pytorch.cli import LightningArgumentParser

from zoo_lightning.backbone import ZooBackbone
from zoo_lightning.callbacks.averaged_weights import AveragedWeights
from zoo_lightning.callbacks.best_checkpoint import BestCheckpoint
from zoo_lightning.callbacks.classification_files import ClassificationFiles
from zoo_lightning.callbacks.finite_numbers import FiniteNumbers, Policy
from zoo_lightning.callbacks.gate_pictures import GatePictures
from zoo_lightning.callbacks.gradient_norms import GradientNorms
from zoo_lightning.callbacks.interrupt import LastCheckpoint
from zoo_lightning.callbacks.landmark_files import LandmarkFiles
from zoo_lightning.callbacks.last_validation import LastValidation
from zoo_lightning.callbacks.policy_files import PolicyFiles
from zoo_lightning.callbacks.progress import StepProgress
from zoo_lightning.errors import ConfigError
from zoo_lightning.run_folder import CHECKPOINTS, describe_ensemble
from zoo_lightning.tasks import BaseTask, ClassificationTask, LandmarkTask, PPOTask

FILES: dict[type[BaseTask], type[Callback]] = {
    LandmarkTask: LandmarkFiles,
    ClassificationTask: ClassificationFiles,
    PPOTask: PolicyFiles,
}
"""What writes the files that runs of a task leave for people to look at."""

Selection = Literal["auto", "best", "final"]

FINAL = "step"
"""What the checkpoint of the final weights is kept by: the newest is always the best."""

FEW_IMAGES = 1000
"""A best of several validations on fewer images is mostly luck: on 100 images, one of 90 % has a
standard error of 3 points."""


def add_callback_options(parser: LightningArgumentParser) -> None:
    """Add the options of callbacks to a parser."""
    parser.add_argument(
        "--gradient_norms",
        type=bool,
        default=False,
        help="Log the norm of the gradients, of all and of each part, in every logged step.",
    )
    parser.add_argument(
        "--on_nonfinite",
        type=Policy,
        default="stop",
        help="What to do at NaN or infinity in loss or gradients: stop before the step, or skip it "
        "and go on (skipped_steps counts them).",
    )
    parser.add_argument(
        "--average_weights",
        type=bool,
        default=False,
        help="Validate, test and save an exponential moving average of the weights, over about the "
        "last quarter of the training.",
    )
    parser.add_argument(
        "--select",
        type=Selection,
        default="auto",
        help="Which weights a run ends with, in best.ckpt: those of the best validation, or the "
        "final ones. auto takes the final ones where weights are averaged and there are fewer than "
        f"{FEW_IMAGES} validation images, else the best.",
    )


def resume_callback_options(options: Any, checkpoint: Mapping[str, Any]) -> None:
    """Refuse to resume a run with other options of callbacks that its weights depend on.

    Args:
        options: of ``fit``; ``select: auto`` becomes what the run had.
        checkpoint: content of the checkpoint to resume from.

    Raises:
        ConfigError: the run averaged its weights and shall no longer, or the other way round, or
            it shall end with other weights than it kept so far; the checkpoint is of a model that
            was made of finished runs.
    """
    made_by = checkpoint.get("zoo_lightning", {}).get("method")
    if ensemble := describe_ensemble(checkpoint):
        raise ConfigError(
            f"--ckpt_path: the checkpoint is {ensemble}, which have no joint training to resume; "
            "give the run of one of them"
        )
    if made_by is not None:
        raise ConfigError(
            f"--ckpt_path: the checkpoint was made of finished runs (method {made_by}) and has no "
            "training to resume; to train from its weights use --init_from"
        )
    states = checkpoint.get("callbacks", {})
    averaged = any(key.startswith(AveragedWeights.__qualname__) for key in states)
    before: dict[str, Any] = {"average_weights": averaged}
    keepers = [key for key in states if key.startswith(ModelCheckpoint.__qualname__)]
    if keepers:
        final = any(f"'monitor': '{FINAL}'" in key for key in keepers)
        before["select"] = "final" if final else "best"
        if options.select == "auto":
            options.select = before["select"]
    for name, value in before.items():
        if options[name] != value:
            raise ConfigError(
                f"{name} is {options[name]}, and the checkpoint's run had {value}; resume a run "
                "with its own options, or start from its weights with --init_from"
            )


def run_callbacks(
    model: BaseTask, options: Any, run_dir: Path, given: Sequence[Callback], few: bool = False
) -> list[Callback]:
    """Progress, time, files and pictures, checkpoints.

    Args:
        model: the task.
        options: of the subcommand.
        run_dir: the run's folder.
        given: the user's callbacks.
        few: whether there are too few validation images to choose a checkpoint by.
    """
    callbacks: list[Callback] = []
    if options.trainer.enable_progress_bar is not False:
        callbacks.append(StepProgress())
    if options.gradient_norms and not any(isinstance(each, GradientNorms) for each in given):
        callbacks.append(GradientNorms())
    if not any(isinstance(each, FiniteNumbers) for each in given):
        callbacks.append(FiniteNumbers(options.on_nonfinite))
    if options.trainer.fast_dev_run:
        return callbacks
    if not any(isinstance(each, Timer) for each in given):
        # Lightning leaves max_time to a timer that is there.
        callbacks.append(Timer(options.trainer.max_time))
    callbacks += files_of(model, run_dir)
    if isinstance(model.backbone, ZooBackbone):
        callbacks.append(GatePictures(str(run_dir)))
    if options.average_weights and not any(isinstance(each, WeightAveraging) for each in given):
        callbacks.append(AveragedWeights())
    checkpoints = str(run_dir / CHECKPOINTS)
    if not any(map(chooses_best, given)):
        final = options.select == "final" or (
            options.select == "auto" and options.average_weights and few
        )
        callbacks.append(
            BestCheckpoint(
                dirpath=checkpoints,
                filename="best",
                monitor=FINAL if final else model.monitor,
                mode="max" if final else model.monitor_mode,
                enable_version_counter=False,
                save_on_train_epoch_end=False,  # but right after the validation
            )
        )
    return [*callbacks, LastValidation(), LastCheckpoint(checkpoints)]


def files_of(model: BaseTask, run_dir: Path) -> list[Callback]:
    """What writes a task's pictures and tables to a run's folder."""
    return [files(str(run_dir)) for task, files in FILES.items() if isinstance(model, task)]


def chooses_best(callback: Callback) -> bool:
    """Whether a callback keeps the checkpoint that is best by some metric."""
    return isinstance(callback, ModelCheckpoint) and callback.monitor is not None
