"""``--sources A,B --architecture NAME``: the short form for a zoo of one's own checkpoints.

Stands for the two options of the backbone of those names. Works on parsed configurations; nothing
is read or built here.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

from lightning.pytorch.cli import LightningArgumentParser

from zoo_lightning.errors import ConfigError
from zoo_lightning.shares import INFORMED
from zoo_lightning.sources.spec import parse_sources

Options = MutableMapping[str, Any]


def add_short_form(parser: LightningArgumentParser) -> None:
    """Add the two options to a parser."""
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
    """Put ``sources`` and ``architecture`` of a subcommand's options where the backbone has them.

    Numbers for each source (``gate_init``, ``norm_weights``, a soup's ``weights``) that the
    experiment gives for another number of sources give way; those on the command line stay.

    Args:
        options: the parsed options of a subcommand; changed, and without a short form afterwards.
        arguments: the words of the command line.

    Returns:
        Lines that say what gave way.

    Raises:
        ConfigError: no sources between the commas.
        SourceError: a reference that cannot be right.
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
    return give_way(init_args, before, names, arguments)


FOUND = {"gate_init": "greedy", "norm_weights": "gates"}
"""What stands in for an experiment's numbers: nobody knows yet which of the new sources is good, so
the training data are to say it."""


def split_sources(given: str | Sequence[Any]) -> list[Any]:
    """References with commas between, or a list of sources, as a list.

    Raises:
        ConfigError: an empty reference.
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


def give_way(
    init_args: Options, before: int, names: Sequence[str], arguments: Sequence[str]
) -> list[str]:
    """Take back an experiment's numbers for each source where they do not fit the new sources.

    Args:
        init_args: the backbone's options; changed.
        before: number of sources that the experiment has.
        names: of the new sources.
        arguments: the words of the command line; what is set there stays.

    Returns:
        A line, if anything gave way or now counts for other sources.
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
        return [f"the experiment's {options} now counts for the sources {', '.join(names)}"]
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
    """Whether the command line itself sets an option of the backbone."""
    words = (word.partition("=")[0] for word in arguments if word.startswith("--"))
    return any(
        word.endswith(f"backbone.init_args.{option}") or word.endswith(f"backbone.{option}")
        for word in words
    )
