"""Signals by which work is asked to save and to stop: Ctrl-C, a batch system, a closed terminal."""

from __future__ import annotations

import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from zoo_lightning.silence import silence

HANGUP = getattr(signal, "SIGHUP", None)
"""What a terminal sends that closes; not on every system."""

STOPPING = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, HANGUP)))
"""Signals after which work is saved and stopped."""


@contextmanager
def stop_signals(asked: Callable[[int], None]) -> Iterator[None]:
    """Call a function at each signal that asks to stop, in the main thread.

    SIGHUP stays ignored where ``nohup`` has it so. A terminal that closes gets no more output; it
    is no second wish to stop, however often it is told (a shell passes it on).

    Args:
        asked: gets the signal's number; it may raise.
    """
    told = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal told
        if number == HANGUP:
            _forget_terminal()
            if told:
                return
        told = True
        asked(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, handle)
        for number in STOPPING
        if number != HANGUP or signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _forget_terminal() -> None:
    """Printing to a terminal that is gone would be an error; files and pipes go on."""
    silence(output for output in (1, 2) if stat.S_ISCHR(os.fstat(output).st_mode))
