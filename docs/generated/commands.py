"""The command line's reference, from the parsers themselves."""

from __future__ import annotations

import argparse
import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from zoo_lightning.cli.program import SOURCES, SUBCOMMANDS, main

COMMANDS = (
    *(name for name in SUBCOMMANDS if name != "sources"),
    "fit --method METHOD",
    *(f"sources {name}" for name in SOURCES),
)
"""Words of all subcommands."""

LONG_TITLE = 40
"""Characters of a group of options' title, from which on it is a description."""

INTRODUCTION = """\
# Command line

Every option of every subcommand, from the parsers. `python -m zoo_lightning SUBCOMMAND --help`
prints the same. Options of tasks, backbones and data modules are the arguments of their classes:
[tasks](api/zoo_lightning.tasks.md), [backbones](api/zoo_lightning.models.md),
[data](api/zoo_lightning.data.md).
"""


def parser_of(command: str) -> argparse.ArgumentParser | None:
    """The parser of a subcommand, caught when it would print its help; ``None`` if it has none.

    Args:
        command: words of the subcommand.
    """
    caught: list[argparse.ArgumentParser] = []

    def catch(parser: argparse.ArgumentParser, file: Any = None) -> None:
        caught.append(parser)

    with (
        patch.object(argparse.ArgumentParser, "print_help", catch),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.suppress(SystemExit),
    ):
        main([*command.replace("METHOD", "auto").split(), "--help"])
    return caught[0] if caught else None


def _cell(text: str) -> str:
    """Text for a cell of a table, whose signs mean themselves."""
    text = " ".join(text.split())
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"([|*_<>\[\]$\\])", r"\\\1", part) for part in parts[::2]]
    return "".join(parts)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    """An option's help with its values filled in, as ``--help`` prints it."""
    if not action.help:
        return ""
    formatter = parser._get_formatter()
    return formatter._expand_help(action)


def _words(action: argparse.Action) -> str:
    """An option's names and its value's."""
    names = ", ".join(f"`{name}`" for name in action.option_strings)
    if action.choices is not None:
        value = "{" + ",".join(map(str, action.choices)) + "}"
    elif action.nargs == 0:
        value = ""
    else:
        metavar = action.metavar or (action.dest if not names else "")
        value = " ".join(metavar) if isinstance(metavar, tuple) else str(metavar or "")
        value = re.sub(r"[\x00-\x1f]", "", value)  # jsonargparse's has a backspace
    return " ".join(each for each in (names, f"`{value}`" if value else "") if each)


def _tables(parser: argparse.ArgumentParser) -> Iterator[str]:
    """A table for each group of options."""
    for group in parser._action_groups:
        actions = [each for each in group._group_actions if each.help != argparse.SUPPRESS]
        if not actions:
            continue
        title = " ".join((group.title or "options").split()).rstrip(":")
        description = group.description
        if len(title) > LONG_TITLE:  # jsonargparse takes the first paragraph of a class
            description, title = title, actions[0].dest.partition(".")[0]
        yield f"## {_cell(title[0].upper() + title[1:])}\n"
        if description:
            yield f"{_cell(description)}\n"
        yield "| option | meaning |\n|---|---|"
        for action in actions:
            words = _words(action).replace("|", "\\|")
            yield f"| {words} | {_cell(_help(parser, action))} |"
        yield ""


def page(command: str) -> str:
    """The page of a subcommand."""
    title = f"# {command}\n\n"
    if command == "sources list":
        return f"{title}Print the cards of the shipped sources. It has no options.\n"
    parser = parser_of(command)
    if parser is None:
        raise AssertionError(f"{command} --help printed no parser's help")
    description = parser.description or ""
    parts = [_cell(part) for part in description.split("\n\n")]
    parts.append("\n".join(_tables(parser)))
    parts.append(_cell(parser.epilog or ""))
    return title + "\n\n".join(part for part in parts if part) + "\n"


def write(folder: Path) -> str:
    """Write the pages; returns the index's place on the site."""
    place = folder / "reference" / "command_line"
    place.mkdir(parents=True, exist_ok=True)
    names = []
    for command in COMMANDS:
        name = re.sub(r"\W+", "_", command.replace("METHOD", "")).strip("_")
        names.append(name)
        (place / f"{name}.md").write_text(page(command), encoding="utf-8")
    tree = "\n".join(f"command_line/{name}" for name in names)
    index = f"{INTRODUCTION}\n```{{toctree}}\n:maxdepth: 1\n\n{tree}\n```\n"
    (place.parent / "command_line.md").write_text(index, encoding="utf-8")
    return "reference/command_line.md"
