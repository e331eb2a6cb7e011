"""Exit status of a command, with errors reported in one line."""

from __future__ import annotations

import io
import signal
import sys
import warnings
from collections.abc import Callable

from zoo_lightning.errors import ZooError, message_of
from zoo_lightning.files.atomic import storage_error
from zoo_lightning.runs.stopping import silence


def exit_status(command: Callable[[], int]) -> int:
    """Run a command, report its errors on stderr, and return its exit status.

    Args:
        command: function that runs the command and returns its exit status.

    Returns:
        The command's exit status; 2 for an error in options, files or storage; 129, 130 or 143
        after SIGHUP in training, SIGINT or SIGTERM; 141 if the reader of the output, such as
        ``head``, has stopped reading.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files need not be UTF-8
            stream.reconfigure(errors="surrogateescape")
    try:
        status = _reported(command)
        sys.stdout.flush()
    except BrokenPipeError:
        if sys.stdout.isatty():  # then it was not the output
            raise
        _silence_output()
        return 128 + signal.SIGPIPE
    return status


def _reported(command: Callable[[], int]) -> int:
    """Run a command and report errors from outside the program in one line."""
    try:
        return command()
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
    """Redirect the output, which has no reader: the flush at exit would fail again."""
    silence([sys.stdout.fileno()])


def ignore_library_warnings() -> None:
    """Filter warnings of libraries that users cannot act on."""
    warnings.filterwarnings("ignore", module="jsonargparse")
    warnings.filterwarnings("ignore", message=r".*LeafSpec.*is deprecated")
    # Class names in scripts that matplotlib's font lacks; the tables have them right.
    warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
