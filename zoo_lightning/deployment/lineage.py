"""What an exported model was made from: its run, its sources, and the sources of those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import timm

from zoo_lightning.errors import ZooError
from zoo_lightning.files.plain_yaml import read_yaml
from zoo_lightning.runs.run_folder import CONFIG, read_summary
from zoo_lightning.sources.own_runs import MEMBERS, networks_in, run_of
from zoo_lightning.sources.shipped import shipped_cards
from zoo_lightning.sources.spec import Source, parse_sources, split_weights

DEEPEST = 5
"""Number of runs upon runs that are followed."""


@dataclass(frozen=True)
class Ancestor:
    """Source of a model, with the sources that it was itself made from.

    Attributes:
        name: name of the source.
        weights: reference to its weights; of a path only the last two parts, since the whole one
            says nothing elsewhere.
        about: what is known of it, such as the data it was trained on; empty if nothing is.
        license: licence of the weights in the Hub's spelling; ``None`` if unknown, empty where
            there is nothing to license.
        hub: repository on the Hugging Face Hub; ``None`` if it is not from there.
        sources: sources of a source that is a run of this package.
    """

    name: str
    weights: str
    about: str = ""
    license: str | None = None
    hub: str | None = None
    sources: Sequence[Ancestor] = ()

    def everything(self) -> list[Ancestor]:
        """The source and all that it was made from."""
        return [self, *(each for source in self.sources for each in source.everything())]


@dataclass(frozen=True)
class Origin:
    """Where an exported model comes from.

    Attributes:
        summary: content of its run's ``summary.json``; empty if it is in no run folder.
        data: what it was trained on, in a phrase; empty if unknown.
        sources: its sources; for an ensemble those of all networks, each once.
    """

    summary: Mapping[str, Any] = field(default_factory=dict)
    data: str = ""
    sources: Sequence[Ancestor] = ()


def origin_of(path: Path, content: Mapping[str, Any]) -> Origin:
    """Collect what a checkpoint and its run folder say of a model's origin.

    Args:
        path: checkpoint file.
        content: its content, see :func:`~zoo_lightning.runs.run_folder.read_checkpoint`.
    """
    run = run_of(path)
    networks = networks_in(content) if MEMBERS in content else [content]
    found: dict[str, Ancestor] = {}
    for network in networks:
        backbone = network["hyper_parameters"]["backbone"]["init_args"]
        for each in _ancestors(backbone.get("sources"), 0):
            found.setdefault(each.weights, each)
    summary = (read_summary(run) or {}) if run is not None else {}
    return Origin(summary, data_of(run), [*found.values()])


def data_of(run: Path | None) -> str:
    """Describe the data of a run's configuration; empty if there is none."""
    if run is None or not (run / CONFIG).is_file():
        return ""
    try:
        options = read_yaml(run / CONFIG)["data"]
        kind, given = options["class_path"].rpartition(".")[2], options.get("init_args") or {}
    except (ZooError, AttributeError, KeyError, TypeError):
        return ""
    named = [str(given[key]) for key in ("name", "game") if given.get(key)]
    named += [PurePath(str(given["root"])).name] if given.get("root") else []
    return ", ".join([kind, *named])


def _ancestors(given: Any, depth: int) -> list[Ancestor]:
    try:
        sources = parse_sources(given or [])
    except ZooError:
        return []
    return [_ancestor(source, depth) for source in sources]


def _ancestor(source: Source, depth: int) -> Ancestor:
    """Describe a source from what is on this machine; nothing is downloaded."""
    kind, rest = split_weights(source.weights)
    if kind == "builtin":
        card = shipped_cards().get(rest)
        if card is not None:
            about = f"{card.nature}; {card.data}"
            return Ancestor(source.name, source.weights, about, card.license.lower())
    if kind == "random":
        return Ancestor(source.name, source.weights, "random weights", "")
    if kind == "timm":
        known = timm.models.get_pretrained_cfg(rest, allow_unregistered=True)
        license, tag = (getattr(known, name, None) or None for name in ("license", "tag"))
        # The Hub's repositories have the tag, which may be left out here.
        full = f"{rest}.{tag}" if tag and "." not in rest else rest
        return Ancestor(source.name, source.weights, "", license, f"timm/{full}")
    if kind == "hf-hub":
        return Ancestor(source.name, source.weights, hub=rest.partition("@")[0])
    if kind == "path":
        place = Path(source.weights)
        run = place if place.is_dir() else run_of(place)
        shown = "/".join(PurePath(source.weights).parts[-2:])
        if run is None or depth == DEEPEST or not (run / CONFIG).is_file():
            return Ancestor(source.name, shown)
        return Ancestor(source.name, shown, data_of(run), sources=_of_run(run, depth + 1))
    return Ancestor(source.name, source.weights)


def _of_run(run: Path, depth: int) -> list[Ancestor]:
    try:
        given = read_yaml(run / CONFIG)["model"]["init_args"]["backbone"]["init_args"]
        return _ancestors(given.get("sources"), depth)
    except (ZooError, AttributeError, KeyError, TypeError):
        return []
