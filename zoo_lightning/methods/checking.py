"""Check that an experiment's networks can be built for methods, before anything is trained."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError, ZooError
from zoo_lightning.experiments.parts import architecture_of, resolve_bands
from zoo_lightning.methods.recipe import FinishedRun, Recipe, Setting, Trained
from zoo_lightning.methods.recipes import RECIPES, SCRATCH
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.models.initialization import INFORMED
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.sources.zoo import unknown_preprocessing, without_weights
from zoo_lightning.tasks.building import BACKBONES


def check_networks(
    recipes: Sequence[Recipe], options: Mapping[str, Any], sources: Mapping[str, Any]
) -> None:
    """Build the network of each method, without reading weights.

    Methods that come late, because they need finished runs of others, are built with runs that do
    not exist yet.

    Args:
        recipes: the methods.
        options: options of ``fit`` that all methods share, in plain types.
        sources: the experiment's sources by name.

    Raises:
        ConfigError: the network of a method cannot be built; the message names the method.
    """
    built: list[dict[str, Any]] = []
    for recipe in recipes:
        if not isinstance(recipe, Trained):
            continue
        for variant in recipe.variants(list(sources)):
            described = _network(recipe, variant, options, sources)
            if described in built or described["class_path"] not in BACKBONES:
                continue
            try:
                with without_weights():
                    BACKBONES[described["class_path"]](**described["init_args"])
            except ZooError as error:
                raise ConfigError(f"method {recipe.name!r}: {error}") from error
            built.append(described)


def check_sources(options: Mapping[str, Any], sources: Mapping[str, Any]) -> str | None:
    """Read the weights of sources and fit them to the experiment's network.

    A source that no network can begin from would fail one training after another.

    Args:
        options: options of ``fit`` that all methods share, in plain types.
        sources: the sources to read, by name, see :func:`sources_read`.

    Returns:
        A note on sources whose preprocessing is not known; ``None`` if there are none.

    Raises:
        ConfigError: a source's description is invalid.
        DataError: the data decide the network's channels, and cannot be read.
        SourceError: a source cannot be read, or does not fit.
    """
    if not sources:
        return None
    described = copy.deepcopy(dict(options))
    resolve_bands(described)
    init_args = described["model"]["init_args"]["backbone"]["init_args"]
    architecture = architecture_of(init_args, described["data"])
    loaded = load_architecture(architecture, parse_sources(list(sources.values())))
    return unknown_preprocessing(loaded) if architecture.normalisation else None


def sources_read(runs: Iterable[tuple[str, str]], sources: Mapping[str, Any]) -> dict[str, Any]:
    """Select the sources that runs begin from.

    Args:
        runs: method and variant of each run; a variant that is a source's name reads that one only.
        sources: the experiment's sources by name.
    """
    names: set[str] = set()
    for method, variant in runs:
        if method != SCRATCH:
            names |= {variant} if variant in sources else set(sources)
    return {name: source for name, source in sources.items() if name in names}


def _network(
    recipe: Trained, variant: str, options: Mapping[str, Any], sources: Mapping[str, Any]
) -> dict[str, Any]:
    """Options of a method's backbone, with numbers in place of those that are found later."""
    needed = {
        name: [FinishedRun(Path(), each, 0.0) for each in RECIPES[name].variants(list(sources))]
        for name in recipe.needs
    }
    configured = copy.deepcopy(dict(options))
    recipe.configure(configured, Setting(sources, variant, needed))
    described = configured["model"]["init_args"]["backbone"]
    arguments = described["init_args"]
    for option in ("weights", "gate_init"):
        if arguments.get(option) in INFORMED:
            arguments[option] = [1 / len(arguments["sources"])] * len(arguments["sources"])
    return {**described, "class_path": described["class_path"].rpartition(".")[2]}
