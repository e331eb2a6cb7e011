"""Home folders in paths that the shell does not expand: ``--run_dir=~/runs``, or in a YAML file."""

from __future__ import annotations

import argparse
import os
from collections.abc import MutableMapping, MutableSequence
from typing import Any


def expand_word(word: str) -> str:
    """A word of a command line with ``~`` and ``~user`` as the folders that they stand for.

    Args:
        word: a value, some with commas between, or an option with ``=`` and a value.
    """
    name, sign, value = word.partition("=") if word.startswith("-") else ("", "", word)
    if "~" not in value:
        return word
    return name + sign + ",".join(map(expand, value.split(",")))


def expand(value: str) -> str:
    """A value whose beginning ``~`` or ``~user`` becomes the folder that it stands for."""
    return os.path.expanduser(value) if value.startswith("~") else value


def expand_all(content: Any) -> None:
    """Expand all values of nested namespaces, mappings and lists in place."""
    if isinstance(content, argparse.Namespace):
        content = vars(content)
    if isinstance(content, MutableMapping):
        places = list(content.items())
    elif isinstance(content, MutableSequence):
        places = list(enumerate(content))
    else:
        return
    for place, value in places:
        if isinstance(value, str):
            content[place] = expand(value)
        else:
            expand_all(value)
