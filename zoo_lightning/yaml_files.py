"""YAML that nobody vouches for: plain values only, and not more of them than options could be.

PyYAML's safe loaders run no code, but a few lines of aliases stand for billions of values, and deep
nesting overflows the interpreter's stack. Both are found here from the file's events, before
anything is built of it.
"""

from __future__ import annotations

import os
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.errors import ConfigError, ZooError

MOST_VALUES = 100_000
"""Values that a file may stand for, those behind aliases counted as often as they are named."""

DEEPEST = 100
"""Mappings and lists that may lie in one another."""

LARGEST_FILE = 10_000_000
"""Bytes."""

SUFFIXES = (".yaml", ".yml", ".json")

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, kind: type[ZooError] = ConfigError) -> Any:
    """Content of a YAML file.

    Args:
        path: of the file.
        kind: of the error, as suits what the file is for.

    Raises:
        ZooError: of that kind: it cannot be read, asks for objects of Python's, or stands for too
            much.
    """
    text = _text(path, kind)
    check_yaml(text, str(path), kind)
    try:
        return yaml.load(text, Loader=LOADER)
    except Exception as error:  # PyYAML raises whatever a tag's text leads it to
        raise kind(f"{path} cannot be read as YAML ({one_line(error)})") from error


def check_files(given: str, seen: frozenset[Path] = frozenset()) -> None:
    """Check a configuration file and those that it names, if what is given is a file.

    Args:
        given: a path, or anything else, which is left alone.
        seen: files that are being checked.

    Raises:
        ConfigError: one of them is no YAML file, or stands for too much.
    """
    path = Path(given)
    if path.suffix not in SUFFIXES or not os.path.isfile(path) or path.resolve() in seen:
        return
    # A configuration may name others, by paths from its own folder.
    for value in check_yaml(_text(path, ConfigError), str(path)):
        if value.endswith(SUFFIXES):
            check_files(str(path.parent / value), seen | {path.resolve()})


def check_yaml(text: str, place: str, kind: type[ZooError] = ConfigError) -> list[str]:
    """Check how much a text stands for, without building it.

    Args:
        text: YAML.
        place: the file, for messages.
        kind: of the error.

    Returns:
        Its scalars as they are written.

    Raises:
        ZooError: of that kind: it is no YAML, nests too deeply, stands for too many values, or for
            endless ones.
    """
    if _unclosed(text) > 10 * DEEPEST:  # libyaml takes minutes to find out
        raise kind(f"{place}: has more than {10 * DEEPEST:,} brackets that are not closed; mend it")
    scalars: list[str] = []
    weights: dict[str, int] = {}
    open_nodes: list[list[Any]] = [[None, 0]]  # anchor, and number of values so far
    try:
        for event in yaml.parse(text, Loader=LOADER):
            weight, anchor = 0, getattr(event, "anchor", None)
            if isinstance(event, yaml.AliasEvent):
                if anchor not in weights:
                    raise kind(
                        f"{place}: the alias *{anchor} on line {event.start_mark.line + 1} stands "
                        "for itself, or for nothing that comes before it; write the value out"
                    )
                weight, anchor = weights[anchor], None
            elif isinstance(event, yaml.CollectionStartEvent):
                open_nodes.append([anchor, 1])
                continue
            elif isinstance(event, yaml.CollectionEndEvent):
                anchor, weight = open_nodes.pop()
            elif isinstance(event, yaml.ScalarEvent):
                weight = 1
                scalars.append(event.value)
            if anchor is not None:
                weights[anchor] = weight
            open_nodes[-1][1] += weight
            if open_nodes[-1][1] > MOST_VALUES or len(open_nodes) > DEEPEST:
                raise kind(
                    f"{place}: stands for more than {MOST_VALUES:,} values, or nests deeper than "
                    f"{DEEPEST}; no file of options does. Remove aliases (*name), or write values "
                    "out"
                )
    except yaml.YAMLError as error:
        raise kind(f"{place} cannot be read as YAML ({one_line(error)})") from error
    return scalars


def _unclosed(text: str) -> int:
    """Most brackets that are open at any place, those in strings counted too."""
    steps = {"[": 1, "{": 1, "]": -1, "}": -1}
    return max(accumulate(steps[each] for each in text if each in steps), default=0)


def one_line(error: Exception) -> str:
    """What an error says, in one line and not too long."""
    return " ".join(str(error).split())[:300]


def _text(path: Path, kind: type[ZooError]) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise kind(f"{path}: has more than {LARGEST_FILE:,} bytes; no file of options has")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise kind(f"{path} cannot be read as YAML ({one_line(error)})") from error
