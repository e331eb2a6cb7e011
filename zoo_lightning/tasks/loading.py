"""A trained task from its checkpoint, for notebooks and for whatever has no command line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo_lightning import __version__, methods, tasks
from zoo_lightning.architecture import is_vouched_for, vouch_for
from zoo_lightning.backbone import Backbone, ZooBackbone
from zoo_lightning.errors import ArchitectureError, ConfigError, SourceError
from zoo_lightning.methods.ensembles import joint_task
from zoo_lightning.run_folder import find_checkpoint, networks_in, read_checkpoint
from zoo_lightning.sources.zoo import without_weights
from zoo_lightning.tasks.base import BaseTask


def load_task(checkpoint: str | Path, architecture: str | None = None) -> BaseTask:
    """Build a task as it was trained, with its weights; the sources' files are not needed.

    Args:
        checkpoint: a ``.ckpt`` of a run or of an ensemble, or the run's folder, whose best
            checkpoint is taken.
        architecture: import path of the network's function, of a checkpoint whose network is not
            timm's: it is called only if it is named here, or was by this process before.

    Returns:
        The task in evaluation mode, on the CPU. Of an ensemble it predicts with all networks, see
        :func:`~zoo_lightning.methods.ensembles.joint_task`; ``task.networks()`` are the single
        ones.

    Raises:
        ConfigError: no such file, not a checkpoint of this package, or one of a version that had
            other options or other networks.
    """
    vouch_for(architecture)
    path = find_checkpoint(str(checkpoint), None, "")
    content = read_checkpoint(path)
    if not networks_in(content):
        return _build(content, str(path))
    networks = build_networks(content, str(path))
    try:
        return joint_task(networks)
    except ConfigError as error:
        raise ConfigError(f"{path} is damaged: {error}; make the ensemble again") from error


def build_networks(content: Mapping[str, Any], path: str) -> list[BaseTask]:
    """Build the tasks of an ensemble's networks, each as :func:`load_task` builds a single one.

    Args:
        content: of the ensemble's checkpoint.
        path: of the file, for messages.

    Raises:
        ConfigError: as :func:`load_task` raises it.
    """
    members = networks_in(content)
    built: list[BaseTask] = []
    for number, member in enumerate(members, 1):
        name = f"{path}, network {number} of {len(members)},"
        try:
            built.append(_build(member, name))
        except (ArchitectureError, SourceError) as error:
            raise ConfigError(f"{name} is damaged: {error}") from error
    return built


def _build(content: Mapping[str, Any], path: str) -> BaseTask:
    """Build a task of one network from the content of a checkpoint."""
    options = dict(content["hyper_parameters"])
    described = options.pop("backbone")
    # Looked up among our own classes only: a checkpoint must not choose what code runs.
    kinds: dict[str, type[Backbone]] = {
        "ZooBackbone": ZooBackbone,
        **{name: kind for name, kind in vars(methods).items() if is_backbone(kind)},
    }
    for name in _architectures(described):
        if not is_vouched_for(name):
            raise ConfigError(
                f"{path} is refused: its network is made by calling {name}, and a file that calls "
                "code can do anything. If you trust that function, name it: --architecture "
                f"{name}, or load_task(..., architecture={name!r})"
            )
    kind = getattr(tasks, _known_task(content["zoo_lightning"]["task"]))
    try:
        with without_weights():
            backbone = kinds[described["class_path"]](**described["init_args"])
        task = kind(backbone, **options)
        task.load_state_dict(content["state_dict"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        version = content["zoo_lightning"].get("version", "an earlier version")
        raise ConfigError(
            f"{path} was written by zoo_lightning {version} and does not fit this one, "
            f"{__version__}: {str(error).splitlines()[0]}; use the version that wrote it"
        ) from error
    task.made_by = content["zoo_lightning"].get("method")
    return task.eval()


def _architectures(described: object) -> Iterator[str]:
    """All names of architectures in a description of a backbone."""
    if isinstance(described, Mapping):
        for key, value in described.items():
            if key == "architecture":
                yield str(value)
            else:
                yield from _architectures(value)


def is_backbone(kind: object) -> bool:
    """Whether a thing is a class of backbones."""
    return isinstance(kind, type) and issubclass(kind, Backbone)


def _known_task(name: str) -> str:
    if name not in tasks.__all__:
        raise ConfigError(f"the checkpoint is of a task {name!r}, which this version does not have")
    return name
