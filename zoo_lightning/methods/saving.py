"""Write checkpoints of models made from finished runs: ensembles and soups.

Like a run's checkpoint, they can be read without running code, and
:func:`~zoo_lightning.tasks.loading.load_task` builds the model. They have no training state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning

from zoo_lightning import __version__
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.joint_output import check_alike
from zoo_lightning.models.architecture import vouch_for
from zoo_lightning.runs.checkpoint_files import AtomicCheckpointIO
from zoo_lightning.runs.run_folder import find_checkpoint, read_checkpoint
from zoo_lightning.sources.own_runs import CHECKPOINTS, MEMBERS, describe_ensemble
from zoo_lightning.tasks.base import BaseTask
from zoo_lightning.tasks.loading import build_networks

KEPT = ("zoo_lightning", "hyper_parameters", "state_dict", "global_step")
"""Keys of a run's checkpoint that describe model and data; the others are training state."""

LIGHTNING = "pytorch-lightning_version"
"""Key that Lightning requires in a checkpoint."""


def save_ensemble(
    runs: Sequence[str | Path], path: str | Path, architecture: str | None = None
) -> Path:
    """Write the ensemble of several trained runs as one checkpoint.

    It contains all networks, so the runs are no longer needed.

    Args:
        runs: checkpoints, or run folders, whose best checkpoints are taken, of runs with the same
            classes or points and the same preprocessing.
        path: ``.ckpt`` file to write, or folder for ``checkpoints/best.ckpt``.
        architecture: import path of the function that builds the network, if it is not timm's, see
            :func:`~zoo_lightning.tasks.loading.load_task`.

    Returns:
        Path of the checkpoint.

    Raises:
        ConfigError: a run does not exist, is an ensemble itself, or the runs' outputs cannot be
            averaged.
        StorageError: the file cannot be written.
    """
    vouch_for(architecture)
    return save_members([member_of(run) for run in runs], path)


def save_members(contents: Sequence[Mapping[str, Any]], path: str | Path) -> Path:
    """Write the ensemble of runs that were read by :func:`member_of`; returns its path.

    Args:
        contents: results of :func:`member_of`, one for each run.
        path: ``.ckpt`` file to write, or folder for ``checkpoints/best.ckpt``.
    """
    if not contents:
        raise ConfigError("an ensemble needs at least one trained run, got none")
    runs = [content["run"] for content in contents]
    _check_data(contents, runs)
    content = {
        "zoo_lightning": _noted(contents[0], "ensemble"),
        "global_step": 0,
        MEMBERS: {str(number): each for number, each in enumerate(contents, 1)},
        LIGHTNING: lightning.__version__,
    }
    check_alike(build_networks(content, "the ensemble"))
    return _save(content, path)


def save_task(task: BaseTask, like: str | Path, path: str | Path, method: str) -> Path:
    """Write a network that was made from finished runs, such as a soup, as a checkpoint.

    Args:
        task: task of one network, on any device.
        like: folder or checkpoint of one of the runs, whose description of the data is copied.
        path: ``.ckpt`` file to write, or folder for ``checkpoints/best.ckpt``.
        method: name of the transfer method that made the network.

    Returns:
        Path of the checkpoint.

    Raises:
        ConfigError: the task is an ensemble, which :func:`save_ensemble` writes, or the run does
            not exist.
        StorageError: the file cannot be written.
    """
    return save_like(task, read_checkpoint(find_checkpoint(str(like), None, "")), path, method)


def save_like(task: BaseTask, run: Mapping[str, Any], path: str | Path, method: str) -> Path:
    """Write a network as :func:`save_task` does, given the content of a run's checkpoint.

    Args:
        task: task of one network, on any device.
        run: content of the checkpoint of one of the runs that the network was made from.
        path: ``.ckpt`` file to write, or folder for ``checkpoints/best.ckpt``.
        method: name of the transfer method that made the network.
    """
    if task.ensemble is not None:
        raise ConfigError("the task is of an ensemble: write it with save_ensemble")
    content = {
        "zoo_lightning": _noted(run, method),
        "hyper_parameters": dict(task.hparams),
        "state_dict": {key: value.detach().cpu() for key, value in task.state_dict().items()},
        "global_step": 0,
        LIGHTNING: lightning.__version__,
    }
    return _save(content, path)


def member_of(run: str | Path) -> dict[str, Any]:
    """Read from a run's checkpoint the entries that an ensemble keeps, and the run's path."""
    path = find_checkpoint(str(run), None, "")
    content = read_checkpoint(path)
    if ensemble := describe_ensemble(content):
        raise ConfigError(f"{run} is {ensemble}; name these networks' own runs in its place")
    return {key: content[key] for key in KEPT} | {"run": str(run)}


def _check_data(contents: Sequence[Mapping[str, Any]], runs: Sequence[str | Path]) -> None:
    """Check that networks see the same images and have the same outputs."""
    facts = [content["zoo_lightning"].get("data") or {} for content in contents]
    for run, other in zip(runs[1:], facts[1:], strict=True):
        for key in sorted({*facts[0], *other}):
            if facts[0].get(key) != other.get(key):
                raise ConfigError(
                    f"networks of an ensemble get the same images and give the same outputs, but "
                    f"{key} is {facts[0].get(key)!r} in {runs[0]} and {other.get(key)!r} in {run}"
                )


def _noted(content: Mapping[str, Any], method: str) -> dict[str, Any]:
    """Describe task and data as in a run's checkpoint, and the method."""
    noted = content["zoo_lightning"]
    kept = {key: noted[key] for key in ("task", "data", "data_options") if key in noted}
    return {**kept, "version": __version__, "total_steps": None, "method": method}


def _save(content: dict[str, Any], path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".ckpt":
        path = path / CHECKPOINTS / "best.ckpt"
    AtomicCheckpointIO().save_checkpoint(content, path)
    return path
