"""The one pool of processes in which runs are carried out, several at a time.

A run is a folder, and its files alone say whether it is finished. A finished run is not repeated;
one that is asked to stop saves its state first.
"""

from __future__ import annotations

import os
import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

from zoo_lightning.run_folder import LOG, last_line_of_log
from zoo_lightning.runs.forking import ForkedProcess
from zoo_lightning.stopping import StopSignals, WorkStopped

Say = Callable[[str], object]

TAKEN = 75
"""Exit status of a process that found another at work on its run: ``EX_TEMPFAIL``."""


class Job(ABC):
    """A run to be carried out in a process of its own.

    Attributes:
        name: of the run, in lines of progress.
        folder: of the run; ``log.txt`` there gets what the process prints.
        module: whose ``main`` carries it out.
    """

    name: str
    folder: Path
    module: str

    @abstractmethod
    def arguments(self) -> list[str]:
        """What ``main`` of the module gets."""

    @abstractmethod
    def is_finished(self) -> bool:
        """Whether nothing is left to do."""

    def lacks(self) -> list[str]:
        """Names of unfinished runs that it is made from."""
        return []

    def start(self, device: str | None) -> ForkedProcess:
        """Begin in a process, which writes into ``log.txt``.

        Args:
            device: number of a GPU; ``None`` leaves the choice to Lightning.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        return ForkedProcess(self.module, self.arguments(), self.folder / LOG, device)


def outcome(process: ForkedProcess) -> str:
    """What becomes of a run: ``done``, ``failed``, or ``taken`` by another process."""
    return {0: "done", TAKEN: "taken"}.get(process.wait(), "failed")


class Pool:
    """Processes that work through jobs, several at a time.

    Args:
        devices: numbers of GPUs, a process each; ``None`` leaves the choice to Lightning.
        say: gets a line for each run that ends.

    Attributes:
        failed: jobs that ended without being finished.
    """

    def __init__(self, devices: Sequence[str | None], say: Say) -> None:
        self.devices, self.say = devices, say
        self.failed: list[Job] = []
        self._stopping = threading.Event()
        self._running: set[ForkedProcess] = set()
        self._lock = threading.Lock()
        self._ended: list[threading.Event] = []

    def work(self, jobs: Sequence[Job]) -> None:
        """Carry out jobs; returns when all have ended or have been left out."""
        todo: queue.SimpleQueue[Job] = queue.SimpleQueue()
        for job in jobs:
            todo.put(job)
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
        """Begin no more runs, and ask the running ones to save where they are and to end."""
        self._stopping.set()
        with self._lock:
            for process in self._running:
                process.terminate()

    def _drain(
        self, todo: queue.SimpleQueue[Job], device: str | None, ended: threading.Event
    ) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    job = todo.get_nowait()
                except queue.Empty:
                    return
                if not job.is_finished():
                    self._attempt(job, device)
        finally:
            ended.set()

    def _attempt(self, job: Job, device: str | None) -> None:
        if missing := job.lacks():
            self.say(f"left    {job.name}: it is made from {', '.join(missing)}, not finished")
            return
        with self._lock:
            if self._stopping.is_set():
                return
            process = job.start(device)
            self._running.add(process)
        became = outcome(process)
        with self._lock:
            self._running.discard(process)
        if became == "failed" and not self._stopping.is_set():
            self.failed.append(job)
            self.say(f"failed  {job.name}: {last_line_of_log(job.folder, 'no output')}")
        elif became == "taken":
            self.say(f"left    {job.name}: another process works on it")
        elif became == "done":
            self.say(f"done    {job.name}")


def run_here(
    waves: Sequence[Sequence[Job]], workers: int, devices: Sequence[str], say: Say
) -> list[Job]:
    """Carry out runs in several processes at a time.

    Args:
        waves: jobs, finished or not; each wave begins when the one before has ended.
        workers: processes at a time.
        devices: numbers of GPUs, given to the workers in turn; empty leaves it to Lightning.
        say: gets a line for each run that ends.

    Returns:
        The jobs that failed.

    Raises:
        WorkStopped: by a signal; what ran was asked to save and has ended.
    """
    if workers > 1 and not devices:  # they share the cores
        os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))
    given = [devices[i % len(devices)] if devices else None for i in range(workers)]
    pool = Pool(given, say)
    with StopSignals(_raise):
        try:
            for jobs in waves:
                pool.work(jobs)
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
