"""Load teachers: frozen networks of any architecture, from whose outputs or features others learn.

What is known of a reference decides what is not given: a run of this package teaches its outputs,
anything else the pooled features of its network, with the preprocessing that it was trained with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from zoo_lightning.errors import ArchitectureError, ConfigError, SourceError
from zoo_lightning.models.architecture import Architecture, is_vouched_for, trace, vouch_for
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.models.own_input import (
    OwnInput,
    WithOwnInput,
)
from zoo_lightning.nn.folding import fold_state, is_aggregated
from zoo_lightning.runs.run_folder import find_checkpoint, read_checkpoint
from zoo_lightning.sources.guessing import fit_of, guess
from zoo_lightning.sources.normalisation import Normalisation, declared, known
from zoo_lightning.sources.packages import find_in_package
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.shipped import shipped_card
from zoo_lightning.sources.spec import Source, split_weights
from zoo_lightning.sources.teachers import TeacherSpec, is_own_run
from zoo_lightning.transfer.ranking import pooled

T = TypeVar("T", bound=nn.Module)

Statistics = tuple[Sequence[float], Sequence[float]]
"""Mean and standard deviation per channel, in [0, 1] units."""


@dataclass(frozen=True)
class TaskInput:
    """Input of the network that learns, from which teachers' inputs are computed.

    Attributes:
        statistics: mean and standard deviation of its images; ``None`` if the data have none.
        image_size: side of its images, pixels; ``None`` if the data have none.
        classes: names of its classes, in the order of the outputs; ``None`` if there are none.
    """

    statistics: Statistics | None
    image_size: int | None
    classes: list[str] | None

    @classmethod
    def of(cls, data: Any) -> TaskInput:
        """Read the input from a data module; a module of the user's own may lack any of it."""
        mean, std = getattr(data, "mean", None), getattr(data, "std", None)
        size = getattr(data, "image_size", None)
        classes = getattr(data, "class_names", None)
        return cls(
            None if mean is None or std is None else (mean, std),
            size if isinstance(size, int) else None,
            None if classes is None else list(classes),
        )


class FeatureTeacher(nn.Module):
    """Frozen network that computes pooled features of the task's images.

    Args:
        name: name of the teacher.
        architecture: architecture of the network, whose output is ``pooled``.
        network: network without a head.
        own_input: map of the task's images to the network's; ``None`` if they are the same.
        num_features: number of features.
    """

    def __init__(
        self,
        name: str,
        architecture: Architecture,
        network: nn.Module,
        own_input: OwnInput | None,
        num_features: int,
    ) -> None:
        super().__init__()
        self.name, self.architecture, self.num_features = name, architecture, num_features
        self.network, self.own_input = network, own_input
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Compute features ``(B, F)`` in float32 of normalised images ``(B, C, H, W)``."""
        if self.own_input is not None:
            images = self.own_input(images)
        return pooled(self.architecture, self.network, images).float()


def load_output_teachers(
    specs: Sequence[TeacherSpec],
    build: Callable[[Mapping[str, Any], str], list[T]],
    task: TaskInput,
) -> tuple[list[T], list[list[nn.Module]]]:
    """Load trained runs, each of one network or an ensemble.

    Args:
        specs: teachers, each a run folder or a checkpoint of this package.
        build: function that builds the networks of a checkpoint from its content and path.
        task: input of the network that learns.

    Returns:
        The tasks of all networks, and for each run its networks, which take the task's images.

    Raises:
        ConfigError: there is no such run, its task or its classes are others, or it is to teach
            outputs but is not a run of this package.
    """
    networks: list[T] = []
    members: list[list[nn.Module]] = []
    for spec in specs:
        vouch_for(spec.architecture)
        name = spec.source.weights
        kind, _ = split_weights(name)
        if kind != "path" or (Path(name).exists() and not is_own_run(Path(name))):
            raise ConfigError(
                f"teacher {name} is to teach outputs, but is no run of this package; set its "
                "teach: features"
            )
        path = find_checkpoint(name, None, "", "teacher")
        content = read_checkpoint(path)
        found = build(content, str(path))
        facts = content["zoo_lightning"].get("data") or {}
        _check_classes(facts.get("classes"), task.classes, name)
        size = facts.get("image_size")
        size = spec.image_size or (size if isinstance(size, int) else None)
        own = declared(name, spec.preprocessing) or known(facts.get("mean"), facts.get("std"))
        own_input = input_of(own, task, size, name)
        networks += found
        members.append(
            [each if own_input is None else WithOwnInput(own_input, each) for each in found]
        )
    return networks, members


def load_feature_teacher(
    spec: TeacherSpec, student: Architecture, task: TaskInput
) -> FeatureTeacher:
    """Load a frozen network without its head.

    Args:
        spec: teacher, of any reference that sources have.
        student: architecture of the network that learns, tried first where nothing else is known.
        task: input of the network that learns.

    Raises:
        ArchitectureError: the architecture is unknown.
        ConfigError: its preprocessing does not fit the task's images.
        SourceError: the weights cannot be read, do not fit, or are of no architecture that is
            recognised.
    """
    name = spec.architecture or infer_architecture(spec.source, student)
    images = (student.mean, student.std, None, student.bands)
    # Images of other channels are those of the student, to which first layers are transformed.
    others = student.in_chans != 3 or student.bands is not None
    architecture = Architecture(name, "pooled", student.in_chans, *(images if others else ()))
    [loaded] = load_architecture(architecture, [spec.source])
    network = architecture.build(loaded.state).eval()
    own = None if others else declared(spec.source.name, spec.preprocessing) or loaded.own
    own_input = input_of(own, task, spec.image_size or fixed_size(network), spec.source.name)
    [shape] = trace(architecture, network).shapes
    return FeatureTeacher(spec.source.name, architecture, network, own_input, shape[0])


def input_of(
    own: Normalisation | None, task: TaskInput, size: int | None, name: str
) -> OwnInput | None:
    """Create the map of the task's images to a teacher's; ``None`` if they are the same.

    Args:
        own: preprocessing of the teacher; ``None`` if it is unknown, and taken for the task's.
        task: input of the network that learns.
        size: side of the teacher's input, pixels; ``None`` for the task's.
        name: name of the teacher, for messages.

    Raises:
        ConfigError: channels do not fit, or the task's normalisation is unknown and another is
            needed.
    """
    if size == task.image_size:
        size = None
    if task.statistics is None:
        if own is not None:
            raise ConfigError(
                f"teacher {name} has a preprocessing of its own and needs data with mean and std, "
                "from which its input is computed; use a data module of this package, or give the "
                "data module these two attributes"
            )
        return None if size is None else OwnInput(([0.0], [1.0]), None, size)
    try:
        found = OwnInput(task.statistics, own, size)
    except ConfigError as error:
        raise ConfigError(f"teacher {name}: {error}") from error
    return None if found.unchanged and size is None else found


def fixed_size(network: nn.Module) -> int | None:
    """Side of a timm network's input if it takes no other, such as a vision transformer's."""
    config = getattr(network, "pretrained_cfg", None) or {}
    return int(config["input_size"][-1]) if config.get("fixed_input_size") else None


def infer_architecture(source: Source, student: Architecture) -> Any:
    """Find the architecture of a source from its reference, its run or its tensors.

    Args:
        source: source whose architecture was not given.
        student: architecture to try first on tensors of unknown origin.

    Raises:
        SourceError: the weights cannot be read, or are of no architecture that is recognised.
    """
    kind, rest = split_weights(source.weights)
    if kind == "builtin":
        return shipped_card(rest).architecture
    if kind == "timm":
        return rest.partition(".")[0]
    if kind == "random":
        return student.name
    if kind == "package":
        _, known = find_in_package(rest)
        if known is not None:
            return known.architecture
    if kind == "path" and is_own_run(Path(rest)):
        return _architecture_of_run(rest)
    weights = read_weights(source, None)
    state = fold_state(weights.state) if is_aggregated(weights.state) else weights.state
    source = replace(source, match=weights.match or source.match)
    try:
        if fit_of(state, student.label, source).fits:
            return student.name
    except ArchitectureError:  # a function without a name of its own
        pass
    found = guess(state, source)
    if found is None or not found.fits:
        nearest = f"; nearest is {found.architecture}" if found else ""
        raise SourceError(
            f"teacher {source.name!r}: the architecture of {source.weights} is not recognised"
            f"{nearest}. Give the teacher an architecture: NAME"
        )
    return found.architecture


def _architecture_of_run(run: str) -> Any:
    path = find_checkpoint(run, None, "", "teacher")
    content = read_checkpoint(path)
    options = content.get("hyper_parameters")
    if options is None:
        raise ConfigError(
            f"teacher {run} is an ensemble, which has no features; name one of its networks' runs"
        )
    name = str(options["backbone"]["init_args"]["architecture"])
    if not is_vouched_for(name):
        raise ConfigError(
            f"teacher {run}: its network is made by calling {name}, and a file that calls code can "
            f"do anything. If you trust that function, give the teacher architecture: {name}"
        )
    return name


def _check_classes(trained: Sequence[str] | None, wanted: Sequence[str] | None, name: str) -> None:
    from zoo_lightning.tasks.compatibility import class_difference

    if other := class_difference(trained, wanted):
        here = other.replace("in the checkpoint", "of the teacher")
        raise ConfigError(
            f"teacher {name} has other classes: {here}; give a teacher of the same classes, or set "
            "its teach: features"
        )
