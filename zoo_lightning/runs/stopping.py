"""Signals that request to save and stop: Ctrl-C, a batch system's, a closed terminal's."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterable
from types import FrameType
from typing import Any

from typing_extensions import Self

HANGUP = getattr(signal, "SIGHUP", None)
"""SIGHUP, the signal of a closed terminal; ``None`` on systems without it."""

STOPPING = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, HANGUP)))
"""Signals on which a run saves its state and stops."""


class WorkStopped(BaseException):
    """Raised when runs in several processes were stopped by a signal and have saved their state.

    Not an ``Exception``, so that no handler of errors catches it.

    Attributes:
        signal_number: number of the signal.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


class StopSignals:
    """Call a function at each stop signal, in the main thread, while installed.

    SIGHUP stays ignored under ``nohup``. Output to a closed terminal is discarded; repeated
    SIGHUPs, which a shell forwards, count as one request.

    It is not a generator-based context manager, because garbage collection of one after an error
    would restore the handlers at an arbitrary time.

    Args:
        asked: function that is called with the signal's number; it may raise.
    """

    def __init__(self, asked: Callable[[int], None]) -> None:
        self.asked = asked
        self._asked_before = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def install(self) -> None:
        """Install the signal handlers."""
        self._asked_before = False
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            _forget_terminal()
            if self._asked_before:
                return
        self._asked_before = True
        self.asked(number)


def silence(descriptors: Iterable[int]) -> None:
    """Discard everything written to some file descriptors from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _forget_terminal() -> None:
    """Discard output to a closed terminal, where writing is an error; files and pipes stay."""
    silence(output for output in (1, 2) if stat.S_ISCHR(os.fstat(output).st_mode))
