"""The parser of the Trainer subcommands: its complaints are one line that names the mend.

jsonargparse reports a mistyped option as a screenful of usage and a tree of the types it tried.
"""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile
from lightning.pytorch import LightningDataModule
from lightning.pytorch.cli import LightningArgumentParser
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments import find_experiment, known_experiments
from zoo_lightning.yaml_files import check_files

NOISE = re.compile(
    r"Does not validate against|Subtypes: |Errors:$|Expected a <class 'NoneType'>|Given value"
)
"""Lines of jsonargparse's tree that say nothing about the mistake."""

BADLY_WRITTEN = (
    *(TypeError, ValueError, argparse.ArgumentError, ConfigError),
    # What PyYAML makes of tags that do not suit their text.
    *(LookupError, AttributeError, RecursionError, yaml.YAMLError),
)
"""What reading a configuration raises if something is wrong with it."""


@contextmanager
def named_interpolations() -> Iterator[None]:
    """Turn what OmegaConf says of a ``${...}`` that leads nowhere into one line.

    Raises:
        ConfigError: naming the option.
    """
    try:
        yield
    except (OmegaConfBaseException, RecursionError) as error:
        key = str(getattr(error, "full_key", None) or "a configuration").partition(".")
        said = str(error).partition("\n")[0] or "it stands for itself"
        raise ConfigError(
            f"{key[2] or key[0]}: its ${{...}} cannot be resolved ({said}); expected the name of "
            "another option, such as ${data.init_args.root}"
        ) from error


class OneLineParser(LightningArgumentParser):
    """Parser that raises :class:`~zoo_lightning.errors.ConfigError` in place of printing usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Say in one line what is wrong.

        Raises:
            ConfigError: always, but for parsing attempts that jsonargparse makes by itself.
        """
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", None) or self
        raise ConfigError(one_line(message, option_names(parser))) from ex


def option_names(parser: argparse.ArgumentParser) -> list[str]:
    """All options of a parser and of its subcommands, with their dashes."""
    names = []
    for action in parser._actions:
        names += action.option_strings
        for subparser in getattr(action, "choices", None) or ():
            if isinstance(action.choices, dict):
                names += option_names(action.choices[subparser])
    return names


def one_line(message: str, options: list[str]) -> str:
    """Bring a complaint of jsonargparse into one line.

    Args:
        message: what jsonargparse says, perhaps a tree of the types it tried.
        options: names of the parser's options, for suggestions.
    """
    if found := re.match(r"(?:unrecognized arguments|ambiguous option): (\S+?)(=|\s|$)", message):
        return f"unknown option {found[1]!r}.{nearest(found[1], options)}"
    if found := re.match(r"Subcommand '\w+' does not accept option '(.+)'", message):
        known = [option.lstrip("-") for option in options]
        near = nearest(found[1], known) or nearest(found[1].partition(".")[0], known)
        return f"unknown option {found[1]!r} in a configuration.{near}"
    if "are required: " in message:
        missing = re.sub(r"\b\w+\.(data|model)\b", r"\1", message.partition("are required: ")[2])
        names = ", ".join(known_experiments()) or "none found"
        return f"{missing} missing; give --experiment NAME, known are {names}, or a YAML file"
    place, faults, owner = "", [], None
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
            faults.append(_fault(line, owner))
    return f"{place}: {'; or '.join(faults)}" if place else " ".join(faults)


def _fault(line: str, owner: str | None) -> str:
    """One leaf of the tree, with a suggestion where something is mistyped."""
    if found := re.match(r"Option '(.+)' is not accepted", line):
        hint = nearest(found[1], parameters_of(owner))
        if owner == "PlainBackbone" and found[1] in parameters_of("ZooBackbone"):
            hint = " It is one of zoos; put --experiment methods/lite or methods/full before it."
        return f"unknown option {found[1]!r}.{hint}"
    if found := re.match(r"Expected a dot import path string: (.+)", line):
        return f"unknown class {found[1]!r}.{nearest(found[1], list(known_classes()))}"
    if found := re.match(r"Expected a (.+?)\. Got value: (.*)", line):
        wanted = re.sub(r"<class '(.+)'>|typing\.Literal\[(.+)\]", r"\1\2", found[1])
        kind = "one of " if "Literal" in found[1] else ""
        return f"expected {kind}{wanted}, found {found[2]!r}.{_near_choice(found[2], wanted)}"
    return line


def _near_choice(found: str, choices: str) -> str:
    return nearest(found, re.findall(r"'(.+?)'", choices))


def known_classes() -> dict[str, type]:
    """Tasks, backbones and data modules that can be named without their module."""
    found: dict[str, type] = {}
    waiting: list[type] = [nn.Module, LightningDataModule]
    while waiting:
        for cls in waiting.pop().__subclasses__():
            if cls.__name__ in found and found[cls.__name__] is cls:
                continue
            waiting.append(cls)
            if cls.__module__.startswith("zoo_lightning."):
                found[cls.__name__] = cls
    return found


def parameters_of(name: str | None) -> list[str]:
    """Names of a class's options, those that it passes on to its bases included."""
    cls = known_classes().get(name or "", object)
    bases = [base for base in cls.__mro__ if "__init__" in vars(base) and base is not object]
    names = {name for base in bases for name in inspect.signature(base.__init__).parameters}
    return sorted(names - {"self", "args", "kwargs"})


class ExperimentAction(ActionConfigFile):
    """``--experiment NAME`` is ``--config`` of the experiment's file."""

    def __call__(
        self, parser: Any, cfg: Any, values: Any, option_string: str | None = None
    ) -> None:
        """Find the file, then do as ``--config`` does."""
        if option_string == "--experiment":
            values = str(find_experiment(values))
            check_files(values)
        try:
            super().__call__(parser, cfg, values, option_string)
        except BADLY_WRITTEN as error:
            complaint = one_line(str(error), option_names(parser))
            raise ConfigError(f"configuration {values}: {complaint}") from error
