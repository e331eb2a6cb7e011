"""Checkpoints of models that are made of finished runs: ensembles, and averages such as soups.

What they hold can be read without running code, as a run's checkpoint can, and
:func:`~zoo_lightning.tasks.loading.load_task` builds the model of it. There is no training to
resume in them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning

from zoo_lightning import __version__
from zoo_lightning.architecture import vouch_for
from zoo_lightning.checkpoint_files import WholeCheckpointIO
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.ensembles import check_alike
from zoo_lightning.run_folder import (
    CHECKPOINTS,
    MEMBERS,
    describe_ensemble,
    find_checkpoint,
    read_checkpoint,
)
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.loading import build_networks

KEPT = ("zoo_lightning", "hyper_parameters", "state_dict", "global_step")
"""What a network's checkpoint has of model and data; the rest is of its training."""

LIGHTNING = "pytorch-lightning_version"
"""Without it Lightning reads no checkpoint."""


def save_ensemble(
    runs: Sequence[str | Path], path: str | Path, architecture: str | None = None
) -> Path:
    """Write the ensemble of trained runs as one checkpoint.

    It holds all networks, so the runs are not needed any more.

    Args:
        runs: folders of runs, whose best checkpoints are taken, or checkpoints; trained on the same
            classes or points, of images prepared alike.
        path: a ``.ckpt`` to write, or a folder, which gets ``checkpoints/best.ckpt``.
        architecture: as :func:`~zoo_lightning.tasks.loading.load_task` takes it.

    Returns:
        The checkpoint.

    Raises:
        ConfigError: no such run, a run that is an ensemble itself, or runs that have no joint
            output.
        StorageError: the disk or the folder does not take it.
    """
    vouch_for(architecture)
    contents = [_member(run) for run in runs]
    if not contents:
        raise ConfigError("an ensemble needs at least one trained run, got none")
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
    """Write a network that is made of finished runs as a checkpoint like a run's.

    Args:
        task: one network, on any device.
        like: folder or checkpoint of one of the runs; from it comes what the file says of the data.
        path: a ``.ckpt`` to write, or a folder, which gets ``checkpoints/best.ckpt``.
        method: name of the method that made it.

    Returns:
        The checkpoint.

    Raises:
        ConfigError: an ensemble, which :func:`save_ensemble` writes; no such run.
        StorageError: the disk or the folder does not take it.
    """
    if task.ensemble is not None:
        raise ConfigError("the task is of an ensemble: write it with save_ensemble")
    run = read_checkpoint(find_checkpoint(str(like), None, ""))
    content = {
        "zoo_lightning": _noted(run, method),
        "hyper_parameters": dict(task.hparams),
        "state_dict": {key: value.detach().cpu() for key, value in task.state_dict().items()},
        "global_step": 0,
        LIGHTNING: lightning.__version__,
    }
    return _save(content, path)


def _member(run: str | Path) -> dict[str, Any]:
    """What an ensemble keeps of a run's checkpoint, and the run's path."""
    path = find_checkpoint(str(run), None, "")
    content = read_checkpoint(path)
    if ensemble := describe_ensemble(content):
        raise ConfigError(f"{run} is {ensemble}; name these networks' own runs in its place")
    return {key: content[key] for key in KEPT} | {"run": str(run)}


def _check_data(contents: Sequence[Mapping[str, Any]], runs: Sequence[str | Path]) -> None:
    """Refuse networks that see other images or have other outputs than the first one."""
    facts = [content["zoo_lightning"].get("data") or {} for content in contents]
    for run, other in zip(runs[1:], facts[1:], strict=True):
        for key in sorted({*facts[0], *other}):
            if facts[0].get(key) != other.get(key):
                raise ConfigError(
                    f"networks of an ensemble get the same images and give the same outputs, but "
                    f"{key} is {facts[0].get(key)!r} in {runs[0]} and {other.get(key)!r} in {run}"
                )


def _noted(content: Mapping[str, Any], method: str) -> dict[str, Any]:
    """What a checkpoint says of task and data, from a run's."""
    noted = content["zoo_lightning"]
    kept = {key: noted[key] for key in ("task", "data", "data_options") if key in noted}
    return {**kept, "version": __version__, "total_steps": None, "method": method}


def _save(content: dict[str, Any], path: str | Path) -> Path:
    path = Path(path)
    if path.suffix != ".ckpt":
        path = path / CHECKPOINTS / "best.ckpt"
    WholeCheckpointIO().save_checkpoint(content, path)
    return path
