"""Working through a sweep's trials here: each is a ``fit`` in a process of its own.

While it runs, its validations are read from its ``metrics.csv`` and reported to the study; one that
lags behind is asked to stop, which it does after saving.
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
from collections.abc import Callable, Sequence
from pathlib import Path

from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.run_folder import CHECKPOINTS, LOG, METRICS, SUMMARY, last_line_of_log
from zoo_lightning.stopping import STOPPING, StopSignals, WorkStopped
from zoo_lightning.sweeping.expansion import expand, nested, words_of_fit
from zoo_lightning.sweeping.study import Taken, Trials
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

Say = Callable[[str], object]

POLL = 0.5
"""Seconds between looks at a trial's process."""

BEAT = 60.0
"""Seconds between signs of life to workers on other machines."""

HOPELESS = 3
"""So many failures without a success say that the sweep itself is wrong."""

STOPPED = tuple(status for number in STOPPING for status in (128 + number, -number))
"""Exit statuses of a trial that was stopped from outside."""

PARAMETERS = "parameters.json"


def words_of(trials: Trials, taken: Taken) -> list[str]:
    """Command line of a trial's process.

    Raises:
        ConfigError: the sweep's command is no fit of this package.
    """
    folder = taken.folder
    program = trials.sweep.text("program")
    words = expand(trials.command, nested(taken.values), program, folder / PARAMETERS)
    given = {word.partition("=")[0] for word in words_of_fit(words)}
    words += ["--run_dir", str(folder)]
    if "--run_test" not in given:
        words += ["--run_test", "false"]  # nothing is chosen by the test data, nor need they exist
    if "--wandb" not in given and not wandb_is_off():
        words += ["--wandb", "true"]
    if (folder / CHECKPOINTS / "last.ckpt").is_file():
        words += ["--ckpt_path", "last"]
    return words


def wandb_is_off() -> bool:
    """Whether the user wants nothing logged to Weights & Biases."""
    disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("1", "true", "yes")
    return disabled or os.environ.get("WANDB_MODE") == "disabled"


def environment_of(trials: Trials, taken: Taken) -> dict[str, str]:
    """Variables of a trial's process: it logs offline, into its folder, as one run of W&B's."""
    sweep = trials.sweep
    found = {
        "WANDB_DIR": str(taken.folder.resolve()),
        "WANDB_RUN_ID": taken.run_id,
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
    """Finite values of a metric in the order in which a run logged them, even while it writes."""
    file = folder / METRICS
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    whole = text[: text.rfind("\n") + 1]  # the last line may not be finished yet
    found = []
    for row in csv.DictReader(io.StringIO(whole)):
        try:
            value = float(row.get(metric) or "nan")
        except ValueError:
            continue
        if math.isfinite(value):
            found.append(value)
    return found


def logged_names(folder: Path) -> list[str]:
    """Names of the metrics that a run logged."""
    file = folder / METRICS
    lines = (
        file.read_text(encoding="utf-8", errors="replace").splitlines() if file.is_file() else []
    )
    return [name for name in lines[0].split(",") if name not in ("epoch", "step")] if lines else []


class Worker:
    """Takes trials and runs them, until there are none or it is told to stop.

    Args:
        trials: to take from.
        budget: how many this command may begin; ``None`` for no limit.
        say: gets a line for each trial that ends.
    """

    def __init__(self, trials: Trials, budget: int | None, say: Say) -> None:
        self.trials, self.say = trials, say
        self.stop = threading.Event()
        self.kill = threading.Event()
        self.error: BaseException | None = None
        self._left = budget
        self._lock = threading.Lock()
        self._failed, self._succeeded = 0, 0

    def work(self, device: str | None = None) -> None:
        """Run trials one after the other.

        Args:
            device: number of the GPU to run them on; ``None`` leaves the choice to Lightning.
        """
        try:
            while not self.stop.is_set() and self._may_begin():
                taken = self.trials.take()
                if taken is None:
                    return
                try:
                    self._run(taken, device)
                finally:
                    taken.claim.release()
        except BaseException as error:  # a thread's errors are nobody's otherwise
            self.error = self.error or error
            self.stop.set()

    def _may_begin(self) -> bool:
        with self._lock:
            if self._left is None:
                return True
            self._left -= 1
            return self._left >= 0

    def _run(self, taken: Taken, device: str | None) -> None:
        ended, pruned = 0, False
        if not (taken.folder / SUMMARY).is_file():  # else its sweep was killed before it saw it
            ended, pruned = self._process(taken, device)
        trial, metric = taken.trial, self.trials.metric
        history = history_of(taken.folder, metric.name)
        _report(taken, history)
        label = f"trial {taken.index:04d}"
        if pruned and ended != 0:
            self.trials.prune(trial)
            self.say(f"pruned  {label} after {len(history)} validations  {_told(taken)}")
        elif ended in STOPPED or self.kill.is_set():
            self.stop.set()
            taken.claim.release()  # so that whoever takes it next finds it free
            self.trials.put_back(trial.number)
            self.say(f"stopped {label}; the same command goes on with it")
        elif ended == 0 and history:
            best = metric.best(history)
            self.trials.finish(trial, best)
            self._succeeded += 1
            self.say(f"done    {label}  {metric.name} {best:.5g}  {_told(taken)}")
        else:
            reason = self._reason(taken.folder, ended)
            self.trials.fail(trial, reason)
            self.say(f"failed  {label}: {reason}  {_told(taken)}")
            self._failed += 1
            if self._failed >= HOPELESS and not self._succeeded:
                raise ConfigError(
                    f"the first {HOPELESS} trials failed, the last with: {reason}; see "
                    f"{taken.folder / LOG}"
                )

    def _process(self, taken: Taken, device: str | None) -> tuple[int, bool]:
        """Exit status of a trial's process, and whether it was asked to stop for lagging behind."""
        content = nested(taken.values)
        with whole_file(taken.folder / PARAMETERS) as part:
            part.write_text(json.dumps(content) + "\n", **TEXT)
        environment = environment_of(self.trials, taken)
        if device is not None:
            environment["CUDA_VISIBLE_DEVICES"] = device
        with open(taken.folder / LOG, "a", **TEXT) as log:
            process = subprocess.Popen(
                words_of(self.trials, taken),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                # Ctrl-C is for this process, which asks the trial to stop, once.
                start_new_session=True,
                pass_fds=(taken.claim.descriptor,),
            )
            try:
                return self._watch(process, taken)
            except BaseException:
                process.terminate()
                process.wait()
                raise

    def _watch(self, process: subprocess.Popen, taken: Taken) -> tuple[int, bool]:
        asked = pruned = False
        beaten = time.monotonic()
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
            if time.monotonic() - beaten > BEAT:
                self.trials.beat(taken)
                beaten = time.monotonic()
            history = history_of(taken.folder, self.trials.metric.name)
            if len(history) > taken.reported and not asked:
                _report(taken, history)
                if self.trials.sweep.early and taken.trial.should_prune():
                    process.terminate()
                    asked = pruned = True

    def _reason(self, folder: Path, ended: int) -> str:
        """Why a trial failed, in one line."""
        if ended == 0:
            name, known = self.trials.metric.name, logged_names(folder)
            return (
                f"it logged no {name!r}.{nearest(name, known)} It logged: "
                f"{', '.join(known) or 'nothing'}"
            )
        return last_line_of_log(folder, f"exit status {ended}")


def _report(taken: Taken, history: Sequence[float]) -> None:
    for step in range(taken.reported, len(history)):
        taken.trial.report(history[step], step)
    taken.reported = max(taken.reported, len(history))


def _told(taken: Taken) -> str:
    return ", ".join(f"{'.'.join(path)}={value}" for path, value in taken.values.items())


def run_here(
    trials: Trials, workers: int, count: int | None, devices: Sequence[str], say: Say
) -> None:
    """Run trials in several processes at a time.

    Args:
        trials: to take from.
        workers: processes at a time.
        count: trials to run at most; ``None`` runs until there are no more.
        devices: numbers of GPUs, given to the workers in turn; empty leaves it to Lightning.
        say: gets a line for each trial that ends.

    Raises:
        ConfigError: a mistake in the sweep that no trial can get past.
        WorkStopped: by a signal; the trials have saved and are put back.
    """
    worker = Worker(trials, count, say)
    ended = [threading.Event() for _ in range(workers)]
    asked: list[int] = []

    def work(number: int) -> None:
        try:
            worker.work(devices[number % len(devices)] if devices else None)
        finally:
            ended[number].set()

    # Handlers that raise would make Python 3.11 take threads that are joined for ended.
    with StopSignals(asked.append):
        for number in range(workers):
            threading.Thread(target=work, args=(number,)).start()
        told = False
        while not all(event.is_set() for event in ended):
            for event in ended:
                event.wait(POLL)
            if asked and not told:
                say("stopping: trials save what they have; once more does not wait for them")
                told = True
                worker.stop.set()
            if len(asked) > 1:
                worker.kill.set()
    if worker.error is not None:
        raise worker.error
    if asked:
        raise WorkStopped(asked[0])
