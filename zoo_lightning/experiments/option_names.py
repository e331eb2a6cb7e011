"""Option names common to all subcommands: underscores, ``--ckpt_path``, ``--output``.

``--ckpt_path`` is the checkpoint or run of the model to use, ``--output`` the folder for results.
``fit``, ``compare`` and ``sweep`` have ``--run_dir`` instead, from which they can also resume.
Other spellings are accepted but not documented in any help.
"""

from __future__ import annotations

import argparse
import copy
import inspect
import pkgutil
import sys
import textwrap
import warnings
from abc import ABCMeta
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments.short_help import help_width
from zoo_lightning.runs.folders import is_first_rank

RENAMED = {"--ckpt": "--ckpt_path"}
"""Former names of options and their current ones, in every subcommand."""

OF_TRAINED = {"--run_dir": "--output"}
"""Former option names and current ones in commands that evaluate a trained model."""

OF_RUNS = {"--output": "--run_dir"}
"""Accepted option names and documented ones in commands that write and resume runs."""

OptionsT = TypeVar("OptionsT", bound=Any)

USER_KEYS = frozenset({"subsets", "dict_kwargs"})
"""Options whose keys are chosen by the user and may have hyphens."""


def documented(words: Sequence[str], renamed: Mapping[str, str] = RENAMED) -> list[str]:
    """Replace options of a command line by their documented names.

    Args:
        words: words of the command line; those after ``--`` are not changed.
        renamed: accepted names, each with the documented one.

    Returns:
        The new words; former names are reported on stderr.
    """
    end = words.index("--") if "--" in words else len(words)
    found, former = list(words), {}
    for place, word in enumerate(words[:end]):
        if not word.startswith("--"):
            continue
        given, sign, value = word.partition("=")
        name = underscored(given)
        if name in renamed:
            if name not in OF_RUNS:
                former[name] = renamed[name]
            name = renamed[name]
        found[place] = name + sign + value
    if former and is_first_rank():
        said = ", ".join(f"{old} is now {new}" for old, new in former.items())
        print(f"deprecated: {said}; the former name will not be accepted much longer",
              file=sys.stderr)  # fmt: skip
    return found


class RenamedOptions(ABCMeta):
    """Metaclass that accepts former names of a class's constructor options.

    A class lists the former names in ``former_names``. They are accepted, with a deprecation
    warning, by the constructor, in experiments and on the command line (see
    :class:`~zoo_lightning.experiments.parsing.ExperimentParser`) and in checkpoints. Signature and
    help have only the current names.
    """

    former_names: Mapping[str, str]
    """Former names of options, each with the current one."""

    def __call__(cls, *args: Any, **options: Any) -> Any:
        """Construct an object, with options under their current or former names."""
        return super().__call__(*args, **cls.present_names(options))

    @property
    def __signature__(cls) -> inspect.Signature:
        """Signature of the constructor, which :meth:`__call__` would otherwise hide."""
        return inspect.signature(inspect.getattr_static(cls, "__init__").__get__(cls))

    def present_names(cls, options: OptionsT) -> OptionsT:
        """Rename options to their current names.

        Args:
            options: values by current or former name; not modified.

        Returns:
            A copy with current names; each former name gives a deprecation warning.

        Raises:
            ConfigError: an option is given under both names.
        """
        named = copy.copy(options)
        for former, present in cls.former_names.items():
            if former not in options:
                continue
            if present in options:
                raise ConfigError(
                    f"{cls.__name__}: {former} is the former name of {present}, and both are "
                    f"given; leave {former} out"
                )
            named[present] = named.pop(former)
            cls._warn(former)
        return named

    def present_word(cls, word: str) -> str:
        """Replace the option in a command line's word ``--name=value`` by its current name."""
        name, sign, value = word.partition("=")
        former = name.removeprefix("--")
        if former not in cls.former_names:
            return word
        cls._warn(former)
        return f"--{cls.former_names[former]}{sign}{value}"

    def _warn(cls, former: str) -> None:
        if not is_first_rank() or (cls, former) in _warned:
            return
        _warned.add((cls, former))
        warnings.warn(
            f"{cls.__name__}: the option {former} is now {cls.former_names[former]}; the former "
            "name will be removed in the next version",
            FutureWarning,
            stacklevel=1,
        )


_warned: set[tuple[type, str]] = set()
"""Former names that were warned of, once in a process: a command reads options several times."""


def present_names(owner: type, options: OptionsT) -> OptionsT:
    """Rename the options that an earlier version wrote to a class's current option names.

    Args:
        owner: class of the options; a class without renamed options gets them unchanged.
        options: values by current or former name.
    """
    return owner.present_names(options) if isinstance(owner, RenamedOptions) else options


def parts_under_present_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of ``fit`` that an earlier version wrote, under the present names.

    Args:
        options: options in plain types, ``model`` and ``data`` among them; left as they are.
    """
    named = dict(options)
    for part in ("model", "data"):
        try:
            owner = pkgutil.resolve_name(options[part]["class_path"])
            init_args = present_names(owner, options[part]["init_args"])
        except (KeyError, TypeError, ValueError, ImportError, AttributeError):
            continue  # a class that cannot be imported is reported where it is built
        named[part] = {**options[part], "init_args": init_args}
    return named


def underscored(option: str) -> str:
    """Replace hyphens in an option's name by underscores, except in keys chosen by the user.

    Args:
        option: name as ``--name`` or ``--group.name``, without a value.
    """
    parts = option.removeprefix("--").split(".")
    ours = next((k + 1 for k, part in enumerate(parts) if part in USER_KEYS), len(parts))
    return "--" + ".".join([*(part.replace("-", "_") for part in parts[:ours]), *parts[ours:]])


def add_experiments(parser: argparse.ArgumentParser, about: str) -> None:
    """Add ``--experiment`` and ``--config`` as one option, so that their order is kept.

    Args:
        parser: parser to add to; its namespace gets the list ``experiment`` of names, files and
            JSON.
        about: help text of the option.
    """
    parser.add_argument(
        "-c",
        "--config",
        "--experiment",
        dest="experiment",
        metavar="NAME",
        action="append",
        default=[],
        help=about,
    )


def experiment_words(given: Sequence[str]) -> list[str]:
    """Convert the values read by :func:`add_experiments` to command-line words of ``fit``."""
    options = ("--config" if each.startswith("{") else "--experiment" for each in given)
    return [word for pair in zip(options, given, strict=True) for word in pair]


class _WideHelp(argparse.RawDescriptionHelpFormatter):
    """Help format that takes the terminal's width, so that a help fits on a screen."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=help_width())

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Keep the lines of a description, and break those that are too long."""
        lines = super()._fill_text(text, width, indent).splitlines()
        return "\n".join(textwrap.fill(line, width) if line else "" for line in lines)


class CommandParser(argparse.ArgumentParser):
    """Argument parser of a subcommand, with one-line errors and accepted option spellings.

    Args:
        command: words of the subcommand, such as ``sources rank``.
        renamed: accepted option names, each with the documented one, besides :data:`RENAMED`.
        options: arguments of ``argparse.ArgumentParser``.
    """

    def __init__(
        self, command: str, renamed: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        options.setdefault("prog", f"python -m zoo_lightning {command}")
        super().__init__(
            formatter_class=_WideHelp,
            allow_abbrev=False,
            **options,
        )
        self.command = command
        self.renamed = renamed or {}

    def option_names(self) -> list[str]:
        """List the parser's options with their dashes, for suggestions."""
        return [*self._option_string_actions]

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, after replacing options by their documented names."""
        words = sys.argv[1:] if args is None else [*map(str, args)]
        return super().parse_known_args(documented(words, {**RENAMED, **self.renamed}), namespace)

    def error(self, message: str) -> NoReturn:
        """Raise an error of one line, with a suggestion for a mistyped option.

        Raises:
            ConfigError: always.
        """
        hint = ""
        if message.startswith("unrecognized arguments: "):
            word = message.partition(": ")[2].split()[0].partition("=")[0]
            message = f"unknown option {word!r}"
            hint = "." + nearest(word, self._option_string_actions)
        raise ConfigError(f"{self.command}: {message}{hint}")
