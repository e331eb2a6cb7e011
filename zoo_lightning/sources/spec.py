"""Specification of a source: its name, weights, how their keys are matched, and its preprocessing.

This module imports no torch, so a configuration can be checked before anything heavy is loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import PurePath
from typing import Any, Literal, get_args
from urllib.parse import unquote, urldefrag, urlparse

from zoo_lightning.errors import SourceError, nearest
from zoo_lightning.sources.normalisation import (
    KEYS,
    Channels,
    Normalisation,
    Range,
    declared,
    statistics,
)

Match = Literal["name", "order"]

KINDS = {
    "builtin": "builtin:NAME",
    "timm": "timm:MODEL.TAG",
    "hf-hub": "hf-hub:ORG/REPO",
    "torchvision": "torchvision:WEIGHTS_ENUM",
    "package": "package:NAME[/FILE]",
    "https": "https://ADDRESS[#sha256=DIGEST]",
    "http": "http://ADDRESS#sha256=DIGEST",
    "random": "random:SEED",
}
"""Forms of weights references by their kind, the word before the colon. All else is a path."""

FILES = ("path", "https", "http", "package")
"""Kinds of weights that are read from a weight file, and may have a container."""

SUFFIXES = (".pth.tar", ".pth", ".pt", ".ckpt", ".safetensors", ".bin")
"""Usual suffixes of weight files; contents, not suffixes, decide how a file is read."""

FOREIGN_SUFFIXES = (".pkl", ".weights.h5", ".h5", ".keras")
"""Suffixes of weight files of detectron2 and Keras, which a name derived from them leaves out."""


def known_kinds() -> str:
    """Return the forms that ``weights`` may take, as one phrase for messages."""
    return ", ".join(KINDS.values()) + ", a file or a run folder"


@dataclass(frozen=True)
class Source:
    """One pretrained model of the architecture.

    Attributes:
        name: Name of the source in logs and plots.
        weights: ``builtin:NAME``, ``timm:MODEL.TAG``, ``hf-hub:ORG/REPO``,
            ``torchvision:WEIGHTS_ENUM``, ``package:NAME`` (weights inside an installed Python
            package), ``https://…`` with an optional ``#sha256=…``, ``random:SEED`` (the
            architecture's own initialisation), or the path of a weight file or of a run folder of
            this project.
        prefix: Prefix of the backbone's keys in the file; found automatically if ``None``.
        match: ``"name"``, or ``"order"`` where names differ but order and shapes agree throughout;
            packages that are known to need ``order`` get it automatically.
        container: Key of the file that contains the weights, such as ``student``, with dots for
            nested keys; found automatically if ``None``. For weight files only.
        mean: Mean that was subtracted from the images it was trained on: a number or one for each
            channel, in units of ``range`` and the order of ``channels``. ``mean``, ``std``,
            ``range`` and ``channels`` together declare the source's preprocessing, which is put
            into its first layer, see ``docs/preprocessing.md``. If all are ``None``, it is taken
            from where the weights come from if that says it, else from the zoo's images.
        std: Standard deviation that each channel was then divided by, in units of ``range``.
        range: ``"0..1"`` (the default) or ``"0..255"``, values of black and white.
        channels: ``"rgb"`` (the default), ``"bgr"`` as OpenCV reads images, or ``"grey"``.
        bands: Names of the channels of its input, in order, if they are others than colours: first
            layers take those that the data have, too. ``mean`` and ``std`` are then one for each.
        base: Weights reference of the network that a LoRA adapter was trained on; ``None`` takes
            the path in its ``adapter_config.json``. For folders with an adapter only.

    Raises:
        SourceError: If a value has the wrong type, the kind of weights is unknown, ``container`` is
            given for weights that are not a file, or the mean or deviation is not in units of
            ``range``.
    """

    name: str
    weights: str
    prefix: str | None = None
    match: Match = "name"
    container: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    range: Range | None = None
    channels: Channels | None = None
    bands: tuple[str, ...] | None = None
    base: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name.strip():
            raise SourceError(f"A source's name must be text, got {self.name!r}.")
        if not isinstance(self.weights, str) or not self.weights.strip():
            raise SourceError(
                f"The weights of source {self.name!r} must be text, got {self.weights!r}. "
                f"Give {known_kinds()}."
            )
        for key in ("prefix", "container", "base"):
            value = getattr(self, key)
            if value is not None and not isinstance(value, str):
                raise SourceError(f"The {key} of source {self.name!r} must be text, got {value!r}.")
        if self.match not in get_args(Match):
            raise SourceError(
                f"Source {self.name!r} has match {self.match!r}; known are 'name' and 'order'."
                + nearest(str(self.match), get_args(Match))
            )
        kind, _ = split_weights(self.weights)
        if self.container is not None and kind not in FILES:
            raise SourceError(
                f"Source {self.name!r} has container {self.container!r}, which is of weight files; "
                f"{self.weights} is none: leave it out."
            )
        declared(self.name, vars(self))
        for key in ("mean", "std"):  # lists, of YAML files, cannot be hashed
            if getattr(self, key) is not None:
                object.__setattr__(self, key, statistics(getattr(self, key)))
        if (found := self.normalisation) is not None and found.bands is not None:
            object.__setattr__(self, "bands", found.bands)

    @property
    def normalisation(self) -> Normalisation | None:
        """Normalisation that the source declares; ``None`` if it declares none."""
        return declared(self.name, vars(self))


def split_weights(weights: str) -> tuple[str, str]:
    """Split a weights reference into its kind and the rest.

    Returns:
        A key of ``KINDS`` and what follows the colon (the whole address for ``https``), or
        ``("path", weights)``.

    Raises:
        SourceError: If the kind is unknown, or the text after the colon is incomplete or malformed.
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+_-]+):(.*)", weights, re.DOTALL)
    if not found or (found[1] not in KINDS and os.path.exists(weights)):
        return "path", weights
    kind, rest = found[1], found[2]
    if kind not in KINDS:
        raise SourceError(
            f"Unknown kind of weights {kind!r} in {weights!r}.{nearest(kind, KINDS)} "
            f"Known: {known_kinds()}."
        )
    if kind in ("https", "http"):
        split_address(weights)
        return kind, weights
    if not rest or (kind == "random" and not re.fullmatch(r"[0-9]{1,18}", rest)):
        raise SourceError(f"{weights!r} is incomplete: expected {KINDS[kind]}.")
    return kind, rest


def split_address(address: str) -> tuple[str, str | None]:
    """Split ``https://…#sha256=…`` into the address and the digest in lower case, if any.

    Raises:
        SourceError: If there is no server, the digest is malformed, or it is missing with
            unencrypted ``http``.
    """
    url, fragment = urldefrag(address)
    if not urlparse(url).netloc:
        raise SourceError(f"{address!r} names no server: expected {KINDS['https']}.")
    if fragment and not re.fullmatch(r"sha256=[0-9a-fA-F]{64}", fragment):
        raise SourceError(
            f"{address!r} ends with {fragment!r} after the #: expected sha256= and 64 hexadecimal "
            "digits."
        )
    if not fragment and not url.startswith("https:"):
        raise SourceError(
            f"{address!r} could be changed on its way: use https, or append #sha256=DIGEST."
        )
    return url, fragment.removeprefix("sha256=").lower() or None


def derive_name(weights: str) -> str:
    """Derive a short readable name from a weights reference.

    ``timm:resnet50.a1_in1k`` becomes ``a1_in1k``, ``runs/moco_v1.pth.tar`` becomes ``moco_v1``.
    """
    kind, rest = split_weights(weights)
    if kind == "timm":
        name = rest.partition(".")[2] or rest
    elif kind == "hf-hub":
        name = rest.partition("@")[0].rstrip("/").rpartition("/")[2]
    elif kind == "torchvision":
        name = rest.replace("_Weights.", "_").lower()
    elif kind == "random":
        name = f"random-{rest}"
    elif kind == "builtin" or (kind == "package" and "/" not in rest):
        name = rest
    else:
        path = unquote(urlparse(rest).path) if kind in ("https", "http") else os.path.abspath(rest)
        name = PurePath(path).name
        for suffix in (*SUFFIXES, *FOREIGN_SUFFIXES):
            if name.lower().endswith(suffix):
                name = name[: -len(suffix)]
                break
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_") or "source"


def parse_source(spec: str | Mapping[str, Any] | Source) -> Source:
    """Parse a source of a configuration.

    Args:
        spec: A weights reference, from which a name is derived; a mapping with the key
            ``weights`` and optionally the other attributes of :class:`Source`; or a
            :class:`Source`.

    Raises:
        SourceError: If a key is unknown or missing, or a value is not allowed.
    """
    if isinstance(spec, Source):
        return spec
    if isinstance(spec, (str, os.PathLike)):
        spec = {"weights": os.fspath(spec)}
    if not isinstance(spec, Mapping):
        raise SourceError(
            f"A source must be text or a mapping, got {spec!r}. Give {known_kinds()}; or a "
            f"mapping with name, weights, prefix, match, container, base, {', '.join(KEYS)}."
        )
    known = [field.name for field in fields(Source)]
    for key in spec:
        if key not in known:
            raise SourceError(
                f"Unknown key {key!r} in source {dict(spec)!r}.{nearest(str(key), known)} "
                f"Known: {', '.join(known)}."
            )
    values = dict(spec)
    weights = values.get("weights")
    if isinstance(weights, os.PathLike):
        values["weights"] = weights = os.fspath(weights)
    if not isinstance(weights, str) or not weights.strip():
        raise SourceError(f"Source {dict(spec)!r} has no weights. Give {known_kinds()}.")
    if values.get("name") is None:
        values["name"] = derive_name(weights)
    return Source(**values)


def parse_sources(specs: Sequence[str | Mapping[str, Any] | Source]) -> list[Source]:
    """Parse a list of sources; a name that occurs again gets ``-2``, ``-3``, and so on.

    Raises:
        SourceError: If it is not a list, or a source is invalid, see :func:`parse_source`.
    """
    if isinstance(specs, (str, Mapping)) or not isinstance(specs, Sequence):
        raise SourceError(f"Sources must be a list, got {specs!r}.")
    sources: list[Source] = []
    parsed = [parse_source(spec) for spec in specs]
    given = {source.name for source in parsed}
    taken: set[str] = set()
    for source in parsed:
        name, count = source.name, 1
        while name in taken or (count > 1 and name in given):
            count += 1
            name = f"{source.name}-{count}"
        taken.add(name)
        sources.append(source if name == source.name else replace(source, name=name))
    return sources
