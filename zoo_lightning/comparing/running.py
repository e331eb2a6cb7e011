"""Working through a comparison's cells: in processes here, or as jobs of a cluster.

A cell is claimed by a lock that the system frees when its process dies, so several commands may
work on one folder, and none repeats what another has finished.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo_lightning.comparing.cell import words_of
from zoo_lightning.comparing.grid import Cell, Comparison
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.recipes import RECIPES

Say = Callable[[str], object]


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may work on a cell: nobody else does."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def attempt(comparison: Comparison, cell: Cell, device: str | None) -> str:
    """Run a cell in a process of its own, unless it is finished or somebody else has it.

    Args:
        comparison: of the cell.
        cell: to run.
        device: number of the GPU to run it on; ``None`` leaves the choice to Lightning.

    Returns:
        What became of it: ``done``, ``failed``, or nothing if there was nothing to do.
    """
    folder = comparison.run(cell)
    with claimed(folder) as free:
        if not free or comparison.summary(cell) is not None:
            return ""
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device})
        with open(folder / "log.txt", "a") as log:
            done = subprocess.run(
                words_of(comparison, cell), stdout=log, stderr=subprocess.STDOUT, env=environment
            )
        return "done" if done.returncode == 0 else "failed"


def last_line(comparison: Comparison, cell: Cell) -> str:
    """What a failed cell said at the end."""
    log = comparison.run(cell) / "log.txt"
    lines = log.read_text(errors="replace").strip().splitlines() if log.is_file() else []
    return lines[-1] if lines else "no output"


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
    """
    failed: list[Cell] = []
    for needing in (False, True):
        todo: queue.SimpleQueue[Cell] = queue.SimpleQueue()
        part = [c for c in cells if bool(RECIPES[c.method].needs) == needing]
        for cell in part:
            if comparison.summary(cell) is None:
                todo.put(cell)
        stop = threading.Event()

        def work(device: str | None, todo: Any = todo, stop: threading.Event = stop) -> None:
            while not stop.is_set():
                try:
                    cell = todo.get_nowait()
                except queue.Empty:
                    return
                outcome = attempt(comparison, cell, device)
                if outcome == "failed" and not stop.is_set():
                    failed.append(cell)
                    say(f"failed  {cell.path}: {last_line(comparison, cell)}")
                elif outcome == "done":
                    say(f"done    {cell.path}")

        threads = [
            threading.Thread(target=work, args=(devices[i % len(devices)] if devices else None,))
            for i in range(workers)
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except KeyboardInterrupt:
            # The cells' processes got the signal, too, and save what they have.
            stop.set()
            for thread in threads:
                thread.join()
            raise
    return failed


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
        raise ConfigError(f"--slurm {options}: {error}") from error
    open_cells = (cell for cell in cells if comparison.summary(cell) is None)
    ready = [cell for cell in open_cells if is_ready(comparison, cell)]
    return [executor.submit(attempt, comparison, cell, None) for cell in ready]


def is_ready(comparison: Comparison, cell: Cell) -> bool:
    """Whether all runs that a cell is made from have ended."""
    names = list(comparison.sources)
    return all(
        len(comparison.finished(RECIPES[need], cell)) == len(RECIPES[need].variants(names))
        for need in RECIPES[cell.method].needs
    )
