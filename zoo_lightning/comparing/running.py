"""Working through a comparison's cells: in processes here, or as jobs of a cluster.

A cell is claimed by a lock that the system frees when its process dies, so several commands may
work on one folder, and none repeats what another has finished.
"""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Sequence
from typing import Any

from zoo_lightning.comparing.cell import TAKEN, arguments_of
from zoo_lightning.comparing.forking import CellProcess
from zoo_lightning.comparing.grid import Cell, Comparison
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.run_folder import LOG, last_line_of_log
from zoo_lightning.stopping import StopSignals, WorkStopped

Say = Callable[[str], object]

FAILED = "failed"
"""File in the folder of a cell whose job failed."""


def start(comparison: Comparison, cell: Cell, device: str | None) -> CellProcess:
    """Begin a cell in a process of its own, which writes into the cell's ``log.txt``."""
    folder = comparison.run(cell)
    folder.mkdir(parents=True, exist_ok=True)
    return CellProcess(arguments_of(comparison, cell), folder / LOG, device)


def outcome(process: CellProcess) -> str:
    """What becomes of a cell: ``done``, ``failed``, or ``taken`` by another process."""
    return {0: "done", TAKEN: "taken"}.get(process.wait(), "failed")


def attempt(comparison: Comparison, cell: Cell) -> str:
    """Carry out a cell; the function that a cluster's job calls.

    A job that fails leaves a mark for :func:`has_failed`, one that is stopped does not.
    """
    mark = comparison.run(cell) / FAILED
    mark.unlink(missing_ok=True)
    process = start(comparison, cell, None)
    became = outcome(process)
    if became == "failed" and 0 < process.wait() < 128:
        mark.touch()
    return became


def has_failed(comparison: Comparison, cell: Cell) -> bool:
    """Whether a cell that is not finished failed in its last job."""
    return comparison.summary(cell) is None and (comparison.run(cell) / FAILED).is_file()


def startable(comparison: Comparison, cells: Sequence[Cell]) -> list[Cell]:
    """Cells that are not finished and wait for no others that they are made from."""
    return [
        cell
        for cell in cells
        if comparison.summary(cell) is None
        and not comparison.missing([RECIPES[name] for name in RECIPES[cell.method].needs], cell)
    ]


class Workers:
    """Processes that work through cells, several at a time.

    Args:
        comparison: of the cells.
        devices: numbers of GPUs, given to the workers in turn; ``None`` leaves it to Lightning.
        say: gets a line for each cell that ends.
    """

    def __init__(self, comparison: Comparison, devices: Sequence[str | None], say: Say) -> None:
        self.comparison, self.devices, self.say = comparison, devices, say
        self.failed: list[Cell] = []
        self._stopping = threading.Event()
        self._running: set[CellProcess] = set()
        self._lock = threading.Lock()
        self._ended: list[threading.Event] = []

    def work(self, cells: Sequence[Cell]) -> None:
        """Run cells; returns when all have ended or have been left out."""
        todo: queue.SimpleQueue[Cell] = queue.SimpleQueue()
        for cell in cells:
            todo.put(cell)
        self._ended = [threading.Event() for _ in self.devices]
        for device, ended in zip(self.devices, self._ended, strict=True):
            threading.Thread(target=self._drain, args=(todo, device, ended)).start()
        self.join()

    def join(self) -> None:
        """Wait for what runs."""
        # Not by joining threads: one whose join a signal interrupts passes for ended.
        for ended in self._ended:
            while not ended.wait(timeout=1):
                pass

    def stop(self) -> None:
        """Begin no more cells, and ask the running ones to save where they are and to end."""
        self._stopping.set()
        with self._lock:
            for process in self._running:
                process.terminate()

    def _drain(
        self, todo: queue.SimpleQueue[Cell], device: str | None, ended: threading.Event
    ) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    cell = todo.get_nowait()
                except queue.Empty:
                    return
                if self.comparison.summary(cell) is None:
                    self._attempt(cell, device)
        finally:
            ended.set()

    def _attempt(self, cell: Cell, device: str | None) -> None:
        needs = [RECIPES[name] for name in RECIPES[cell.method].needs]
        if missing := self.comparison.missing(needs, cell):
            names = ", ".join(str(other.path) for other in missing)
            self.say(f"left    {cell.path}: it is made from {names}, not finished")
            return
        with self._lock:
            if self._stopping.is_set():
                return
            process = start(self.comparison, cell, device)
            self._running.add(process)
        became = outcome(process)
        with self._lock:
            self._running.discard(process)
        if became == "failed" and not self._stopping.is_set():
            self.failed.append(cell)
            said = last_line_of_log(self.comparison.run(cell), "no output")
            self.say(f"failed  {cell.path}: {said}")
        elif became == "taken":
            self.say(f"left    {cell.path}: another process works on it")
        elif became == "done":
            self.say(f"done    {cell.path}")


def run_here(
    comparison: Comparison, cells: Sequence[Cell], workers: int, devices: Sequence[str], say: Say
) -> list[Cell]:
    """Run cells in several processes at a time, those first that others need.

    Args:
        comparison: of the cells.
        cells: all of them, finished or not.
        workers: processes at a time.
        devices: numbers of GPUs, given to the workers in turn; empty leaves it to Lightning.
        say: gets a line for each cell that ends.

    Returns:
        The cells that failed.

    Raises:
        WorkStopped: by a signal; running cells were asked to save and have ended.
    """
    if workers > 1 and not devices:  # they share the cores
        os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))
    given = [devices[i % len(devices)] if devices else None for i in range(workers)]
    pool = Workers(comparison, given, say)
    with StopSignals(_raise):
        try:
            for needing in (False, True):
                pool.work([c for c in cells if bool(RECIPES[c.method].needs) == needing])
        except WorkStopped:
            pool.stop()
            try:
                pool.join()
            except WorkStopped:  # a second signal: do not wait until a step is done
                pool.stop()
                pool.join()
            raise
    return pool.failed


def _raise(number: int) -> None:
    raise WorkStopped(number)


def run_on_cluster(
    comparison: Comparison, cells: Sequence[Cell], options: dict[str, Any], cluster: str | None
) -> list[Any]:
    """Submit a job for each cell that is not finished, through submitit.

    Those that are made from other runs are submitted when the command is given again and the others
    have ended.

    Args:
        comparison: of the cells; its folder is seen by the cluster's nodes.
        cells: all of them, finished or not.
        options: of submitit's executor, such as ``timeout_min`` and ``slurm_partition``.
        cluster: ``None`` for the one that is found, ``local`` for processes on this machine.

    Returns:
        The jobs.

    Raises:
        ConfigError: submitit is not installed, or it refuses the options.
    """
    try:
        import submitit
    except ImportError as error:
        raise ConfigError(
            f"--slurm needs submitit, which cannot be imported ({error}): pip install -e '.[slurm]'"
        ) from error
    try:
        executor = submitit.AutoExecutor(folder=comparison.folder / "jobs", cluster=cluster)
        executor.update_parameters(**options)
    except (NameError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"--slurm {options}: {' '.join(str(error).split())}") from error
    return [executor.submit(attempt, comparison, cell) for cell in startable(comparison, cells)]
