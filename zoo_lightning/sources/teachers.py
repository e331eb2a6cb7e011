"""Specification of a teacher: a source, with an architecture of its own, and what it teaches.

Its weights are read by :mod:`zoo_lightning.methods.teachers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from zoo_lightning.errors import ConfigError, SourceError, nearest
from zoo_lightning.sources.normalisation import KEYS
from zoo_lightning.sources.own_runs import CHECKPOINTS, SUMMARY
from zoo_lightning.sources.spec import Source, parse_sources, split_weights

Taught = Literal["outputs", "features"]

OWN_KEYS = ("architecture", "teach", "image_size")
"""Keys of a teacher that a source does not have, besides those of its preprocessing."""


@dataclass(frozen=True)
class TeacherSpec:
    """One frozen network from which another learns.

    Attributes:
        source: name of the teacher and reference of its weights.
        architecture: timm name or import path of its architecture; ``None`` to infer it.
        teach: ``outputs`` for those of its trained head, ``features`` for the pooled features of
            the network without a head; ``None`` for outputs of a run or ensemble of this package,
            else features.
        image_size: side of its square input, pixels; ``None`` for the task's, or for the only one
            that the network takes.
        preprocessing: declared normalisation of its images, by the keys of
            :class:`~zoo_lightning.sources.normalisation.Normalisation`; without any, what is known
            of the weights.
    """

    source: Source
    architecture: str | None = None
    teach: Taught | None = None
    image_size: int | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)

    def teaches_outputs(self) -> bool:
        """Whether the teacher's outputs are learned, not its features."""
        if self.teach is not None:
            return self.teach == "outputs"
        kind, rest = split_weights(self.source.weights)
        return kind == "path" and is_own_run(Path(rest))


def is_own_run(path: Path) -> bool:
    """Whether a path is a run folder of this package or one of its checkpoints."""
    if path.is_dir():
        return (path / SUMMARY).is_file() or (path / CHECKPOINTS).is_dir()
    if not path.is_file():
        return False
    from zoo_lightning.sources.files import read_contents  # slow to import

    try:
        whole = read_contents(path).whole
    except SourceError:
        return False  # which reading the source will explain
    return isinstance(whole, Mapping) and "zoo_lightning" in whole


def parse_teachers(specs: Sequence[str | Mapping[str, Any]]) -> list[TeacherSpec]:
    """Read a list of teachers.

    Args:
        specs: each a weights reference, as ``sources`` takes it, or a mapping with the keys of a
            source, ``architecture``, ``teach``, ``image_size`` and those of a preprocessing:
            ``mean``, ``std``, ``range`` and ``channels``.

    Raises:
        ConfigError: ``teach`` or ``image_size`` has a value that is not allowed.
        SourceError: a key is unknown or missing, or a value is not allowed.
    """
    if isinstance(specs, (str, Mapping)) or not isinstance(specs, Sequence):
        raise ConfigError(f"teachers must be a list, got {specs!r}")
    own: list[dict[str, Any]] = []
    rest: list[Any] = []
    for spec in specs:
        mapping = dict(spec) if isinstance(spec, Mapping) else {"weights": spec}
        known = [*(each.name for each in fields(Source)), *OWN_KEYS]
        for key in mapping:
            if key not in known:
                raise SourceError(
                    f"Unknown key {key!r} in teacher {mapping!r}.{nearest(str(key), known)} "
                    f"Known: {', '.join(known)}."
                )
        given = {key: mapping.pop(key) for key in KEYS if key in mapping}
        kept = {key: value for key, value in given.items() if value is not None}
        own.append({key: mapping.pop(key) for key in OWN_KEYS if key in mapping})
        own[-1]["preprocessing"] = kept
        rest.append(mapping)
    for each in own:
        teach = each.get("teach")
        if teach is not None and teach not in get_args(Taught):
            raise ConfigError(f"teach must be one of outputs, features, got {teach!r}")
        size = each.get("image_size")
        if size is not None and (not isinstance(size, int) or size < 1):
            raise ConfigError(f"image_size of a teacher must be at least 1, got {size!r}")
    sources = parse_sources(rest)
    return [TeacherSpec(source, **each) for source, each in zip(sources, own, strict=True)]
