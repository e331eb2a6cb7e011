"""The command line: ``python -m zoo_lightning SUBCOMMAND ...``.

What takes seconds to import is imported only when the arguments need it: ``--version`` and
``sources`` answer at once.
"""

from __future__ import annotations

import io
import shlex
import signal
import sys
import warnings
from collections.abc import Sequence

from zoo_lightning import __version__
from zoo_lightning.errors import ConfigError, ZooError, message_of, nearest
from zoo_lightning.paths import expand_word
from zoo_lightning.silence import silence
from zoo_lightning.whole_files import storage_error

SUBCOMMANDS = (
    "fit", "validate", "test", "predict", "export", "compare", "sweep", "gates", "sources",
)  # fmt: skip

SOURCES = ("list", "inspect", "check", "rank", "relate", "match", "ship")

SOURCES_USAGE = """\
  sources    list                                  the sources that are shipped
  sources    inspect FILE_OR_REFERENCE             what a checkpoint holds, and its architecture
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
  validate   --experiment NAME --ckpt_path PATH    measure on the validation data
  test       --experiment NAME --ckpt_path PATH    measure on the test data
  predict    --experiment NAME --ckpt_path PATH    write predictions for the test data
  predict    --ckpt RUN_OR_EXPORT --images FILES --output DIR
                                                   write predictions for any images
  export     --ckpt RUN_DIR --format timm|onnx|torch-export --output DIR
                                                   write the model for those without this package
  compare    --experiment NAME --methods A,B --seeds 0,1,2 --run_dir DIR
                                                   transfer methods side by side
  sweep      FILE [--count N] [--workers K]        try options as a W&B sweep file says
  gates      --ckpt_path RUN_DIR                   gates beside what removing each source does
{sources}
  --sources A,B --architecture NAME stand for the sources and architecture of an experiment.

  SUBCOMMAND --help explains its options; --version prints the version.
  experiments: {experiments}
"""


def sources(arguments: Sequence[str]) -> int:
    """The ``sources`` subcommands; each imports only what it needs."""
    command, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if {"-h", "--help"} & {command, *(rest if command == "list" else ())}:
        print(f"usage: python -m zoo_lightning SUBCOMMAND ...\n\n{SOURCES_USAGE}", end="")
    elif command == "list" and not rest:
        from zoo_lightning.sources.shipped import format_cards, shipped_cards

        print(format_cards(shipped_cards()))
    elif command == "inspect":
        from zoo_lightning.sources import inspecting

        inspecting.main(rest)
    elif command == "ship":
        from zoo_lightning.sources import ship_run

        ship_run.main(rest)
    elif command == "match":
        _quieten()
        from zoo_lightning import matched_zoo

        return matched_zoo.main(rest)
    elif command in ("check", "rank", "relate"):
        _quieten()
        from zoo_lightning import experiment_sources

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
    """Run a command line.

    Args:
        arguments: without the program's name; ``None`` takes the process's.

    Returns:
        Exit status: 0; 2 for a mistake in what was given; 129, 130 or 143 after SIGHUP in training,
        SIGINT or SIGTERM; 141 where the reader of the output, such as ``head``, had enough.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be UTF-8
            stream.reconfigure(errors="surrogateescape")
    try:
        status = _guarded(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        if sys.stdout.isatty():  # then it was not the output
            raise
        _silence_output()
        return 128 + signal.SIGPIPE
    return status


def _guarded(arguments: Sequence[str] | None) -> int:
    """Run a command line; what comes from outside is told in one line."""
    try:
        return _carry_out(arguments)
    except ZooError as error:
        print(f"error: {message_of(error)}", file=sys.stderr)
        if isinstance(error.__cause__, BrokenPipeError):
            _silence_output()
        return 2
    except OSError as error:
        ours = storage_error(error)
        if ours is None:
            raise
        print(f"error: {ours}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        number = getattr(stop, "signal_number", signal.SIGINT)
        print(f"\nstopped by {signal.Signals(number).name}", file=sys.stderr)
        return 128 + number


def _silence_output() -> None:
    """Nobody reads it; the interpreter's flush at the end would complain again."""
    silence([sys.stdout.fileno()])


def run_command(line: str) -> None:
    """Run a command line in this process, for notebooks: a failure stops the cell.

    Args:
        line: what would follow ``python -m zoo_lightning`` in a shell, quoted as there.

    Raises:
        ZooError: a mistake in what was given, or a command that found something wrong and has
            said so.
    """
    words = shlex.split(line)
    status = _carry_out(words)
    if status:
        raise ZooError(f"`{shlex.join(words[:2])} ...` ended with status {status}; it says why")


def _carry_out(given: Sequence[str] | None) -> int:
    """Find the subcommand and run it; returns the exit status."""
    arguments = [expand_word(word) for word in (sys.argv[1:] if given is None else given)]
    if not arguments or arguments[0] in ("-h", "--help"):
        from zoo_lightning.experiments import known_experiments

        names = ", ".join(known_experiments()) or "none found"
        print(USAGE.format(sources=SOURCES_USAGE, experiments=names), end="")
        return 0
    if arguments[0] == "--version":
        print(f"zoo_lightning {__version__}")
        return 0
    # Options may come first, as in LightningCLI.
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
        _quieten()
        from zoo_lightning.gates import command

        return command.main(arguments[1:])
    if arguments[0] == "export":
        _quieten()
        from zoo_lightning.deployment import command as exporting

        return exporting.main(arguments[1:])
    if arguments[0] == "compare":
        _quieten()
        from zoo_lightning.comparing import command as comparing

        return comparing.main(arguments[1:])
    if arguments[0] == "sweep":
        _quieten()
        from zoo_lightning.sweeping import command as sweeping

        return sweeping.main(arguments[1:])
    if arguments[0] == "fit" and _names_method(arguments):
        _quieten()
        from zoo_lightning.pipelines import command as pipelines

        return pipelines.main(arguments[1:])
    if arguments[0] == "predict" and _names_images(arguments):
        _quieten()
        from zoo_lightning.predicting import command as predicting

        return predicting.main(arguments[1:])
    return _train(arguments)


def _names_method(arguments: Sequence[str]) -> bool:
    """Whether ``fit`` is for a transfer method, which may take several trainings."""
    return any(word.partition("=")[0] == "--method" for word in arguments)


def _names_images(arguments: Sequence[str]) -> bool:
    """Whether ``predict`` is for images of any kind, not for an experiment's test data."""
    return any(word.partition("=")[0] in ("--images", "--ckpt") for word in arguments)


def _quieten() -> None:
    """Leave out what libraries say about themselves; none of it is for the user to mend."""
    warnings.filterwarnings("ignore", module="jsonargparse")
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    warnings.filterwarnings("ignore", message=r".*LightningCLI's args parameter")
    # Class names in scripts that matplotlib's font lacks; the tables have them right.
    warnings.filterwarnings("ignore", message=r"Glyph .* missing from")


def _train(arguments: Sequence[str]) -> int:
    _quieten()
    from zoo_lightning.callbacks.interrupt import TrainingInterrupted
    from zoo_lightning.faults import terminable
    from zoo_lightning.trainer_cli import run

    try:
        with terminable():
            run(arguments)
    except TrainingInterrupted as stop:
        option = f" and --ckpt_path {stop.checkpoint}" if stop.checkpoint else ""
        print(f"\n{stop}\nGo on with the same command{option}", file=sys.stderr)
        return 128 + stop.signal_number
    return 0
