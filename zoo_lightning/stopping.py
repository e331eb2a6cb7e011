"""Signals by which work is asked to save and to stop: Ctrl-C, a batch system, a closed terminal."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from typing_extensions import Self

from zoo_lightning.silence import silence

HANGUP = getattr(signal, "SIGHUP", None)
"""What a terminal sends that closes; not on every system."""

STOPPING = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, HANGUP)))
"""Signals after which work is saved and stopped."""


class WorkStopped(BaseException):
    """Work in several processes was asked to stop; they have saved where they were.

    Not an ``Exception``: nothing on the way may take it for a fault and swallow it.

    Attributes:
        signal_number: what asked.
    """

    def __init__(self, signal_number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signal_number).name}")
        self.signal_number = signal_number


class StopSignals:
    """Calls a function at each signal that asks to stop, in the main thread, while installed.

    SIGHUP stays ignored where ``nohup`` has it so. A terminal that closes gets no more output; it
    is no second wish to stop, however often it is told (a shell passes it on).

    Not a generator's context: collected as garbage after an error, that would put handlers back
    in the middle of something else.

    Args:
        asked: gets the signal's number; it may raise.
    """

    def __init__(self, asked: Callable[[int], None]) -> None:
        self.asked = asked
        self._told = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(self, *error: object) -> None:
        self.restore()

    def install(self) -> None:
        """Take the signals from now on."""
        self._told = False
        if threading.current_thread() is threading.main_thread():
            for number in STOPPING:
                if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._handle)

    def restore(self) -> None:
        """Put the handlers back that were there."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if number == HANGUP:
            _forget_terminal()
            if self._told:
                return
        self._told = True
        self.asked(number)


def _forget_terminal() -> None:
    """Printing to a terminal that is gone would be an error; files and pipes go on."""
    silence(output for output in (1, 2) if stat.S_ISCHR(os.fstat(output).st_mode))
