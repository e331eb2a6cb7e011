"""Options ``--sources A,B`` and ``--architecture NAME``, short for the backbone's options.

This module works on parsed options; it reads and builds nothing.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.initialization import INFORMED
from zoo_lightning.sources.spec import parse_sources

Options = MutableMapping[str, Any]


def add_short_form(parser: LightningArgumentParser) -> None:
    """Add ``--sources`` and ``--architecture`` to a parser."""
    parser.add_argument(
        "--sources",
        type=str | list[str | dict[str, Any]] | None,
        default=None,
        help="The zoo's sources with commas between, in place of those of the experiment: "
        "a.ckpt,b.safetensors,runs/mine,timm:resnet18.tv_in1k. Short for "
        "--model.init_args.backbone.init_args.sources.",
    )
    parser.add_argument(
        "--architecture",
        type=str | None,
        default=None,
        help="The sources' architecture, a timm name or an import path. Short for "
        "--model.init_args.backbone.init_args.architecture.",
    )


def apply_short_form(options: Any, arguments: Sequence[str]) -> list[str]:
    """Move ``sources`` and ``architecture`` of a subcommand's options to the backbone's options.

    Numbers for each source (``gate_init``, ``norm_weights``, a soup's ``weights``) that the
    experiment gives for another number of sources are replaced; those on the command line are kept.

    Args:
        options: parsed options of a subcommand; changed in place, the short forms become ``None``.
        arguments: words of the command line.

    Returns:
        Lines to print, which report the replacements.

    Raises:
        ConfigError: ``--sources`` has an empty reference.
        SourceError: a reference is invalid.
    """
    if options.sources is None and options.architecture is None:
        return []
    init_args = options.model.init_args.backbone.init_args
    if options.architecture is not None:
        init_args["architecture"] = options.architecture
        options.architecture = None
    if options.sources is None:
        return []
    before = len(init_args.get("sources") or [])
    init_args["sources"] = split_sources(options.sources)
    options.sources = None
    names = [source.name for source in parse_sources(init_args["sources"])]
    return replace_numbers(init_args, before, names, arguments)


FOUND = {"gate_init": "greedy", "norm_weights": "gates"}
"""Replacements of an experiment's numbers, by values from the training data."""


def split_sources(given: str | Sequence[Any]) -> list[Any]:
    """Split comma-separated references; a list of sources is returned as it is.

    Raises:
        ConfigError: a reference is empty.
    """
    if not isinstance(given, str):
        return list(given)
    sources = [reference.strip() for reference in given.split(",")]
    if not all(sources):
        raise ConfigError(
            f"--sources {given!r} has an empty reference; give references with commas between, "
            "such as a.ckpt,b.safetensors"
        )
    return sources


def replace_numbers(
    init_args: Options, before: int, names: Sequence[str], arguments: Sequence[str]
) -> list[str]:
    """Replace an experiment's per-source numbers that do not fit the new sources.

    Args:
        init_args: options of the backbone; changed in place.
        before: number of sources in the experiment.
        names: names of the new sources.
        arguments: words of the command line; options set there are kept.

    Returns:
        A line to print if numbers were replaced or now apply to other sources; otherwise none.
    """
    numbers = [
        option
        for option in ("gate_init", "norm_weights", "weights")
        if isinstance(init_args.get(option), list) and not _is_given(option, arguments)
    ]
    if len(names) == before:
        if not numbers:
            return []
        options = ", ".join(f"{option} {init_args[option]}" for option in numbers)
        return [f"the experiment's {options} now applies to the sources {', '.join(names)}"]
    changed = {
        option: "uniform" if option == "weights" else FOUND[option]
        for option in numbers
        if len(init_args[option]) != len(names)
    }
    gates = changed.get("gate_init", init_args.get("gate_init"))
    # A word that stands for numbers found later will do.
    numberless = not isinstance(gates, list) and gates not in INFORMED
    follows = init_args.get("norm_weights") == "gates" and numberless
    if follows and not _is_given("norm_weights", arguments):
        changed["norm_weights"] = "uniform"
    if not changed:
        return []
    for option, value in changed.items():
        init_args[option] = value
    words = ", ".join(f"{option}: {value}" for option, value in changed.items())
    return [
        f"the experiment's numbers are for {before} sources, --sources gives {len(names)}: "
        f"now {words}"
    ]


def _is_given(option: str, arguments: Sequence[str]) -> bool:
    """Return whether the command line itself sets an option of the backbone."""
    words = (word.partition("=")[0] for word in arguments if word.startswith("--"))
    return any(
        word.endswith(f"backbone.init_args.{option}") or word.endswith(f"backbone.{option}")
        for word in words
    )
