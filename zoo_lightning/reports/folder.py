"""Read the files of a folder for a report; missing ones are left out, damaged ones are noted."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError
from zoo_lightning.files.plain_yaml import one_line, read_yaml
from zoo_lightning.files.text import TEXT

MOST_ROWS = 200_000
"""Largest number of rows of a table that are read."""


@dataclass
class Folder:
    """Folder whose files a report is made of.

    Attributes:
        path: the folder.
        notes: a line for each file that could not be read.
    """

    path: Path
    notes: list[str] = field(default_factory=list)

    def has(self, name: str) -> bool:
        """Whether there is a file of that name."""
        return (self.path / name).is_file()

    def mapping(self, name: str) -> dict[str, Any]:
        """Read a JSON file with an object; empty if it is missing or damaged."""
        found = self.json(name)
        if found is not None and not isinstance(found, dict):
            self.note(name, f"expected an object, found a {type(found).__name__}")
        return found if isinstance(found, dict) else {}

    def json(self, name: str) -> Any:
        """Read a JSON file; ``None`` if it is missing or damaged."""
        if not self.has(name):
            return None
        try:
            return json.loads((self.path / name).read_text(**TEXT))
        except (ValueError, RecursionError, OSError) as error:
            self.note(name, one_line(error))
            return None

    def yaml(self, name: str) -> dict[str, Any]:
        """Read a YAML file with a mapping; empty if it is missing or damaged."""
        if not self.has(name):
            return {}
        try:
            found = read_yaml(self.path / name)
        except ConfigError as error:
            self.note(name, one_line(error))
            return {}
        return found if isinstance(found, dict) else {}

    def text(self, name: str) -> str:
        """Read a text file; empty if it is missing."""
        if not self.has(name):
            return ""
        return (self.path / name).read_text(encoding="utf-8", errors="replace")

    def rows(self, name: str) -> list[dict[str, str]]:
        """Read a CSV file without rows that are cut off, as a killed process leaves them."""
        if not self.has(name):
            return []
        found = []
        try:
            with (self.path / name).open(newline="", encoding="utf-8", errors="replace") as stream:
                for row in csv.DictReader(stream):
                    if None not in row and None not in row.values():
                        found.append(row)
                    if len(found) == MOST_ROWS:
                        self.note(name, f"only its first {MOST_ROWS} rows are used")
                        break
        except (csv.Error, OSError) as error:
            self.note(name, one_line(error))
        return found

    def curves(self, name: str) -> dict[str, dict[int, float]]:
        """Read a CSV file of logged values with a column ``step``: values by step, by column."""
        found: dict[str, dict[int, float]] = {}
        for row in self.rows(name):
            step = finite(row.pop("step", ""))
            if step is None:
                continue
            for column, text in row.items():
                if (value := finite(text)) is not None:
                    found.setdefault(column, {})[int(step)] = value
        return found

    def note(self, name: str, reason: str) -> None:
        """Note that a file was not read, and why."""
        self.notes.append(f"{name} is left out: {reason}")


def finite(content: Any) -> float | None:
    """Finite number that a text or a value stands for; ``None`` for anything else."""
    if isinstance(content, bool):
        return None
    try:
        number = float(content)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def within(content: Any, *keys: str) -> Any:
    """Value at a path of nested mappings; ``None`` where there is none."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content
