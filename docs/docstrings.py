"""Docstrings as they are written here, in plain text, made into reStructuredText for autodoc."""

from __future__ import annotations

import re
from typing import Any

_CODE = re.compile(r"(:[\w:]+:`[^`]+`|``.+?``|`[^`]+`|^\s*>>>.*$|^\s*\.\.\s.*$)")
_SPECIAL = re.compile(r"(?<!\\)([*|]|(?<=\w)_(?!\w))")


def escaped(line: str) -> str:
    """A line of a docstring whose signs mean themselves; single backticks mark code."""
    parts = _CODE.split(line)
    for place, part in enumerate(parts):
        if place % 2 == 0:
            parts[place] = _SPECIAL.sub(r"\\\1", part)
        elif re.fullmatch(r"`[^`]+`", part):
            parts[place] = f"`{part}`"
    return "".join(parts)


def _escape(app: Any, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Handler of ``autodoc-process-docstring``; changes the lines in place."""
    literal: int | None = None  # indentation of the line that a literal block belongs to
    for place, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if literal is not None and line.strip() and indent <= literal:
            literal = None
        if literal is None:
            lines[place] = escaped(line)
            if line.rstrip().endswith("::"):
                literal = indent


def setup(app: Any) -> None:
    """Run before napoleon, which reads the sections."""
    app.connect("autodoc-process-docstring", _escape, priority=100)
