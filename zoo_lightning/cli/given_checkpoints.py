"""Checkpoints and run folders given on the command line of the Trainer's subcommands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError
from zoo_lightning.runs.folders import is_first_rank
from zoo_lightning.runs.run_folder import last_checkpoint, read_summary
from zoo_lightning.sources.own_runs import CHECKPOINTS, run_of
from zoo_lightning.tasks import BaseTask


def named_run_dir(options: Any) -> Path | None:
    """Find the run folder given by ``--run_dir`` or by the checkpoint to resume.

    Args:
        options: parsed options of ``fit``.

    Returns:
        The folder; ``None`` if the run gets a new one.
    """
    if options.run_dir is not None:
        return Path(options.run_dir)
    return run_to_resume(Path(options.ckpt_path)) if options.ckpt_path else None


def run_to_resume(given: Path) -> Path | None:
    """Find the run folder of ``--ckpt_path``, which may be the folder itself or a checkpoint."""
    return given if given.is_dir() else run_of(given)


def check_continued(run: Path | None, options: Any) -> None:
    """Refuse to resume what cannot be resumed with the options given.

    Args:
        run: folder of the run to resume; ``None`` if it is not known.
        options: parsed options of ``fit``.

    Raises:
        ConfigError: the folder is the result of several trainings, which resuming one would
            replace; or ``stop_after`` ends before the training did.
    """
    summary = {} if run is None else read_summary(run) or {}
    if method := summary.get("pipeline"):
        raise ConfigError(
            f"{run} is the result of fit --method {method}, with the costs and figures of several "
            "trainings: it is finished. The same command with the same --run_dir says so again; "
            f"to train on from its weights give --init_from {run} and another --run_dir"
        )
    if summary and "stop_after" not in summary and options.stop_after < 1:
        raise ConfigError(
            f"--stop_after {options.stop_after:g}: the training in {run} has ended after all of "
            "its steps; there is nothing to stop"
        )


def refuse_used_folder(folder: str | None) -> None:
    """Refuse to start a training in the folder of another one, whose files would be lost.

    Args:
        folder: run folder as given; ``None`` is accepted.

    Raises:
        ConfigError: the folder has checkpoints.
    """
    if folder is not None and _has_training(folder) and is_first_rank():
        raise ConfigError(
            f"--run_dir {folder} has the checkpoints of a training, which would be lost; to resume "
            f"it give --ckpt_path {last_checkpoint(Path(folder))}, else another folder, "
            "or remove this one"
        )


def refuse_results_in_run(folder: str | None) -> None:
    """Refuse to write results of a test or of predictions to the folder of a training.

    Args:
        folder: output folder as given; ``None`` is accepted.

    Raises:
        ConfigError: the folder has checkpoints.
    """
    if folder is not None and _has_training(folder):
        raise ConfigError(
            f"--output {folder} is the folder of a training, whose configuration, curves and "
            f"summary would be replaced; give another one, such as {Path(folder, 'test')}"
        )


def _has_training(folder: str) -> bool:
    return any(Path(folder, CHECKPOINTS).glob("*.ckpt"))


def start_cost(content: Mapping[str, Any]) -> dict[str, float]:
    """Return the cost of the informed start of a checkpoint's run; empty if it had none.

    Args:
        content: the checkpoint's ``zoo_lightning`` entry; version 0.1 recorded only seconds.
    """
    seconds = content.get("start_seconds")
    old = {"seconds": seconds, "multiply_adds": 0} if seconds else {}
    return dict(content.get("start_cost") or old)


def load_weights(task: BaseTask, content: dict[str, Any]) -> None:
    """Load the weights of a trained task into a new task.

    Args:
        task: task to be trained.
        content: checkpoint of the trained task.

    Raises:
        ConfigError: the trained task's network differs.
    """
    task.on_load_checkpoint(content)
    task.load_state_dict(content["state_dict"])
    task.weights_given = True
