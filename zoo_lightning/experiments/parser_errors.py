"""Shorten jsonargparse's errors to one line, with suggestions for mistyped names.

Only this module depends on the wording of jsonargparse's messages. Without it, a mistyped option of
a class is reported as a tree of over a hundred lines with every type that was tried. If a new
version of jsonargparse changes a message, the line shows the original message;
``tests/experiments/test_parser_errors.py`` then fails.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator

from lightning.pytorch import LightningDataModule, Trainer
from torch import nn

from zoo_lightning.errors import nearest
from zoo_lightning.experiments.finding import known_experiments

NOISE = re.compile(
    r"Does not validate against|Subtypes: |Errors:$|Expected a <class 'NoneType'>|Given value"
)
"""Lines of jsonargparse's tree that do not describe the mistake."""

LACKING = "the following arguments are required: "
"""Beginning of jsonargparse's message for a class with missing options."""

UNKNOWN_KEYS = (
    re.compile(r"Subcommand '\w+' does not accept option '(.+)'"),
    re.compile(r"Group '(.+)' does not accept option '(.+)'"),
    re.compile(r"Option '(.+)' is not accepted"),
)
"""Patterns of jsonargparse's messages for unknown keys in a configuration."""

USUAL = {"learning_rate": "lr", "epochs": "max_epochs", "steps": "max_steps", "bs": "batch_size",
         "wd": "weight_decay", "workers": "num_workers", "path": "root", "dir": "root",
         "csv": "root", "gpus": "devices", "model_name": "architecture"}  # fmt: skip
"""Option names of other programs, each with this package's name of the option."""


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """List all options of a parser and its subcommands, with their dashes."""
    names: list[str] = []
    for action in parser._actions:
        names += action.option_strings
        if isinstance(action.choices, dict):
            for subparser in action.choices.values():
                names += option_names(subparser)
    return names


def one_line(message: str, options: list[str]) -> str:
    """Shorten an error message of jsonargparse to one line.

    Args:
        message: error message, possibly a tree of the types that were tried.
        options: names of the parser's options, for suggestions.
    """
    if found := re.match(r"(?:unrecognized arguments|ambiguous option): (\S+?)(=|\s|$)", message):
        near = elsewhere(found[1]) or nearest(found[1], options)
        return f"unknown option {found[1]!r}.{near}"
    for pattern in UNKNOWN_KEYS:
        if found := pattern.fullmatch(message):
            key = ".".join(found.groups())
            known = [option.lstrip("-") for option in options]
            near = nearest(key, known) or nearest(key.partition(".")[0], known)
            return f"unknown option {key!r} in a configuration.{near}"
    if found := re.match(r"[^\n]*are required: (.+)", message):
        missing = re.sub(r"\b\w+\.(data|model)\b", r"\1", found[1])
        names = ", ".join(known_experiments()) or "none found"
        return f"{missing} missing; give --experiment NAME, known are {names}, or a YAML file"
    place, faults = "", []
    owner: str | None = None
    given = re.search(r"Given value: (.+)", message)
    for line in (line.strip().removeprefix("- ") for line in message.splitlines()):
        if not line or NOISE.match(line):
            continue
        if found := re.fullmatch(r'Parser key "(.+?)":(.*)', line):
            place = f"{place}.{found[1]}" if place else found[1]
            line = found[2].strip()
        elif found := re.match(r"Problem with given class_path '(?:.*\.)?(\w+)':(.*)", line):
            owner, line = found[1], found[2].strip()
            place = f"{place} ({owner})"
        if line:
            faults.append(_fault(line, owner, given[1] if given else ""))
    if lacking := [fault.removeprefix(LACKING) for fault in faults if fault.startswith(LACKING)]:
        # The class is right: which other types the option takes does not matter.
        key = place.partition(" ")[0]
        options = [f"--{key}.{name}" for name in lacking[0].split(", ")]
        return f"{place}: {lacking[0]} missing; give {' and '.join(options)}"
    kinds = [re.fullmatch(r"expected (.+?)(, found .+?)?\.( Did you mean .+)?", f) for f in faults]
    if len(kinds) > 1 and all(kinds):  # one value that is of none of an option's types
        parts = [kind.groups("") for kind in kinds if kind]
        types, near = " or ".join(part[0] for part in parts), "".join(part[2] for part in parts)
        faults = [f"expected {types}{parts[0][1]}.{near}"]
    return f"{place}: {'; or '.join(faults)}" if place else " ".join(faults)


def elsewhere(option: str) -> str:
    """Suggest an option with the same meaning in another part of the configuration.

    Args:
        option: unknown option with its dashes, optionally with a group and a dot.

    Returns:
        ``" Did you mean --data.batch_size?"`` with a leading space, or an empty string.
    """
    last = option.lstrip("-").rpartition(".")[2].replace("-", "_")
    names = [last, USUAL[last]] if last in USUAL else [last]
    parts: dict[str, set[str]] = {"data": set(), "model": set(), "model.backbone": set()}
    for name, cls in known_classes().items():
        options = set(parameters_of(name))
        if issubclass(cls, LightningDataModule):
            parts["data"] |= options
        elif name.endswith("Task"):
            parts["model"] |= options
        elif name.endswith("Backbone"):
            parts["model.backbone"] |= options
    parts["trainer"] = {*inspect.signature(Trainer).parameters}
    found = [f"--{part}.{name}" for name in names for part in parts if name in parts[part]]
    return f" Did you mean {found[0]}?" if found else ""


def _fault(line: str, owner: str | None, given: str) -> str:
    """Reword one leaf of the tree, with a suggestion where something is mistyped."""
    if found := re.match(r"Option '(.+)' is not accepted", line):
        hint = nearest(found[1], parameters_of(owner)) or elsewhere(found[1])
        if found[1] in parameters_of(owner):  # of a base class
            hint = f" {owner} does not take it; other classes do."
        if owner == "PlainBackbone" and found[1] in parameters_of("ZooBackbone"):
            hint = " Only zoos have it; put --experiment methods/lite or methods/full before it."
        return f"unknown option {found[1]!r}.{hint}"
    if "surrogates not allowed" in line:
        return (
            "its value has bytes that are no UTF-8 text, which configurations cannot hold; rename "
            "the file or folder, or make a link with another name, and in other locales set "
            "PYTHONUTF8=1"
        )
    if found := re.match(r"Expected a dot import path string: (.+)", line):
        return f"unknown class {found[1]!r}.{nearest(found[1], list(known_classes()))}"
    if found := re.match(
        r"Not of type \w+: (\S+ )?does not conform to restriction v([<>=]+)(.+)", line
    ):
        value = (found[1] or given).strip()
        return f"must be {found[2]} {found[3]}{f', got {value}' if value else ''}"
    if found := re.match(r"Expected a (.+?)(?:\. Got value: (.*)|$)", line):
        wanted = re.sub(r"<class '(.+)'>|typing\.Literal\[(.+)\]", r"\1\2", found[1])
        kind = "one of " if "Literal" in found[1] else ""
        value = given.strip() if found[2] is None else found[2]
        got = f", found {value!r}" if value else ""
        return f"expected {kind}{wanted}{got}.{_near_choice(value, wanted)}"
    return line


def _near_choice(found: str, choices: str) -> str:
    return nearest(found, re.findall(r"'(.+?)'", choices))


def known_classes() -> dict[str, type]:
    """Map short names to the tasks, backbones and data modules that they refer to."""
    found: dict[str, type] = {}
    waiting: list[type] = [nn.Module, LightningDataModule]
    while waiting:
        subclasses: list[type] = waiting.pop().__subclasses__()
        for cls in subclasses:
            if cls.__name__ in found and found[cls.__name__] is cls:
                continue
            waiting.append(cls)
            if cls.__module__.startswith("zoo_lightning."):
                found[cls.__name__] = cls
    return found


def parameters_of(name: str | None) -> list[str]:
    """List a class's constructor options, including those passed on to base classes."""
    cls = known_classes().get(name or "")
    return [] if cls is None else sorted({*_parameters(cls)} - {"self", "args", "kwargs"})


def _parameters(cls: type) -> Iterator[str]:
    for base in cls.__mro__:
        if "__init__" in vars(base) and base is not object:
            yield from inspect.signature(vars(base)["__init__"]).parameters
