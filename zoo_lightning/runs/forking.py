"""Processes for runs that start with all modules imported.

Importing torch and Lightning takes longer than many small trainings. If the system can fork, one
process imports them once and each run is a fork of it; otherwise each run starts a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo_lightning.files.text import TEXT
from zoo_lightning.runs.stopping import STOPPING

PRELOADED = ["zoo_lightning.cli.trainer"]
"""Modules imported before the first fork."""


class ForkedProcess:
    """Process that runs ``python -m MODULE ARGUMENTS`` with the modules already imported.

    Args:
        module: module to run.
        arguments: command-line words of the module.
        log: file that the process's output is appended to.
        device: number of the GPU to use; ``None`` leaves the choice to Lightning.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], log: Path, device: str | None
    ) -> None:
        given = (module, list(arguments), log, device)
        # Not a daemon: its loaders have processes of their own.
        if "forkserver" in multiprocessing.get_all_start_methods():
            context = multiprocessing.get_context("forkserver")
            context.set_forkserver_preload(PRELOADED)
            _start_fork_server()
            self._process: multiprocessing.process.BaseProcess = context.Process(
                target=_carry_out, args=given
            )
        else:
            self._process = multiprocessing.get_context("spawn").Process(
                target=_carry_out, args=given
            )
        self._process.start()

    def wait(self) -> int:
        """Wait for the end; return the exit status, negative after a signal."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def terminate(self) -> None:
        """Ask the process to save its state and exit."""
        self._process.terminate()


def _start_fork_server() -> None:
    """Start the process that forks, with signals blocked that a whole process group gets.

    If it died with a closed terminal, its children could neither be asked to save nor waited for.
    """
    from multiprocessing import forkserver, resource_tracker  # not on every system

    # First, because starting it unblocks SIGINT and SIGTERM, whatever was blocked before.
    resource_tracker.ensure_running()
    # A mask is kept by what is started, and other than a handler it can be set in any thread.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _carry_out(module: str, arguments: list[str], log: Path, device: str | None) -> None:
    """Become what ``python -m MODULE ARGUMENTS`` would be."""
    if hasattr(os, "setsid"):
        os.setsid()  # a terminal's SIGINT reaches it through the command, and once
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
    with log.open("a", **TEXT) as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    run_as_main(module, arguments)


def run_as_main(module: str, arguments: Sequence[str]) -> None:
    """Run a module as ``__main__``, as ``python -m`` does, in this process.

    Sets ``sys.argv``, because Lightning starts further ranks by repeating the command line from
    ``sys.argv`` and the module name in ``__main__``.
    """
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
