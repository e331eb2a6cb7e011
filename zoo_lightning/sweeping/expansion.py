"""A trial's command line: the words of a sweep file with W&B's macros expanded, as its agent does.

Unlike the agent, which leaves out macros it does not know and takes the name of a variable that is
not set for its value, this refuses both.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError, nearest

VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")

MACRO = re.compile(r"\$\{([^}]*)\}")

MACROS = (
    "env", "interpreter", "program", "args", "args_no_equals", "args_no_hyphens",
    "args_no_boolean_flags", "args_json", "args_json_file", "args_append_hydra",
    "args_override_hydra",
)  # fmt: skip


def argument_forms(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Parameters in all forms that W&B has a macro for.

    Args:
        values: of the parameters, in plain types; of nested ones a mapping.
    """
    flags = [f"{name}={value}" for name, value in values.items()]
    no_false: list[str] = []
    for name, value in values.items():
        if not isinstance(value, bool):
            no_false.append(f"--{name}={value}")
        elif value:
            no_false.append(f"--{name}")
    return {
        "args": [f"--{flag}" for flag in flags],
        "args_no_equals": [word for n, v in values.items() for word in (f"--{n}", str(v))],
        "args_no_hyphens": flags,
        "args_no_boolean_flags": no_false,
        "args_json": [json.dumps(values)],
        "args_append_hydra": [f"+{flag}" for flag in flags],
        "args_override_hydra": [f"++{flag}" for flag in flags],
    }


def expand(
    command: Sequence[str], values: Mapping[str, Any], program: str, json_file: Path
) -> list[str]:
    """Command line of a trial.

    Args:
        command: words and macros.
        values: of the parameters.
        program: the sweep file's ``program``.
        json_file: what ``${args_json_file}`` stands for; has to be written by the caller.

    Raises:
        ConfigError: a macro that does not exist, one inside a word, or a variable that is not set.
    """
    forms = argument_forms(values) | {
        "env": [] if sys.platform == "win32" else ["/usr/bin/env"],
        "interpreter": [sys.executable],
        "program": [program],
        "args_json_file": [str(json_file)],
    }
    words: list[str] = []
    for word in map(_with_variables, command):
        found = MACRO.fullmatch(word)
        if found and found[1] in forms:
            if found[1] == "program" and not program:
                raise ConfigError("command: has ${program}, but the file has no program; add it")
            words += forms[found[1]]
        elif inside := MACRO.search(word):
            raise ConfigError(_complaint(word, inside[1], bool(found)))
        else:
            words.append(word)
    return words


def _complaint(word: str, macro: str, whole: bool) -> str:
    if macro in MACROS and not whole:
        return (
            f"command: {word!r} has ${{{macro}}} inside; W&B expands macros that are an item of "
            "their own: make two items of it"
        )
    return f"command: unknown macro {word!r}.{nearest(macro, MACROS)} Known: {', '.join(MACROS)}"


def _with_variables(word: str) -> str:
    def value(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError:
            raise ConfigError(
                f"command: {word!r} wants the environment variable {found[1]}, which is not set; "
                f"export {found[1]}"
            ) from None

    return VARIABLE.sub(value, word)


def nested(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Values by their place as W&B hands them over: mappings for nested parameters."""
    found: dict[str, Any] = {}
    for (*above, last), value in values.items():
        inside = found
        for key in above:
            inside = inside.setdefault(key, {})
        inside[last] = value
    return found


def words_of_fit(words: Sequence[str]) -> list[str]:
    """Of a trial's command line those that come after ``fit`` of this package's program.

    Raises:
        ConfigError: the command starts something else, or sets what the sweep has to set.
    """
    for at, word in enumerate(words):
        module = words[at : at + 3] == ["-m", "zoo_lightning", "fit"]
        if module or (Path(word).name == "zoo-lightning" and words[at + 1 : at + 2] == ["fit"]):
            rest = list(words[at + (3 if module else 2) :])
            break
    else:
        raise ConfigError(
            f"command: {' '.join(words)!r} is no fit of this package, which a sweep that runs here "
            "needs; expected ${env} ${interpreter} -m zoo_lightning fit --experiment NAME "
            "--config ${args_json_file}, each an item of its own"
        )
    for word in rest:
        option = word.partition("=")[0]
        if option in ("--run_dir", "--ckpt_path"):
            raise ConfigError(f"command: has {option}, which every trial gets anew; remove it")
    return rest
