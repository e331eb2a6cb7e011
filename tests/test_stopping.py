"""Signals that ask to stop; a terminal that closes is in ``faults/test_signals.py``."""

import os
import signal
import threading

import pytest

from zoo_lightning import stopping
from zoo_lightning.stopping import STOPPING, stop_signals


@pytest.fixture(autouse=True)
def _terminal(monkeypatch):
    """The terminal of these tests stays."""
    monkeypatch.setattr(stopping, "silence", lambda descriptors: list(descriptors))


@pytest.fixture
def _ignored_hangup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


def send(*numbers):
    """Send signals to this process, which has handled each before the next."""
    for number in numbers:
        os.kill(os.getpid(), number)


def test_every_wish_to_stop_is_told_and_the_handlers_are_put_back():
    before = [signal.getsignal(number) for number in STOPPING]
    asked = []
    with stop_signals(asked.append):
        send(signal.SIGTERM, signal.SIGINT)
    assert asked == [signal.SIGTERM, signal.SIGINT]
    assert [signal.getsignal(number) for number in STOPPING] == before


def test_a_terminal_that_closes_is_no_second_wish():
    asked = []
    with stop_signals(asked.append):
        send(signal.SIGHUP, signal.SIGHUP)
    assert asked == [signal.SIGHUP]
    with stop_signals(asked.append):
        send(signal.SIGINT, signal.SIGHUP)
    assert asked == [signal.SIGHUP, signal.SIGINT]


@pytest.mark.usefixtures("_ignored_hangup")
def test_what_nohup_ignores_stays_ignored():
    asked = []
    with stop_signals(asked.append):
        send(signal.SIGHUP)
    assert asked == []


def test_other_threads_leave_the_handlers_alone():
    before = [signal.getsignal(number) for number in STOPPING]
    found = []

    def work():
        with stop_signals(found.append):
            found.extend(signal.getsignal(number) for number in STOPPING)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == before
