"""``completion``: print a script that completes ``zoo-lightning`` in a shell, made by shtab.

It completes subcommands, options, experiments and files, without starting Python at each key.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.finding import known_experiments
from zoo_lightning.experiments.option_names import CommandParser
from zoo_lightning.experiments.short_help import HELP_ALL, first_clause

PROGRAM = "zoo-lightning"
"""Command that is completed; shells cannot complete the words after ``python -m``."""

TRAINER = ("fit", "validate", "test")
"""Subcommands with the options of Lightning's Trainer."""

PATHS = ("ckpt_path", "run_dir", "output", "init_from", "images", "boxes", "folders", "file",
         "source", "run")  # fmt: skip
"""Options and arguments that are completed by files and folders."""

WHAT = {
    "fit": "train, then test the best checkpoint",
    "validate": "measure on the validation data",
    "test": "measure on the test data",
    "predict": "write predictions",
    "export": "write the model for those without this package",
    "compare": "transfer methods side by side",
    "sweep": "try options",
    "gates": "gates beside what removing each source does",
    "report": "a page of HTML on runs",
    "sources": "about sources",
}
"""Subcommands in a few words; shtab leaves out those without."""

ABOUT = f"""\
Print a script that completes subcommands, options, experiments and files of {PROGRAM}.
bash: {PROGRAM} completion bash > ~/.local/share/bash-completion/completions/{PROGRAM}
zsh: {PROGRAM} completion zsh > FOLDER/_{PROGRAM}, with FOLDER in $fpath before compinit
"""


def main(arguments: Sequence[str]) -> int:
    """Run the command ``completion``.

    Args:
        arguments: command line without the subcommand.

    Returns:
        Exit status 0.

    Raises:
        ConfigError: shtab is not installed, or does not know the shell.
    """
    parser = CommandParser("completion", description=ABOUT)
    parser.add_argument("shell", metavar="SHELL", help="bash, zsh, tcsh, or another that shtab has")
    options = parser.parse_args(arguments)
    try:
        import shtab
    except ImportError as error:
        raise ConfigError(
            "completion needs shtab: pip install -e '.[completion]', or pip install shtab"
        ) from error
    if options.shell not in shtab.SUPPORTED_SHELLS:
        raise ConfigError(
            f"completion: unknown shell {options.shell!r}; expected one of "
            f"{', '.join(shtab.SUPPORTED_SHELLS)}"
        )
    print(shtab.complete(whole_parser(shtab.FILE), options.shell))
    return 0


def whole_parser(paths: Any) -> argparse.ArgumentParser:
    """Build one parser with all subcommands, which is only there to be completed.

    Args:
        paths: what shtab completes options by that take files or folders.
    """
    whole = CommandParser("", prog=PROGRAM)
    whole.add_argument("--version", action="store_true", help="print the version")
    commands = whole.add_subparsers()
    for name, build in parsers().items():
        _add(commands.add_parser(name, command=name, help=WHAT[name]), build()._actions, paths)
    for name in TRAINER:
        _add(commands.add_parser(name, command=name, help=WHAT[name]), trainer_actions(name), paths)
    sources = commands.add_parser("sources", command="sources", help=WHAT["sources"])
    ways = sources.add_subparsers()
    for name, make in source_parsers().items():
        _add(ways.add_parser(name, command=name, help=name), make()._actions, paths)
    for name in ("list", "inspect", "ship"):
        ways.add_parser(name, command=name, help=name)
    return whole


def parsers() -> dict[str, Callable[[], CommandParser]]:
    """Functions that build the parsers of the subcommands, but for those of Lightning's Trainer."""
    from zoo_lightning.analysis import command as gates
    from zoo_lightning.benchmarking import command as compare
    from zoo_lightning.deployment import command as export
    from zoo_lightning.prediction import command as predict
    from zoo_lightning.reports import command as report
    from zoo_lightning.sweeps import command as sweep

    modules: dict[str, Any] = {
        "predict": predict,
        "export": export,
        "compare": compare,
        "sweep": sweep,
        "gates": gates,
        "report": report,
    }
    return {name: module._parser for name, module in modules.items()}


def source_parsers() -> dict[str, Callable[[], CommandParser]]:
    """Functions that build the parsers of subcommands of ``sources`` with options of their own."""
    from functools import partial

    from zoo_lightning.cli import experiment_sources, match

    found: dict[str, Callable[[], CommandParser]] = {
        name: partial(experiment_sources._parser, name) for name in ("check", "rank", "relate")
    }
    return found | {"match": match._parser}


class _ParserBuilt(Exception):  # no error
    """Carries a parser out of LightningCLI, which parses as soon as it has built one."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__()
        self.parser = parser


def trainer_actions(subcommand: str) -> list[argparse.Action]:
    """List the options of a subcommand of Lightning's Trainer."""
    from zoo_lightning.experiments.parsing import ExperimentCLI
    from zoo_lightning.pipelines import command as pipelines

    class Parsers(ExperimentCLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            raise _ParserBuilt(parser)

    try:
        Parsers([subcommand])
    except _ParserBuilt as built:
        for action in built.parser._actions:
            if isinstance(action.choices, dict) and subcommand in action.choices:
                own = pipelines._parser()._actions if subcommand == "fit" else []
                return [*action.choices[subcommand]._actions, *own]
    raise AssertionError(f"LightningCLI has built no parser for {subcommand}")


def _add(parser: argparse.ArgumentParser, actions: Iterable[argparse.Action], paths: Any) -> None:
    """Add what can be completed of some options to a parser."""
    known = {*parser._option_string_actions}
    experiments = known_experiments()
    for action, words in _spelt(actions, known):
        options: dict[str, Any] = {"help": first_clause(action.help)}
        takes_value = action.nargs != 0
        if takes_value:
            options["metavar"] = action.dest.rpartition(".")[2].upper()
            if not words[0].startswith("-"):
                options["nargs"] = action.nargs
        else:
            options["action"] = "store_true"
        if takes_value and action.dest in ("config", "experiment"):
            options["choices"] = experiments
        elif takes_value and action.choices is not None and not isinstance(action.choices, dict):
            options["choices"] = [str(each) for each in action.choices]
        added = parser.add_argument(*words, **options)
        if takes_value and action.dest in PATHS:
            added.complete = paths  # type: ignore[attr-defined]  # shtab reads it there
    if "--config" in parser._option_string_actions and HELP_ALL not in known:
        parser.add_argument(HELP_ALL, action="store_true", help="show all options")


def _spelt(
    actions: Iterable[argparse.Action], known: set[str]
) -> Iterator[tuple[argparse.Action, list[str]]]:
    """Options with the words that they are given by, each word once."""
    for action in actions:
        if not action.option_strings:
            yield action, [action.dest]
            continue
        words = [word for word in action.option_strings if re.fullmatch(r"-{1,2}[\w.]+", word)]
        words = [word for word in words if word not in known]
        known.update(words)
        if words:
            yield action, words
