"""Load a trained task from its checkpoint, for use in Python."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.ensembles import joint_task
from zoo_lightning.models.architecture import vouch_for
from zoo_lightning.runs.run_folder import find_checkpoint, read_checkpoint
from zoo_lightning.sources.own_runs import networks_in
from zoo_lightning.tasks import building
from zoo_lightning.tasks.base import BaseTask
from zoo_lightning.tasks.classification import ClassificationTask
from zoo_lightning.tasks.landmarks import LandmarkTask
from zoo_lightning.tasks.multi_label import MultiLabelTask
from zoo_lightning.tasks.ppo import PPOTask
from zoo_lightning.tasks.regression import RegressionTask
from zoo_lightning.tasks.segmentation import SegmentationTask

KINDS: dict[str, type[BaseTask]] = {
    kind.__name__: kind
    for kind in (
        ClassificationTask,
        LandmarkTask,
        MultiLabelTask,
        PPOTask,
        RegressionTask,
        SegmentationTask,
    )
}
"""Task classes that a checkpoint may name; it must not choose what code runs."""


def load_task(checkpoint: str | Path, architecture: str | None = None) -> BaseTask:
    """Load a trained task with its weights; the files of its sources are not needed.

    Args:
        checkpoint: a ``.ckpt`` of a run or of an ensemble, or the run's folder, whose best
            checkpoint is taken.
        architecture: import path of the function that builds the network, if it is not timm's. It
            is called only if it is named here, or was named before in this process.

    Returns:
        The task in evaluation mode, on the CPU. An ensemble's task predicts with all networks, see
        :func:`~zoo_lightning.methods.ensembles.joint_task`; ``task.networks()`` lists the single
        ones.

    Raises:
        ConfigError: the file does not exist, is not a checkpoint of this package, or is one of an
            incompatible version.
    """
    vouch_for(architecture)
    path = find_checkpoint(str(checkpoint), None, "")
    return task_from(read_checkpoint(path), path)


def task_from(content: Mapping[str, Any], path: Path) -> BaseTask:
    """Build a task from the content of a checkpoint.

    Args:
        content: content of the checkpoint.
        path: path of the checkpoint, for messages.

    Raises:
        ConfigError: as :func:`load_task` raises it.
    """
    networks = build_networks(content, str(path))
    if not networks_in(content):
        return networks[0]
    try:
        return joint_task(networks)
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged: {error}; make the ensemble again") from error


def build_networks(content: Mapping[str, Any], path: str) -> list[BaseTask]:
    """Build the tasks of a checkpoint's networks: a run's single one, or an ensemble's.

    Args:
        content: content of the checkpoint.
        path: path of the checkpoint, for messages.

    Raises:
        ConfigError: as :func:`load_task` raises it.
    """
    return building.build_networks(content, path, KINDS)
