"""Run the trials of a local sweep, each a ``fit`` in its own process.

While a trial runs, its validations are read from its ``metrics.csv`` and reported to the study. A
pruned trial is asked to stop, and saves its state first.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.runs.pool import resume_words
from zoo_lightning.runs.run_folder import LOG, METRICS, last_line_of_log
from zoo_lightning.runs.stopping import STOPPING, StopSignals, WorkStopped
from zoo_lightning.sources.own_runs import SUMMARY
from zoo_lightning.sweeps.expansion import expand, nested, words_of_fit
from zoo_lightning.sweeps.schema import Sweep
from zoo_lightning.sweeps.search import optuna
from zoo_lightning.sweeps.study import StudyTrial, SweepStudy, TrialInterruptedError

Log = Callable[[str], object]

POLL = 0.5
"""Seconds between checks of a trial's process."""

HOPELESS = 3
"""Number of failures without a success after which the sweep is stopped."""

STOPPED = tuple(status for number in STOPPING for status in (128 + number, -number))
"""Exit statuses of a trial that was stopped by a signal."""

PARAMETERS, LOCK = "parameters.json", "lock"


def words_of(trials: SweepStudy, taken: StudyTrial) -> list[str]:
    """Build the command line of a trial's process.

    Raises:
        ConfigError: the sweep's command is not ``fit`` of this package.
    """
    folder = taken.folder
    program = trials.sweep.text("program")
    words = expand(trials.command, nested(taken.values), program, folder / PARAMETERS)
    given = {word.partition("=")[0] for word in words_of_fit(words)}
    words += ["--run_dir", str(folder)]
    if "--run_test" not in given:
        words += ["--run_test", "false"]  # test data choose nothing, and need not exist
    if "--wandb" not in given and not wandb_is_off():
        words += ["--wandb", "true"]
    return [*words, *resume_words(folder)]


def wandb_is_off() -> bool:
    """Whether Weights & Biases is disabled by environment variables."""
    disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes")
    return disabled or os.environ.get("WANDB_MODE") == "disabled"


def environment_of(sweep: Sweep, taken: StudyTrial, run_id: str) -> dict[str, str]:
    """Build the environment of a trial's process, which logs offline to its folder."""
    found = {
        "WANDB_DIR": str(taken.folder.resolve()),
        "WANDB_RUN_ID": run_id,
        "WANDB_RESUME": "allow",
        "WANDB_NAME": f"{sweep.name} {taken.index}",
        "WANDB_RUN_GROUP": sweep.name,
    }
    if not wandb_is_off():
        found["WANDB_MODE"] = "offline"
    for key in ("entity", "project"):
        if sweep.text(key):
            found[f"WANDB_{key.upper()}"] = sweep.text(key)
    return os.environ | found


def history_of(folder: Path, metric: str) -> list[float]:
    """Read the finite values of a metric in logged order, even while the run writes them."""
    text = _metrics_text(folder)
    complete = text[: text.rfind("\n") + 1]  # the last line may still be written
    found = []
    for row in csv.DictReader(io.StringIO(complete)):
        try:
            value = float(row.get(metric) or "nan")
        except ValueError:
            continue
        if math.isfinite(value):
            found.append(value)
    return found


def logged_names(folder: Path) -> list[str]:
    """Read the names of the metrics that a run logged."""
    head = _metrics_text(folder).partition("\n")[0].strip()
    return [name for name in head.split(",") if name not in ("", "epoch", "step")]


def _metrics_text(folder: Path) -> str:
    file = folder / METRICS
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""


@contextmanager
def folder_lock(folder: Path, stop: threading.Event) -> Iterator[int]:
    """Context manager that locks a trial's folder, waiting until the lock is free.

    Optuna's heartbeat tracks workers, but not the training process that a killed worker leaves
    behind. That process inherits the lock, so that no other process writes to its folder.

    Args:
        folder: folder of the trial, created if absent.
        stop: event that ends the waiting when set.

    Yields:
        File descriptor of the lock, for processes that should inherit it.

    Raises:
        TrialInterruptedError: ``stop`` was set.
        ConfigError: the system has no such locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise ConfigError(f"local sweeps need a POSIX system ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("ab") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if stop.wait(POLL):
                    raise TrialInterruptedError from None
        yield stream.fileno()


class Worker:
    """Worker that runs trials of a study until none is left or it is asked to stop.

    Args:
        trials: study to take trials from.
        budget: largest number of trials to run, over all threads; ``None`` for no limit.
        log: receives a line for each trial that ends.
    """

    def __init__(self, trials: SweepStudy, budget: int | None, log: Log) -> None:
        self.trials, self.log = trials, log
        self.stop = threading.Event()
        self.kill = threading.Event()
        self._left = math.inf if budget is None else budget
        self._lock = threading.Lock()
        self._failed, self._succeeded = 0, 0

    def work(self, device: str | None = None) -> None:
        """Run trials one after the other.

        Args:
            device: number of the GPU; ``None`` leaves the choice to Lightning.
        """
        idle_since = None
        try:
            while not self.stop.is_set() and self._spend():
                if self.trials.run_next(lambda taken: self._run(taken, device)):
                    idle_since = None
                    continue
                with self._lock:
                    self._left += 1
                if not self.trials.others_work():
                    return
                # Trials of a worker that was killed are free when they have missed heartbeats.
                if idle_since is None:
                    idle_since = time.monotonic()
                    self.log("waiting for trials of other processes, which may have been killed")
                if time.monotonic() - idle_since > self.trials.patience:
                    self.log("other processes work on the trials that are left")
                    return
                self.stop.wait(POLL)
        except BaseException:
            self.stop.set()
            raise

    def _spend(self) -> bool:
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def _run(self, taken: StudyTrial, device: str | None) -> float:
        """Run a trial and return its value, see :meth:`SweepStudy.run_next`."""
        metric, label = self.trials.metric, f"trial {taken.index:04d}"
        status, pruned = 0, False
        with folder_lock(taken.folder, self.stop) as lock:
            run_id = self.trials.run_id(taken)
            if not (taken.folder / SUMMARY).is_file():  # else it has ended without its worker
                status, pruned = self._process(taken, run_id, device, lock)
            history = history_of(taken.folder, metric.name)
            taken.report(history)
        if pruned and status != 0:
            self.log(f"pruned  {label} after {len(history)} validations  {_described(taken)}")
            raise optuna.TrialPruned
        if status in STOPPED or self.kill.is_set():
            self.stop.set()
            self.log(f"stopped {label}; the same command resumes it")
            raise TrialInterruptedError
        if status == 0 and history:
            best = metric.best(history)
            self._succeeded += 1
            self.log(f"done    {label}  {metric.name} {best:.5g}  {_described(taken)}")
            return best
        reason = self._reason(taken.folder, status)
        self.log(f"failed  {label}: {reason}  {_described(taken)}")
        failure = taken.fail(reason)
        self._failed += 1
        if self._failed >= HOPELESS and not self._succeeded:
            raise ConfigError(
                f"the first {HOPELESS} trials failed, the last with: {reason}; see "
                f"{taken.folder / LOG}"
            )
        raise failure

    def _process(
        self, taken: StudyTrial, run_id: str, device: str | None, lock: int
    ) -> tuple[int, bool]:
        """Run a trial's process; returns its exit status and whether it was pruned."""
        environment = environment_of(self.trials.sweep, taken, run_id)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        with atomic_file(taken.folder / PARAMETERS) as part:
            part.write_text(json.dumps(nested(taken.values)) + "\n", **TEXT)
        with (taken.folder / LOG).open("a", **TEXT) as log:
            process = subprocess.Popen(
                words_of(self.trials, taken),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # Ctrl-C is for this process, which asks the trial to stop, once.
                start_new_session=True,
                pass_fds=(lock,),
            )
            try:
                return self._watch(process, taken)
            except BaseException:
                process.terminate()
                process.wait()
                raise

    def _watch(self, process: subprocess.Popen[bytes], taken: StudyTrial) -> tuple[int, bool]:
        asked = pruned = False
        while True:
            try:
                return process.wait(timeout=POLL), pruned
            except subprocess.TimeoutExpired:
                pass
            if self.kill.is_set():
                process.kill()
            elif self.stop.is_set() and not asked:
                process.terminate()
                asked = True
            history = history_of(taken.folder, self.trials.metric.name)
            if len(history) > taken.reported and not asked:
                taken.report(history)
                if self.trials.sweep.early and taken.trial.should_prune():
                    process.terminate()
                    asked = pruned = True

    def _reason(self, folder: Path, status: int) -> str:
        """Why a trial failed, in one line."""
        if status == 0:
            name, known = self.trials.metric.name, logged_names(folder)
            return (
                f"it logged no {name!r}.{nearest(name, known)} It logged: "
                f"{', '.join(known) or 'nothing'}"
            )
        return last_line_of_log(folder, f"exit status {status}")


def _described(taken: StudyTrial) -> str:
    return ", ".join(f"{'.'.join(path)}={value}" for path, value in taken.values.items())


def run_here(
    trials: SweepStudy, workers: int, count: int | None, devices: Sequence[str], log: Log
) -> None:
    """Run the trials of a study in several concurrent processes.

    Args:
        trials: study to take trials from.
        workers: number of concurrent processes.
        count: largest number of trials to run; ``None`` runs until none is left.
        devices: GPU numbers, assigned to the workers in turn; empty leaves the choice to Lightning.
        log: receives a line for each trial that ends.

    Raises:
        ConfigError: the first trials all failed, or a trial's folder contains another run.
        WorkStopped: a signal was received; the trials have saved their state and are queued again.
    """
    worker = Worker(trials, count, log)
    asked: list[int] = []
    given = [devices[number % len(devices)] if devices else None for number in range(workers)]
    with StopSignals(asked.append), ThreadPoolExecutor(workers) as pool:
        threads = [pool.submit(worker.work, device) for device in given]
        while wait(threads, POLL).not_done:
            if asked and not worker.stop.is_set():
                log("stopping: trials save their state; a second signal does not wait for them")
                worker.stop.set()
            if len(asked) > 1:
                worker.kill.set()
    for thread in threads:
        thread.result()  # raises its error
    if asked:
        raise WorkStopped(asked[0])
