"""Command line ``python -m zoo_lightning SUBCOMMAND ...``.

Each subcommand imports only what it needs, because torch and Lightning take seconds; so
``--version`` and ``sources list`` are fast.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from zoo_lightning import __version__
from zoo_lightning.cli.exit_status import exit_status, ignore_library_warnings
from zoo_lightning.errors import ConfigError, ZooError, nearest
from zoo_lightning.files.paths import expand_word

SUBCOMMANDS = (
    "fit", "validate", "test", "predict", "export", "compare", "sweep", "gates", "report",
    "sources", "completion",
)  # fmt: skip

SOURCES = ("list", "inspect", "check", "rank", "relate", "match", "ship")

SOURCES_USAGE = """\
  sources    list                                  the sources that are shipped
  sources    inspect FILE_OR_REFERENCE             what a checkpoint holds, and its architecture
  sources    inspect FOLDER                        which are of one architecture, which descend from
                                                   which
  sources    check --experiment NAME               do all sources fit?
  sources    rank --experiment NAME                which source suits the training data best?
  sources    relate --experiment NAME              should the sources be merged, and how?
  sources    match --architecture NAME --sources A,B --output DIR
                                                   permute channels to agree with the first source's
  sources    ship RUN_DIR --name NAME ...          make a shipped source of a run
"""

USAGE = """\
usage: python -m zoo_lightning SUBCOMMAND ...

  fit        --experiment NAME [--key value ...]   train, then test the best checkpoint
  fit        --experiment NAME --method METHOD     train by a transfer method, in stages
  validate   --ckpt_path RUN_DIR                   measure on the validation data
  test       --ckpt_path RUN_DIR --output DIR      measure on the test data
  predict    --ckpt_path RUN_DIR --output DIR      write predictions for the run's test data, or
             --images FILES                        for any images, also by an exported model
  export     --ckpt_path RUN_DIR --format timm|onnx|torch-export --output DIR
                                                   write the model for those without this package
  compare    --experiment NAME --methods A,B --seeds 0,1,2 --run_dir DIR
                                                   transfer methods side by side
  sweep      FILE [--count N] [--workers K]        try options as a W&B sweep file says
  gates      --ckpt_path RUN_DIR                   gates beside what removing each source does
  report     RUN_DIR [RUN_DIR ...]                 a page of HTML, several runs side by side
  completion bash|zsh|tcsh                         a script that completes commands in a shell
{sources}
  --sources A,B --architecture NAME stand for the sources and architecture of an experiment.

  SUBCOMMAND --help explains its options; --version prints the version.
  experiments: {experiments}
"""


def sources(arguments: Sequence[str]) -> int:
    """Run a subcommand of ``sources``; each imports only what it needs."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if {"-h", "--help"} & {command, *(rest if command == "list" else ())}:
        print(f"usage: python -m zoo_lightning SUBCOMMAND ...\n\n{SOURCES_USAGE}", end="")
    elif command == "list" and not rest:
        from zoo_lightning.sources.shipped import format_cards, shipped_cards

        print(format_cards(shipped_cards()))
    elif command == "inspect":
        from zoo_lightning.cli import inspect

        inspect.main(rest)
    elif command == "ship":
        from zoo_lightning.cli import ship

        ship.main(rest)
    elif command == "match":
        ignore_library_warnings()
        from zoo_lightning.cli import match

        return match.main(rest)
    elif command in ("check", "rank", "relate"):
        ignore_library_warnings()
        from zoo_lightning.cli import experiment_sources

        return experiment_sources.main(command, rest)
    else:
        raise ConfigError(
            f"sources {' '.join(arguments)}: expected one of 'sources list', 'sources inspect', "
            f"'sources check', 'sources rank', 'sources relate', 'sources match' or "
            f"'sources ship'."
            f"{'' if command in SOURCES else nearest(command, SOURCES)}"
        )
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, and report errors in one line.

    Args:
        arguments: words without the program's name; ``None`` takes those of the process.

    Returns:
        Exit status, see :func:`~zoo_lightning.cli.exit_status.exit_status`.
    """
    return exit_status(lambda: _carry_out(arguments))


def run_command(line: str) -> None:
    """Run a command line in this process, for notebooks; a failure raises an error.

    Args:
        line: words after ``python -m zoo_lightning``, quoted as in a shell.

    Raises:
        ZooError: an option is invalid, or the command ended with another exit status than 0.
    """
    words = shlex.split(line)
    status = _carry_out(words)
    if status:
        raise ZooError(f"`{shlex.join(words[:2])} ...` ended with status {status}; see its output")


def subcommand_first(words: list[str]) -> list[str]:
    """Move the subcommand of a command line before its options.

    LightningCLI's ``--config FILE SUBCOMMAND``, whose file has a part for each subcommand, is not
    changed.

    Args:
        words: command line with at least one word.
    """
    if not words[0].startswith("-") or words[0].partition("=")[0] in ("-c", "--config"):
        return words
    for place, word in enumerate(words):
        # What follows an option without "=" is its value.
        before = words[place - 1]
        if word in SUBCOMMANDS and not (before.startswith("-") and "=" not in before):
            return [word, *words[:place], *words[place + 1 :]]
    return words


def _carry_out(given: Sequence[str] | None) -> int:
    """Find the subcommand and run it; returns the exit status."""
    arguments = [expand_word(word) for word in (sys.argv[1:] if given is None else given)]
    if not arguments or arguments[0] in ("-h", "--help"):
        from zoo_lightning.experiments.finding import known_experiments

        names = ", ".join(known_experiments()) or "none found"
        print(USAGE.format(sources=SOURCES_USAGE, experiments=names), end="")
        return 0
    if arguments[0] == "--version":
        print(f"zoo_lightning {__version__}")
        return 0
    arguments = subcommand_first(arguments)
    if arguments[0].startswith("-") and not set(arguments) & set(SUBCOMMANDS):
        known = ("--help", "--version")
        raise ConfigError(
            f"no subcommand in {' '.join(arguments)!r}.{nearest(arguments[0], known)} Give one "
            f"of: {', '.join(SUBCOMMANDS)}."
        )
    if not arguments[0].startswith("-") and arguments[0] not in SUBCOMMANDS:
        raise ConfigError(
            f"unknown subcommand {arguments[0]!r}.{nearest(arguments[0], SUBCOMMANDS)} Known "
            f"are: {', '.join(SUBCOMMANDS)}."
        )
    if arguments[0] == "sources":
        return sources(arguments[1:])
    if arguments[0] == "gates":
        ignore_library_warnings()
        from zoo_lightning.analysis import command

        return command.main(arguments[1:])
    if arguments[0] == "completion":
        ignore_library_warnings()
        from zoo_lightning.cli import completion

        return completion.main(arguments[1:])
    if arguments[0] == "report":
        ignore_library_warnings()
        from zoo_lightning.reports import command as reporting

        return reporting.main(arguments[1:])
    if arguments[0] == "export":
        ignore_library_warnings()
        from zoo_lightning.deployment import command as exporting

        return exporting.main(arguments[1:])
    if arguments[0] == "compare":
        ignore_library_warnings()
        from zoo_lightning.benchmarking import command as comparing

        return comparing.main(arguments[1:])
    if arguments[0] == "sweep":
        ignore_library_warnings()
        from zoo_lightning.sweeps import command as sweeping

        return sweeping.main(arguments[1:])
    if arguments[0] == "fit" and _names_method(arguments):
        ignore_library_warnings()
        from zoo_lightning.pipelines import command as pipelines

        return pipelines.main(arguments[1:])
    if arguments[0] == "predict":
        ignore_library_warnings()
        from zoo_lightning.prediction import command as predicting

        return predicting.main(arguments[1:])
    from zoo_lightning.cli import trainer

    return trainer.main(arguments)


def _names_method(arguments: Sequence[str]) -> bool:
    """Return whether ``fit`` is for a transfer method, which may take several trainings."""
    return any(word.partition("=")[0] == "--method" for word in arguments)
