"""Processes for runs that begin with everything imported.

Importing torch, Lightning and the rest takes longer than many a small training. Where the system
can fork, one process imports them once and every run is a fork of it; elsewhere each run starts a
process of its own from the beginning.
"""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo_lightning.stopping import STOPPING
from zoo_lightning.text_files import TEXT

PRELOADED = ["zoo_lightning.comparing.cell"]
"""What is imported before the first fork."""


class ForkedProcess:
    """A process that carries out the command line of a module: ``python -m MODULE ARGUMENTS``.

    Args:
        module: whose ``main`` takes the arguments and returns the exit status.
        arguments: of that function.
        log: file that gets what it prints, after what is there.
        device: number of the GPU to use; ``None`` leaves the choice to Lightning.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], log: Path, device: str | None
    ) -> None:
        kinds = multiprocessing.get_all_start_methods()
        context = multiprocessing.get_context("forkserver" if "forkserver" in kinds else "spawn")
        if "forkserver" in kinds:
            context.set_forkserver_preload(PRELOADED)
            _start_fork_server()
        # Not a daemon: its loaders have processes of their own.
        self._process = context.Process(
            target=_carry_out, args=(module, list(arguments), log, device)
        )
        self._process.start()

    def wait(self) -> int:
        """Exit status, negative after a signal."""
        self._process.join()
        return self._process.exitcode

    def terminate(self) -> None:
        """Ask it to save where it is and to end."""
        self._process.terminate()


def _start_fork_server() -> None:
    """Have the process that forks outlive what a whole process group is told.

    If it died with a closed terminal, nobody would know of its children any more: neither could
    they be asked to save, nor waited for.
    """
    from multiprocessing import forkserver  # not on every system

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
    # Lightning starts further ranks by repeating the command line.
    spec = importlib.util.find_spec(module)
    sys.modules["__main__"].__spec__ = spec
    sys.argv = [str(spec.origin), *arguments]
    sys.exit(importlib.import_module(module).main(arguments))
