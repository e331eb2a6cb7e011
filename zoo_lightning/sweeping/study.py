"""Trials of a sweep, handed out so that each is taken by one worker and none is lost.

The study is an Optuna study in a database. Trials that nobody works on any more, because they were
interrupted or their sweep was killed, are put back and taken again before new ones begin.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from filelock import FileLock

from zoo_lightning.errors import ConfigError
from zoo_lightning.sweeping.claims import Claim, claim_soon, is_free
from zoo_lightning.sweeping.pruning import pruner_of
from zoo_lightning.sweeping.schema import Metric, Sweep
from zoo_lightning.sweeping.space import Space
from zoo_lightning.sweeping.states import (
    AGAIN,
    ALIVE,
    ERROR,
    FOLDER,
    HOST,
    INDEX,
    SURPLUS,
    import_optuna,
    is_fresh,
    is_put_back,
)
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial, Trial

CONTENT = "sweep"
"""Attribute of a study: the sweep that it was begun with."""

TRIAL = "trial.json"

CHANGEABLE = ("run_cap", "description", "target")
"""What may be changed when a sweep goes on."""

GRACE = 600.0
"""Seconds after which a worker on another machine that is not heard of counts as gone."""


@dataclass
class Taken:
    """A trial that this process works on.

    Attributes:
        trial: Optuna's.
        index: which of the sweep it is; another one that goes on with it has the same.
        folder: of its run.
        claim: the lock on it.
        values: of the parameters, by where they go.
        run_id: of the run in W&B, the same when it goes on.
        reported: how many validations the study knows of.
    """

    trial: Trial
    index: int
    folder: Path
    claim: Claim
    values: dict[tuple[str, ...], Any]
    run_id: str
    reported: int = 0


class Trials:
    """The trials of a sweep.

    Args:
        sweep: the file.
        metric: by which trials are judged.
        folder: of the sweep.
        url: of the database.
        extra: words that every command line of this sweep has besides.

    Raises:
        ConfigError: no Optuna, no such database, or one with another sweep of that name.
    """

    def __init__(
        self, sweep: Sweep, metric: Metric, folder: Path, url: str, extra: Sequence[str] = ()
    ) -> None:
        optuna = import_optuna()
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.sweep, self.metric, self.folder = sweep, metric, folder
        self.space = Space(sweep)
        self._file = database_file(url)
        self._thread_lock = threading.Lock()
        self._drawn: dict[str, Any] = {}
        with self._alone():
            self.study = self._open(url, {**sweep.content, "further options": list(extra)})
        self.command = [*sweep.command, *extra]

    def _open(self, url: str, content: dict[str, Any]) -> Study:
        optuna = import_optuna()
        if self.sweep.method == "bayes":
            sampler = optuna.samplers.TPESampler(constant_liar=True)
        else:
            sampler = _drawing_sampler(self._drawn)
        try:
            wait = {"connect_args": {"timeout": 60}} if self._file else {}
            storage = optuna.storages.RDBStorage(url, engine_kwargs=wait)
            study = optuna.create_study(
                storage=storage,
                sampler=sampler,
                pruner=pruner_of(self.sweep.early, self.metric),
                study_name=self.sweep.name,
                direction=self.metric.goal,
                load_if_exists=True,
            )
        except ConfigError:
            raise
        except Exception as error:  # whatever a database's driver raises
            raise ConfigError(
                f"--storage {url}: {' '.join(str(error).split())[:300]}; expected a database such "
                "as sqlite:///sweep.db or postgresql://user@host/name"
            ) from error
        plain = json.loads(json.dumps(content))
        before = study.user_attrs.get(CONTENT)
        if before is None:
            study.set_user_attr(CONTENT, plain)
        elif changed := changes(before, plain):
            raise ConfigError(
                f"{self.sweep.file}: the sweep {self.sweep.name} in {self.folder} was begun with "
                f"other {', '.join(changed)}; go on with those, or give another --run_dir"
            )
        return study

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else takes or puts back. Servers see to that by themselves, SQLite does not."""
        with self._thread_lock:
            if self._file is None:
                yield
                return
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(self._file.with_name(f"{self._file.name}.lock")):
                yield

    def all(self) -> list[FrozenTrial]:
        """All trials as the database has them."""
        return self.study.get_trials(deepcopy=False)

    def folder_of(self, index: int) -> Path:
        """Folder of a trial's run."""
        return self.folder / "trials" / f"{index:04d}"

    def take(self) -> Taken | None:
        """A trial to work on, one that was interrupted first.

        Returns:
            ``None`` if there is nothing left to try, or somebody else is at it.

        Raises:
            ConfigError: its folder has another run.
        """
        with self._alone():
            self._recover()
            trials = self.all()
            cap = self.cap
            waiting = any(trial.state.name == "WAITING" for trial in trials)
            if not waiting and cap is not None and sum(map(is_fresh, trials)) >= cap:
                return None
            if any(t.state.name == "COMPLETE" and self.metric.reached(t.value) for t in trials):
                return None
            trial = self.study.ask()
            index = trial.user_attrs.get(INDEX)
            if index is None:
                index = sum(is_fresh(t) for t in self.all() if t.number < trial.number)
                if cap is not None and index >= cap:  # another machine was quicker
                    self._fail(trial, SURPLUS)
                    return None
            return self._begin(trial, index)

    @property
    def cap(self) -> int | None:
        """Most trials of the sweep; ``None`` if it has no end."""
        limits = [each for each in (self.space.size, self.sweep.run_cap) if each is not None]
        return min(limits, default=None)

    def _begin(self, trial: Trial, index: int) -> Taken:
        folder = self.folder_of(index)
        place = {HOST: socket.gethostname(), FOLDER: str(folder.resolve())}
        for name, value in {INDEX: index, **place}.items():
            trial.set_user_attr(name, value)
        held = claim_soon(folder)
        try:
            if held is None:
                raise ConfigError(f"{folder} is used by a process of another sweep; end that first")
            # From now on others on this machine take a free folder for a sign of death.
            trial.set_user_attr(ALIVE, time.time())
            if self.sweep.method != "bayes":
                self._drawn.clear()
                self._drawn.update(self.space.drawn(index))
            values = self.space.values(self.space.suggest(trial))
            run_id = self._mark(folder, values)
        except ConfigError as error:
            self._fail(trial, str(error))
            raise
        return Taken(trial, index, folder, held, values, run_id)

    def _mark(self, folder: Path, values: dict[tuple[str, ...], Any]) -> str:
        """Note in a trial's folder what it is; the run's id in W&B."""
        path = folder / TRIAL
        parameters = {".".join(key): value for key, value in values.items()}
        if path.is_file():
            before = json.loads(path.read_text(**TEXT))
            if (before["command"], before["parameters"]) != (self.command, parameters):
                raise ConfigError(
                    f"{folder} has a run of another sweep, with {before['parameters']}; give "
                    "another --run_dir"
                )
            return before["run_id"]
        content = {"command": self.command, "parameters": parameters, "run_id": uuid4().hex[:8]}
        with whole_file(path) as part:
            part.write_text(json.dumps(content, indent=2) + "\n", **TEXT)
        return content["run_id"]

    def beat(self, taken: Taken) -> None:
        """Tell other machines that somebody works on a trial."""
        taken.trial.set_user_attr(ALIVE, time.time())

    def finish(self, trial: Trial, value: float) -> None:
        """Note that a trial is done, and its figure."""
        with self._alone():
            self.study.tell(trial.number, value)

    def prune(self, trial: Trial) -> None:
        """Note that a trial was stopped because it lagged behind."""
        with self._alone():
            self.study.tell(trial.number, state=_states().PRUNED)

    def fail(self, trial: Trial, reason: str) -> None:
        """Note that a trial failed; it is not tried again."""
        with self._alone():
            self._fail(trial, reason)

    def _fail(self, trial: Trial, reason: str) -> None:
        trial.set_user_attr(ERROR, reason)
        self.study.tell(trial.number, state=_states().FAIL)

    def put_back(self, number: int) -> None:
        """Have a trial taken again that was interrupted: the same parameters in the same folder."""
        with self._alone():
            self._put_back(number)

    def _put_back(self, number: int) -> None:
        try:
            self.study.tell(number, state=_states().FAIL)
        except (RuntimeError, ValueError):  # somebody else has done so, or it has just ended
            return
        self._add_again(next(trial for trial in self.all() if trial.number == number))

    def _add_again(self, trial: FrozenTrial) -> None:
        if INDEX not in trial.user_attrs:
            # Nothing is known of it; its place in the sweep is among those that are fresh.
            index = sum(is_fresh(t) for t in self.all() if t.number < trial.number)
        else:
            index = trial.user_attrs[INDEX]
        attributes = {INDEX: index, AGAIN: trial.number}
        self.study.enqueue_trial(trial.params, user_attrs=attributes)

    def _recover(self) -> None:
        """Put back what nobody works on any more."""
        trials = self.all()
        gone_on = {trial.user_attrs.get(AGAIN) for trial in trials}
        for trial in trials:
            if trial.state.name == "RUNNING" and self._is_dead(trial):
                self._put_back(trial.number)
            elif is_put_back(trial) and trial.number not in gone_on and self._is_old(trial):
                self._add_again(trial)  # whoever failed it did not live to add another

    def _is_dead(self, trial: FrozenTrial) -> bool:
        attributes = trial.user_attrs
        if ALIVE not in attributes:  # begun, and then nothing
            return self._is_old(trial)
        if attributes[HOST] == socket.gethostname():
            return is_free(Path(attributes[FOLDER]))
        return time.time() - attributes[ALIVE] > GRACE

    def _is_old(self, trial: FrozenTrial) -> bool:
        """Whether nobody can be about to go on with what was done to a trial last."""
        when = trial.datetime_complete or trial.datetime_start
        if self._file is not None or when is None:
            return True  # that would have been done alone, which we are now
        return time.time() - when.timestamp() > GRACE


def _states() -> Any:
    return import_optuna().trial.TrialState


def _drawing_sampler(drawn: dict[str, Any]) -> Any:
    """Optuna's sampler that takes what was drawn for the trial."""
    optuna = import_optuna()

    class Drawing(optuna.samplers.BaseSampler):
        def infer_relative_search_space(self, study: Any, trial: Any) -> dict:
            return {}

        def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict:
            return {}

        def sample_independent(self, study: Any, trial: Any, name: str, distribution: Any) -> Any:
            return drawn[name]

    return Drawing()


def database_file(url: str) -> Path | None:
    """File of an SQLite database; ``None`` for a server."""
    scheme, _, rest = url.partition("://")
    if not scheme.startswith("sqlite") or not rest.strip("/"):
        return None
    return Path(os.path.abspath(rest.removeprefix("/")) if rest[1:2] != "/" else rest[1:])


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Names of what two sweeps differ in, but for what may be changed on the way."""
    found = []
    for key in {**before, **now}:
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += [f"{key}.{inside}" for inside in changes(old, new)]
        elif old != new and key not in CHANGEABLE:
            found.append(key)
    return found
