"""Expand W&B's macros in the command of a sweep file, as W&B's agent does.

Unlike the agent, which drops unknown macros and replaces unset environment variables by their
names, this module refuses both.
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
from zoo_lightning.experiments.option_names import OF_RUNS, RENAMED, documented

VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")

MACRO = re.compile(r"\$\{([^}]*)\}")

MACROS = (
    "env", "interpreter", "program", "args", "args_no_equals", "args_no_hyphens",
    "args_no_boolean_flags", "args_json", "args_json_file", "args_append_hydra",
    "args_override_hydra",
)  # fmt: skip


def argument_forms(values: Mapping[str, Any]) -> dict[str, list[str]]:
    """Build the words of each W&B macro that stands for the parameters.

    Args:
        values: values of the parameters, in plain types; mappings for nested parameters.
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
    """Expand the macros of a command into the command line of a trial.

    Args:
        command: words and macros.
        values: values of the parameters.
        program: ``program`` of the sweep file.
        json_file: file that ``${args_json_file}`` stands for; the caller must write it.

    Raises:
        ConfigError: a macro is unknown or inside a word, or an environment variable is not set.
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
                raise ConfigError("command: ${program} needs the key program; add it")
            words += forms[found[1]]
        elif inside := MACRO.search(word):
            raise ConfigError(_complaint(word, inside[1], bool(found)))
        else:
            words.append(word)
    return words


def _complaint(word: str, macro: str, whole: bool) -> str:
    if macro in MACROS and not whole:
        return (
            f"command: {word!r} has ${{{macro}}} inside; W&B expands only macros that are an "
            "item of their own: make two items of it"
        )
    return f"command: unknown macro {word!r}.{nearest(macro, MACROS)} Known: {', '.join(MACROS)}"


def _with_variables(word: str) -> str:
    def value(found: re.Match[str]) -> str:
        try:
            return os.environ[found[1]]
        except KeyError:
            raise ConfigError(
                f"command: {word!r} needs the environment variable {found[1]}, which is not set; "
                f"export {found[1]}"
            ) from None

    return VARIABLE.sub(value, word)


def nested(values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """Convert values by path to W&B's form, with mappings for nested parameters."""
    found: dict[str, Any] = {}
    for (*above, last), value in values.items():
        inside = found
        for key in above:
            inside = inside.setdefault(key, {})
        inside[last] = value
    return found


def words_of_fit(words: Sequence[str]) -> list[str]:
    """Return the words of a trial's command line after ``fit`` of this package.

    Raises:
        ConfigError: the command runs something else, or sets an option that the sweep sets.
    """
    for at, word in enumerate(words):
        module = words[at : at + 3] == ["-m", "zoo_lightning", "fit"]
        if module or (Path(word).name == "zoo-lightning" and words[at + 1 : at + 2] == ["fit"]):
            rest = list(words[at + (3 if module else 2) :])
            break
    else:
        raise ConfigError(
            f"command: {' '.join(words)!r} does not run fit of this package, which a sweep needs "
            "to run locally; expected ${env} ${interpreter} -m zoo_lightning fit --experiment NAME "
            "--config ${args_json_file}, each an item of its own"
        )
    for word in documented(rest, RENAMED | OF_RUNS):
        option = word.partition("=")[0]
        if option in ("--run_dir", "--ckpt_path"):
            raise ConfigError(
                f"command: has {option}, which the sweep sets for every trial; remove it"
            )
    return rest
