"""Optuna study of a local sweep, shared by any number of commands and machines.

Optuna's heartbeat marks running trials. A trial whose worker died or was interrupted is queued
again by Optuna's retry callback, with the same number in the sweep, parameters and folder.
"""

from __future__ import annotations

import copy
import json
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from filelock import FileLock

from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.sweeps.parameters import ParameterPath
from zoo_lightning.sweeps.report import Result
from zoo_lightning.sweeps.schema import Sweep, SweepMetric, changed_keys
from zoo_lightning.sweeps.search import (
    ERROR,
    INDEX,
    FrozenTrial,
    SearchSpace,
    Study,
    Trial,
    TrialState,
    is_interrupted,
    optuna,
    pruner_of,
    sampler_of,
)

HEARTBEAT, GRACE = 10, 60
"""Seconds between a trial's heartbeats, and seconds without one after which it is retried."""

CONTENT = "sweep"
"""Name of a study's user attribute: content of the sweep file."""

TRIAL = "trial.json"
"""File in a trial's folder with its command, parameters and W&B run id."""

SURPLUS = "one more than the sweep has"
"""``ERROR`` of a trial beyond the sweep's limit, begun by two machines at once."""

BEATING = "heartbeat"
"""Name of a trial's user attribute: Optuna's number of the trial that has a heartbeat."""

AGAIN = "again"
"""Name of a user attribute in version 0.1: number of the trial that a trial repeats."""

STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running",
          "WAITING": "waiting"}  # fmt: skip

# Optuna 4.9 renamed both.
_RENAMED = hasattr(optuna.storages, "RetryHeartbeatStaleTrialCallback")
RetryCallback: Any = getattr(
    optuna.storages, "RetryHeartbeatStaleTrialCallback" if _RENAMED else "RetryFailedTrialCallback"
)
CALLBACK_OPTION = "heartbeat_stale_trial_callback" if _RENAMED else "failed_trial_callback"


class TrialInterruptedError(Exception):
    """Raised when a trial was interrupted; it is queued again."""


class TrialFailedError(Exception):
    """Raised when a trial failed; it is not retried."""


@dataclass
class StudyTrial:
    """Trial that this process runs.

    Attributes:
        trial: Optuna's trial.
        index: number in the sweep; a retry has the same number.
        folder: folder of the trial's run.
        values: values of the parameters.
        reported: number of validations reported to the study.
    """

    trial: Trial
    index: int
    folder: Path
    values: dict[ParameterPath, Any]
    reported: int = 0

    def report(self, history: Sequence[float]) -> None:
        """Report new validations to the study."""
        for step in range(self.reported, len(history)):
            self.trial.report(history[step], step)
        self.reported = max(self.reported, len(history))

    def fail(self, reason: str) -> TrialFailedError:
        """Record why the trial failed; returns the error to raise."""
        self.trial.set_user_attr(ERROR, reason)
        return TrialFailedError(reason)


class SweepStudy:
    """Trials of a sweep.

    Args:
        sweep: sweep file.
        metric: metric by which trials are compared.
        folder: folder of the sweep.
        url: URL of the database, such as ``sqlite:///study.db``.
        extra: command-line words added to every trial.

    Raises:
        ConfigError: the database cannot be used, or has a different sweep with the same name.
    """

    def __init__(
        self,
        sweep: Sweep,
        metric: SweepMetric,
        folder: Path,
        url: str,
        extra: Sequence[str] = (),
    ) -> None:
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep, self.metric, self.folder = sweep, metric, folder
        self.command = [*sweep.command, *extra]
        self.space = SearchSpace(sweep)
        self._file = database_file(url)
        self._thread_lock = threading.Lock()
        self._retry = RetryCallback()
        self._own: set[int] = set()
        with self._exclusive():
            self.storage, self.study = self._open(url)
            self._check_content({**sweep.content, "further options": list(extra)})

    def _open(self, url: str) -> tuple[optuna.storages.RDBStorage, Study]:
        pruner = pruner_of(self.sweep.early, self.metric)
        options: dict[str, Any] = {CALLBACK_OPTION: self._retry}
        if self._file:  # wait for other processes, which SQLite keeps waiting
            options["engine_kwargs"] = {"connect_args": {"timeout": 60}}
        try:
            storage = optuna.storages.RDBStorage(
                url, heartbeat_interval=HEARTBEAT, grace_period=GRACE, **options
            )
            study = optuna.create_study(
                storage=storage,
                sampler=sampler_of(self.sweep, self.space),
                pruner=pruner,
                study_name=self.sweep.name,
                direction=self.metric.goal,
                load_if_exists=True,
            )
        except Exception as error:  # database drivers raise errors of their own
            raise ConfigError(
                f"--storage {url}: {' '.join(str(error).split())[:300]}; expected a database such "
                "as sqlite:///sweep.db or postgresql://user@host/name"
            ) from error
        return storage, study

    def _check_content(self, content: dict[str, Any]) -> None:
        content = json.loads(json.dumps(content))
        before = self.study.user_attrs.get(CONTENT)
        if before is None:
            self.study.set_user_attr(CONTENT, content)
        elif changed := changed_keys(before, content):
            raise ConfigError(
                f"{self.sweep.file}: the sweep {self.sweep.name} in {self.folder} was begun with "
                f"other {', '.join(changed)}; restore them, or give another --run_dir"
            )

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Keep other workers from beginning a trial. Servers do so themselves, SQLite does not."""
        with self._thread_lock, ExitStack() as stack:
            if self._file is not None:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(self._file.with_name(f"{self._file.name}.lock")))
            yield

    def all(self) -> list[FrozenTrial]:
        """List all trials of the study, in the order of Optuna's numbers."""
        return self.study.get_trials(deepcopy=False)

    @property
    def cap(self) -> int | None:
        """Largest number of trials of the sweep; ``None`` for no limit."""
        limits = [each for each in (self.space.size, self.sweep.run_cap) if each is not None]
        return min(limits, default=None)

    @property
    def patience(self) -> int:
        """Seconds after which a killed worker has certainly missed its heartbeats."""
        return HEARTBEAT + GRACE

    def run_next(self, objective: Callable[[StudyTrial], float]) -> bool:
        """Run the next trial; interrupted trials come first.

        Args:
            objective: function that runs a trial and returns its value, or raises ``TrialPruned``,
                :class:`TrialFailedError` or :class:`TrialInterruptedError`.

        Returns:
            Whether there was a trial to run.

        Raises:
            ConfigError: the trial's folder contains another run.
        """
        with ExitStack() as stack:
            stack.enter_context(self._exclusive())
            self._retry_lost()
            trials = self.all()
            if self._target_reached(trials) or not self._any_left(trials):
                return False
            taken_over = False

            def run(trial: Trial) -> float:
                nonlocal taken_over
                self._own.add(trial.number)
                try:
                    taken = self._begin(trial)
                    stack.close()  # others may begin trials now
                    return objective(taken)
                finally:
                    self._own.discard(trial.number)
                    if self.all()[trial.number].state != TrialState.RUNNING:
                        # This process was suspended for longer than the grace period.
                        taken_over = True
                        raise TrialInterruptedError

            try:
                # Optuna sends the heartbeats, retries what has none, and notes the outcome.
                self.study.optimize(
                    run,
                    n_trials=1,
                    catch=(TrialInterruptedError, TrialFailedError),
                    callbacks=[self._retry_interrupted],
                )
            except ValueError:  # Optuna takes no outcome of a trial that another process retries
                if not taken_over:
                    raise
        return True

    def others_work(self) -> bool:
        """Whether other workers run trials, or died while they ran one."""
        trials = self.all()
        if self._target_reached(trials):
            return False
        running = [trial for trial in trials if trial.state == TrialState.RUNNING]
        return any(trial.number not in self._own for trial in [*_lost(trials), *running])

    def _target_reached(self, trials: Sequence[FrozenTrial]) -> bool:
        done = (trial for trial in trials if trial.state == TrialState.COMPLETE)
        return any(self.metric.reached(trial.value) for trial in done)

    def _any_left(self, trials: Sequence[FrozenTrial]) -> bool:
        if self.cap is None or any(trial.state == TrialState.WAITING for trial in trials):
            return True
        return sum(map(_is_fresh, trials)) < self.cap

    def _begin(self, trial: Trial) -> StudyTrial:
        """Give a trial its number in the sweep, a folder and parameters."""
        study = self.storage.get_study_id_from_name(self.study.study_name)
        self.storage.record_heartbeat(
            self.storage.get_trial_id_from_study_id_trial_number(study, trial.number)
        )
        trial.set_user_attr(BEATING, trial.number)
        index = trial.user_attrs.get(INDEX)
        if index is None:
            index = self._index_of(trial.number)
            trial.set_user_attr(INDEX, index)
        if self.cap is not None and index >= self.cap:  # another machine was faster
            trial.set_user_attr(ERROR, SURPLUS)
            raise TrialFailedError(SURPLUS)
        values = self.space.values(self.space.suggest(trial))
        return StudyTrial(trial, index, self.folder / "trials" / f"{index:04d}", values)

    def _index_of(self, number: int) -> int:
        """Number in the sweep of a trial: how many trials before it are no retries.

        A function of Optuna's numbers alone, so that machines without a common lock agree.
        """
        trials = self.all()
        origin = RetryCallback.retried_trial_number(trials[number])
        return sum(map(_is_fresh, trials[: number if origin is None else origin]))

    def run_id(self, taken: StudyTrial) -> str:
        """W&B id of a trial's run, which stays the same when the run is resumed.

        Records in the trial's folder which trial it is for, or checks that it is for this one.

        Raises:
            ConfigError: the folder contains another run.
        """
        path = taken.folder / TRIAL
        parameters = {".".join(key): value for key, value in taken.values.items()}
        content: dict[str, Any] = {"command": self.command, "parameters": parameters}
        if not path.is_file():
            content["run_id"] = uuid4().hex[:8]
            with atomic_file(path) as part:
                part.write_text(json.dumps(content, indent=2) + "\n", **TEXT)
            return content["run_id"]
        before = json.loads(path.read_text(**TEXT))
        run_id = before.pop("run_id")
        if before != content:
            message = (
                f"{taken.folder} has a run of another sweep, with {before['parameters']}; give "
                "another --run_dir"
            )
            taken.fail(message)
            raise ConfigError(message)
        return run_id

    def _retry_interrupted(self, study: Study, trial: FrozenTrial) -> None:
        if is_interrupted(trial):
            self._retry(study, trial)

    def _retry_lost(self) -> None:
        """Queue trials again whose worker died.

        Optuna overlooks a worker that died before its first heartbeat, or between noting that a
        trial was interrupted and queueing it again.
        """
        optuna.storages.fail_stale_trials(self.study)
        for trial in _lost(self.all()):
            if _age(trial) > GRACE:
                if trial.state == TrialState.RUNNING:
                    self.study.tell(trial.number, state=TrialState.FAIL)
                self._retry(self.study, copy.deepcopy(trial))

    def results(self) -> list[Result]:
        """Results of all trials by number; an interrupted trial is replaced by its retry."""
        found = []
        for trial in self.all():
            known = INDEX in trial.user_attrs and trial.user_attrs.get(ERROR) != SURPLUS
            if not known or is_interrupted(trial):
                continue
            history = list(trial.intermediate_values.values())
            values = {}
            if set(self.space.distributions) <= set(trial.params):
                values = self.space.values(trial.params)
            duration = trial.duration
            found.append(
                Result(
                    trial.user_attrs[INDEX],
                    STATES[trial.state.name],
                    self.metric.best(history) if history else trial.value,
                    {
                        ".".join(path): value
                        for path, value in values.items()
                        if self.sweep.parameters[path].kind != "constant"
                    },
                    len(history),
                    None if duration is None else round(duration.total_seconds(), 1),
                    trial.user_attrs.get(ERROR, ""),
                )
            )
        return sorted(found, key=lambda result: result.index)


def _is_fresh(trial: FrozenTrial) -> bool:
    """Whether a trial is no retry of another one."""
    return RetryCallback.retried_trial_number(trial) is None and AGAIN not in trial.user_attrs


def _lost(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Trials that were begun, and for which neither a worker nor a retry is known."""
    retried: set[int | None] = set()
    for trial in trials:
        retried |= {*RetryCallback.retry_history(trial), trial.user_attrs.get(AGAIN)}
    return [
        trial
        for trial in trials
        if trial.number not in retried
        and (
            is_interrupted(trial)
            or (trial.state == TrialState.RUNNING and trial.user_attrs.get(BEATING) != trial.number)
        )
    ]


def _age(trial: FrozenTrial) -> float:
    """Seconds since a trial ended, or else began."""
    moment = trial.datetime_complete or trial.datetime_start
    return 0.0 if moment is None else time.time() - moment.timestamp()


def database_file(url: str) -> Path | None:
    """Path of an SQLite database URL; ``None`` for a database server."""
    scheme, _, rest = url.partition("://")
    if not scheme.startswith("sqlite") or not rest.strip("/"):
        return None
    return Path(os.path.abspath(rest.removeprefix("/")) if rest[1:2] != "/" else rest[1:])
