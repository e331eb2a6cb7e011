"""Build tasks from checkpoints, restricted to known task and backbone classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, TypeVar

from zoo_lightning import __version__
from zoo_lightning.errors import ArchitectureError, ConfigError, SourceError
from zoo_lightning.models.architecture import is_vouched_for
from zoo_lightning.models.backbone import Backbone, ZooBackbone
from zoo_lightning.models.knowledge_flow import KnowledgeFlow
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.sources.own_runs import networks_in
from zoo_lightning.sources.zoo import without_weights

BACKBONES: dict[str, type[Backbone]] = {
    "KnowledgeFlow": KnowledgeFlow,
    "PlainBackbone": PlainBackbone,
    "ZooBackbone": ZooBackbone,
}
"""Backbone classes that a checkpoint may name; it must not choose what code runs."""


class Buildable(Protocol):
    """Protocol of tasks that can be built from a checkpoint."""

    made_by: str | None
    from_checkpoint: bool

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Load weights."""
        ...

    def eval(self) -> Any:
        """Set evaluation mode."""
        ...


T = TypeVar("T", bound=Buildable)


def build_network(
    content: Mapping[str, Any], path: str, kinds: Mapping[str, Callable[..., T]]
) -> T:
    """Build the task of a single network from a checkpoint, in evaluation mode.

    Args:
        content: content of the checkpoint.
        path: path of the checkpoint, for messages.
        kinds: classes of tasks that the checkpoint may name.

    Raises:
        ConfigError: the checkpoint names another task class, builds its network with a function
            that the user did not name as trusted, or does not fit this version.
    """
    options = dict(content["hyper_parameters"])
    described = options.pop("backbone")
    for name in _architectures(described):
        if not is_vouched_for(name):
            raise ConfigError(
                f"{path} is refused: its network is made by calling {name}, and a file that calls "
                "code can do anything. If you trust that function, name it: --architecture "
                f"{name}, or load_task(..., architecture={name!r})"
            )
    kind = content["zoo_lightning"]["task"]
    if kind not in kinds:
        raise ConfigError(
            f"{path} is of a task {kind!r}; expected one of {', '.join(sorted(kinds))}"
        )
    try:
        with without_weights():
            backbone = BACKBONES[described["class_path"]](**described["init_args"])
        task = kinds[kind](backbone, **options)
        task.load_state_dict(content["state_dict"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        version = content["zoo_lightning"].get("version", "an earlier version")
        raise ConfigError(
            f"{path} was written by zoo_lightning {version} and does not fit this one, "
            f"{__version__}: {str(error).splitlines()[0]}; use the version that wrote it"
        ) from error
    task.made_by = content["zoo_lightning"].get("method")
    task.from_checkpoint = True
    task.eval()
    return task


def build_networks(
    content: Mapping[str, Any], path: str, kinds: Mapping[str, Callable[..., T]]
) -> list[T]:
    """Build the tasks of all networks in a checkpoint: an ensemble's, or a run's single one.

    Args:
        content: content of the checkpoint.
        path: path of the checkpoint, for messages.
        kinds: classes of tasks that the checkpoint may name.

    Raises:
        ConfigError: as for :func:`build_network`; the message names the network.
    """
    members = networks_in(content)
    if not members:
        return [build_network(content, path, kinds)]
    built: list[T] = []
    for number, member in enumerate(members, 1):
        name = f"{path}, network {number} of {len(members)},"
        try:
            built.append(build_network(member, name, kinds))
        except (ArchitectureError, SourceError) as error:
            raise ConfigError(f"{name} is damaged: {error}") from error
    return built


def _architectures(described: object) -> Iterator[str]:
    """All names of architectures in a description of a backbone."""
    if isinstance(described, Mapping):
        for key, value in described.items():
            if key == "architecture":
                yield str(value)
            else:
                yield from _architectures(value)
