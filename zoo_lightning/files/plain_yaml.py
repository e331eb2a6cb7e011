"""YAML files read as plain values, without running code that they name."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from zoo_lightning.errors import ConfigError, ZooError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml(path: Path, kind: type[ZooError] = ConfigError) -> Any:
    """Read a YAML file.

    Args:
        path: file to read.
        kind: class of the error to raise.

    Raises:
        ZooError: the file cannot be read, is not YAML, or contains Python objects.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8-sig"), Loader=LOADER)
    except Exception as error:  # PyYAML raises whatever a tag's text leads it to
        raise kind(f"{path} cannot be read as YAML ({one_line(error)})") from error


def one_line(error: Exception) -> str:
    """Return an error's message in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]


def plain(value: Any) -> Any:
    """Convert a value of a subclass of str, int or float, which YAML cannot hold, to its base type.

    Such values are members of string enumerations, and jsonargparse's numbers with a range.
    """
    if isinstance(value, Enum) and isinstance(value, str):
        return value.value
    for base in (int, float):
        if isinstance(value, base) and type(value) not in (base, bool):
            return base(value)
    return value
