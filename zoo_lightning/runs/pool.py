"""Process pool that executes many runs, several at a time.

Whether a run is finished is determined by the files in its folder alone. A finished run is not
repeated, a run that another process works on is skipped, and a run that is asked to stop saves its
state first. ``compare``, ``fit --method`` and ``benchmarks/kinds_of_zoo.py`` use this pool.
"""

from __future__ import annotations

import argparse
import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from zoo_lightning.errors import ConfigError
from zoo_lightning.runs.folders import is_first_rank
from zoo_lightning.runs.forking import ForkedProcess
from zoo_lightning.runs.run_folder import LOG, last_checkpoint, last_line_of_log
from zoo_lightning.runs.stopping import StopSignals, WorkStopped

Report = Callable[[str], object]
"""Function that receives progress lines."""

TAKEN = 75
"""Exit status of a process whose run is claimed by another process: ``EX_TEMPFAIL``."""


@dataclass(frozen=True)
class Execution:
    """Processes of a pool.

    Attributes:
        workers: number of concurrent processes.
        devices: GPU numbers, assigned to the workers in turn; empty leaves the choice to Lightning.
        report: function that receives progress lines.
    """

    workers: int = 1
    devices: Sequence[str] = ()
    report: Report = lambda line: print(line, flush=True)


def add_pool_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--workers`` and ``--devices`` to a parser."""
    parser.add_argument("--workers", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--devices", default="", help="GPUs for the workers, such as 0,1")


def execution_of(options: argparse.Namespace) -> Execution:
    """Build the :class:`Execution` of ``--workers`` and ``--devices``, with a worker per device.

    Raises:
        ConfigError: fewer than one worker.
    """
    if options.workers < 1:
        raise ConfigError(f"--workers must be at least 1, got {options.workers}")
    devices = [word for word in options.devices.split(",") if word]
    return Execution(max(options.workers, len(devices)), devices)


class Process(Protocol):
    """Protocol of a running process."""

    def wait(self) -> int:
        """Wait for the end; return the exit status, negative after a signal."""
        ...

    def terminate(self) -> None:
        """Ask the process to save its state and exit."""
        ...


class Job(ABC):
    """Base class of jobs: a run in its own process.

    Attributes:
        name: name of the run in progress lines.
        folder: run folder; the process's output goes to its ``log.txt``.
        module: module that the process runs, as ``python -m MODULE ARGUMENTS``.
    """

    name: str
    folder: Path
    module: str

    @abstractmethod
    def arguments(self) -> list[str]:
        """Command-line words of the module."""

    @abstractmethod
    def is_finished(self) -> bool:
        """Whether the run is finished."""

    def missing_runs(self) -> list[str]:
        """Names of unfinished runs that this one depends on; it is skipped if there are any."""
        return []

    def start(self, device: str | None) -> Process:
        """Start the process, which appends its output to ``log.txt``.

        Args:
            device: number of a GPU; ``None`` leaves the choice to Lightning.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        return ForkedProcess(self.module, self.arguments(), self.folder / LOG, device)

    def attend(self, process: Process) -> int:
        """Wait for the started process and return its exit status.

        Override this to monitor the run, or to record how it ended.
        """
        return process.wait()


def outcome(status: int) -> str:
    """Outcome of an exit status: ``done``, ``failed``, or ``taken`` by another process."""
    return {0: "done", TAKEN: "taken"}.get(status, "failed")


def run_label(method: str, variant: str) -> str:
    """Label of a run in tables and folders: its method and, if any, the method's variant."""
    return f"{method} {variant}".strip()


def folder_name(label: str) -> str:
    """Convert a run's label to a folder name of letters, digits, dots and hyphens.

    ``single timm:resnet18`` becomes ``single-timm-resnet18``.
    """
    return re.sub(r"[^\w.-]+", "-", label)


def rounded_budget(budget: float) -> float:
    """Round a budget as in folder names, so that equal budgets are equal runs."""
    return float(f"{budget:g}")


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Context manager that claims a run; yields ``False`` if another process has claimed it.

    The operating system releases the lock when the process ends, however it ends.
    """
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


def work_on(folder: Path, is_finished: Callable[[], bool], work: Callable[[], int]) -> int:
    """Work on a run in this process, unless it is finished or claimed by another process.

    Args:
        folder: run folder.
        is_finished: function that returns whether the run is finished.
        work: function that does the work and returns an exit status.

    Returns:
        Exit status: 0 if the run is finished, ``TAKEN`` if another process works on it.
    """
    with claimed(folder) if is_first_rank() else nullcontext(True) as free:
        if not free:
            return TAKEN
        return 0 if is_finished() else work()


def fit_words(config: Path, folder: Path, run_test: bool = True) -> list[str]:
    """Build the words of ``fit`` for a configuration file, resuming the folder's run if any.

    Args:
        config: configuration file.
        folder: run folder.
        run_test: whether to test the best checkpoint at the end.
    """
    words = ["fit", "--config", str(config), "--run_dir", str(folder)]
    words += [] if run_test else ["--run_test", "false"]
    return [*words, *resume_words(folder)]


def resume_words(folder: Path) -> list[str]:
    """Build the words that resume a folder's run; none if it has no checkpoint."""
    return ["--ckpt_path", "last"] if last_checkpoint(folder).is_file() else []


class Pool:
    """Pool of worker processes, one per entry of ``devices``, that run jobs.

    Args:
        devices: GPU number of each worker; ``None`` leaves the choice to Lightning.
        report: function that receives a line for each run that begins or ends.

    Attributes:
        failed: jobs that ended without being finished.
    """

    def __init__(self, devices: Sequence[str | None], report: Report) -> None:
        self.devices, self.report = devices, report
        self.failed: list[Job] = []
        self._stopping = threading.Event()
        self._running: set[Process] = set()
        self._lock = threading.Lock()
        self._drawing = threading.Lock()
        self._errors: list[BaseException] = []

    def work(self, jobs: Iterable[Job], requests: Sequence[int] = ()) -> None:
        """Run jobs; returns when all have ended or have been skipped.

        Args:
            jobs: jobs, taken one at a time when a worker is free, so that a generator can choose
                the next job by the results so far.
            requests: numbers of the stop signals received so far; a handler may append to it at
                any time. At the first one no more runs are started, and at each one the running
                jobs are asked to save their state and exit.

        Raises:
            Exception: what the generator or a job raised; the running jobs were stopped before.
        """
        todo = iter(jobs)
        ended = [threading.Event() for _ in self.devices]
        for device, event in zip(self.devices, ended, strict=True):
            threading.Thread(target=self._drain, args=(todo, device, event)).start()
        # Signals are looked up here, not raised by their handler: an exception between any two
        # lines could leave this process, and with it the folder of temporary files that its
        # workers share, before they have ended. Nor are the threads joined: a thread whose join
        # a signal interrupts counts as ended.
        answered = 0
        for event in ended:
            while not event.wait(timeout=0.2):
                if len(requests) > answered or (self._errors and not self._stopping.is_set()):
                    answered = len(requests)
                    self.stop()
        if self._errors:
            raise self._errors[0]

    def stop(self) -> None:
        """Start no more runs, and ask the running ones to save their state and exit."""
        self._stopping.set()
        with self._lock:
            for process in self._running:
                process.terminate()

    def _drain(self, todo: Iterator[Job], device: str | None, ended: threading.Event) -> None:
        try:
            while not self._stopping.is_set():
                with self._drawing:
                    job = next(todo, None)
                if job is None:
                    return
                if not job.is_finished():
                    self._attempt(job, device)
        except BaseException as error:  # raised again in the thread that waits
            self._errors.append(error)
        finally:
            ended.set()

    def _attempt(self, job: Job, device: str | None) -> None:
        if missing := job.missing_runs():
            self.report(f"left    {job.name}: it is made from {', '.join(missing)}, not finished")
            return
        with self._lock:
            if self._stopping.is_set():
                return
            process = job.start(device)
            self._running.add(process)
        self.report(f"begun   {job.name}")
        try:
            ended_as = outcome(job.attend(process))
        finally:
            with self._lock:
                self._running.discard(process)
        if ended_as == "failed" and not self._stopping.is_set():
            self.failed.append(job)
            self.report(f"failed  {job.name}: {last_line_of_log(job.folder, 'no output')}")
        elif ended_as == "taken":
            self.report(f"left    {job.name}: another process works on it")
        elif ended_as == "done":
            self.report(f"done    {job.name}")


def run_jobs(waves: Sequence[Iterable[Job]], execution: Execution) -> list[Job]:
    """Run jobs in several concurrent processes, wave by wave.

    Args:
        waves: jobs, finished or not; each wave starts when the one before has ended.
        execution: processes to use, and the function that receives a line for each run that
            begins or ends.

    Returns:
        The jobs that failed.

    Raises:
        WorkStopped: a signal was received; the running jobs saved their state and exited.
    """
    workers, devices = execution.workers, execution.devices
    if workers > 1 and not devices:  # they share the cores
        os.environ.setdefault("OMP_NUM_THREADS", str(max((os.cpu_count() or 1) // workers, 1)))
    given = [devices[i % len(devices)] if devices else None for i in range(workers)]
    pool = Pool(given, execution.report)
    requests: list[int] = []
    with StopSignals(requests.append):
        for jobs in waves:
            if not requests:
                pool.work(jobs, requests)
    if requests:
        raise WorkStopped(requests[0])
    return pool.failed
