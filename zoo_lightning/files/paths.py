"""Home folders in paths that the shell does not expand: ``--run_dir=~/runs``, or in a YAML file."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, MutableMapping, MutableSequence
from typing import Any


def expand_word(word: str) -> str:
    """Expand ``~`` and ``~user`` in a word of a command line.

    Args:
        word: value, or several values separated by commas, or an option with ``=`` and such a
            value.
    """
    name, sign, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if "~" not in value:
        return word
    return name + sign + ",".join(map(expand, value.split(",")))


def expand(value: Any) -> Any:
    """Expand ``~`` or ``~user`` at the beginning of a string; return other values unchanged."""
    return os.path.expanduser(value) if isinstance(value, str) and value[:1] == "~" else value


def replace_values(content: Any, change: Callable[[Any], Any]) -> None:
    """Replace all values of nested namespaces, mappings and lists in place.

    Args:
        content: namespace, mapping or list; anything else is ignored.
        change: function from a value that is none of these to its replacement.
    """
    if isinstance(content, argparse.Namespace):
        content = vars(content)
    if isinstance(content, MutableMapping):
        places = list(content.items())
    elif isinstance(content, MutableSequence):
        places = list(enumerate(content))
    else:
        return
    for place, value in places:
        if isinstance(value, (argparse.Namespace, MutableMapping, MutableSequence)):
            replace_values(value, change)
        else:
            content[place] = change(value)
