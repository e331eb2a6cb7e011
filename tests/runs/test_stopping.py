"""Signals that ask to stop; a terminal that closes is in ``faults/test_signals.py``."""

import gc
import os
import signal
import threading
from contextlib import suppress

import pytest

from zoo_lightning.runs import stopping
from zoo_lightning.runs.stopping import STOPPING, StopSignals


@pytest.fixture(autouse=True)
def _terminal(monkeypatch, _heard):
    """The terminal of these tests stays."""
    monkeypatch.setattr(stopping, "silence", lambda descriptors: list(descriptors))


def send(*numbers):
    """Send signals to this process, which has handled each before the next."""
    for number in numbers:
        os.kill(os.getpid(), number)


def test_every_wish_to_stop_is_told_and_the_handlers_are_put_back():
    before = [signal.getsignal(number) for number in STOPPING]
    asked = []
    with StopSignals(asked.append):
        send(signal.SIGTERM, signal.SIGINT)
    assert asked == [signal.SIGTERM, signal.SIGINT]
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_a_terminal_that_closes_is_no_second_wish():
    asked = []
    with StopSignals(asked.append):
        send(signal.SIGHUP, signal.SIGHUP)
    assert asked == [signal.SIGHUP]
    with StopSignals(asked.append):
        send(signal.SIGINT, signal.SIGHUP)
    assert asked == [signal.SIGHUP, signal.SIGINT]


def test_what_is_left_behind_by_an_error_puts_no_handlers_back():
    def fail():
        StopSignals(print).install()
        raise RuntimeError

    before = {number: signal.getsignal(number) for number in STOPPING}
    with suppress(RuntimeError):
        fail()
    with StopSignals(print):
        mine = signal.getsignal(signal.SIGTERM)
        gc.collect()
        assert signal.getsignal(signal.SIGTERM) == mine
    for number, handler in before.items():
        signal.signal(number, handler)


def test_what_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # put back by _heard
    asked = []
    with StopSignals(asked.append):
        send(signal.SIGHUP)
    assert asked == []


def test_other_threads_leave_the_handlers_alone():
    before = [signal.getsignal(number) for number in STOPPING]
    found = []

    def work():
        with StopSignals(found.append):
            found.extend(signal.getsignal(number) for number in STOPPING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == before
