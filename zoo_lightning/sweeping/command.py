"""``sweep``: a W&B sweep file in one command, on W&B's server or here."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError
from zoo_lightning.stopping import WorkStopped
from zoo_lightning.sweeping import hosted
from zoo_lightning.sweeping.expansion import expand, nested, words_of_fit
from zoo_lightning.sweeping.local import run_here
from zoo_lightning.sweeping.outcome import (
    FEWEST,
    IMPORTANCES,
    TABLE,
    Result,
    format_best,
    ranked,
    results_of,
    write_best,
    write_outcome,
)
from zoo_lightning.sweeping.schema import Metric, Sweep, find_sweep, read_sweep
from zoo_lightning.sweeping.states import import_optuna
from zoo_lightning.sweeping.study import Trials
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

ABOUT = """\
Try options as a W&B sweep file says: on W&B's server where you are logged in, else here by Optuna.
Every trial is a normal run in a folder of its own below --run_dir, judged by validation data. The
same command goes on with a sweep that was stopped, and several may work on one at a time.
"""


@dataclass(frozen=True)
class Experiment:
    """What a sweep varies.

    Attributes:
        options: of ``fit``, resolved.
        task: name of the task's class.
    """

    options: dict[str, Any]
    task: str


def main(arguments: Sequence[str]) -> int:
    """Command line of ``sweep``.

    Returns:
        Exit status 0; 1 if no trial is done; 129, 130 or 143 if it was interrupted.

    Raises:
        ConfigError: a file or options that cannot be right.
    """
    options, rest = _parser().parse_known_args(arguments)
    for name, lowest in (("count", 0), ("workers", 1)):
        given = getattr(options, name)
        if given is not None and given < lowest:
            raise ConfigError(f"--{name} must be at least {lowest}, got {given}")
    sweep = read_sweep(find_sweep(options.file))
    _check_extra(sweep, rest)
    folder = options.run_dir or Path("runs", "sweeps", re.sub(r"[^\w.-]+", "-", sweep.name))
    remote = not options.local and not options.storage and hosted.logged_in()
    if not remote:
        import_optuna()
        _check_local(sweep)
    middle = {path: each.value(0.5) for path, each in sweep.parameters.items()}
    experiment = read_experiment(sweep, middle, rest)
    _check_varied(sweep, middle, rest, experiment)
    metric = _metric(sweep, experiment)
    with whole_file(folder / "sweep.yaml") as part:
        part.write_text(sweep.file.read_text(**TEXT), **TEXT)
    if sweep.text("description"):
        print(sweep.text("description"))
    if remote:
        return _on_server(sweep, metric, folder, rest, options)
    return _here(sweep, metric, folder, rest, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning sweep",
        description=ABOUT,
        epilog="Further options are those of fit, and go to every trial.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("file", metavar="FILE", help="a path, or a name in experiments/sweeps")
    parser.add_argument(
        "--count", type=int, help="trials to run at most; 0 only reports (default: all there are)"
    )
    parser.add_argument("--workers", type=int, default=1, help="trials at a time (default: 1)")
    parser.add_argument("--devices", default="", help="GPUs to give to the workers, such as 0,1")
    parser.add_argument(
        "--run_dir", type=Path, help="folder of the sweep (default: runs/sweeps/NAME)"
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="database that several machines share, such as postgresql://user@host/name "
        "(default: study.db in the sweep's folder)",
    )
    parser.add_argument("--local", action="store_true", help="run here even if logged in to W&B")
    return parser


def _check_local(sweep: Sweep) -> None:
    """Refuse what only W&B's server can do."""
    if sweep.metric and sweep.metric.impute and sweep.method == "bayes":
        raise ConfigError(
            f"{sweep.file}: metric.impute: {sweep.metric.impute} is done on W&B's server only; "
            "here failed trials are left out of the search: remove it"
        )


def _check_extra(sweep: Sweep, extra: Sequence[str]) -> None:
    names = {".".join(path) for path in sweep.parameters}
    for word in extra:
        if word.removeprefix("--").partition("=")[0] in names:
            raise ConfigError(f"{word}: is what the sweep varies; leave it out, or change the file")
    try:
        words_of_fit(["-m", "zoo_lightning", "fit", *extra])
    except ConfigError as error:
        raise ConfigError(str(error).replace("command: has", "sweep:")) from error


def _check_varied(
    sweep: Sweep,
    values: dict[tuple[str, ...], Any],
    extra: Sequence[str],
    experiment: Experiment,
) -> None:
    """Refuse further options that stand for what the sweep varies, in whatever way.

    Args:
        sweep: whose parameters.
        values: of them.
        extra: the further options.
        experiment: what values and further options resolve to.

    Raises:
        ConfigError: a value does not arrive.
    """
    found = {path: _at(experiment.options, path) for path in values}
    if not extra or all(found[path] in (None, value) for path, value in values.items()):
        return
    alone = read_experiment(sweep, values, []).options  # parsing, too, may change a value
    for path, value in found.items():
        if value != _at(alone, path):
            raise ConfigError(
                f"{' '.join(extra)}: sets {'.'.join(path)}, which is what the sweep varies; leave "
                "it out, or change the file"
            )


def _at(options: Any, path: Sequence[str]) -> Any:
    """What is at a path of nested options, whose parts may be dotted; ``None`` if nothing is."""
    for name in ".".join(path).split("."):
        options = options.get(name) if isinstance(options, dict) else None
    return options


def read_experiment(
    sweep: Sweep, values: dict[tuple[str, ...], Any], extra: Sequence[str]
) -> Experiment:
    """Resolve a trial's options as ``fit`` would, without building anything.

    Args:
        sweep: whose command.
        values: of its parameters.
        extra: words that every command line has besides.

    Raises:
        ConfigError: the command is no fit of this package, or options that do not exist.
    """
    # Slow to import, and not needed to refuse a file.
    from zoo_lightning.experiment_sources import ExperimentReader
    from zoo_lightning.runs.options import shared_options
    from zoo_lightning.trainer_cli import run

    content = nested(values)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "parameters.json")
        file.write_text(json.dumps(content), **TEXT)
        try:
            words = expand([*sweep.command, *extra], content, sweep.text("program"), file)
            options = run(["fit", *words_of_fit(words)], ExperimentReader).options
        except ConfigError as error:
            raise ConfigError(f"{sweep.file}: {error}") from error
    kept = shared_options(options)
    kept |= {name: options[name] for name in ("init_from", "budget") if options[name]}
    return Experiment(kept, kept["model"]["class_path"].rpartition(".")[2])


def _metric(sweep: Sweep, experiment: Experiment) -> Metric:
    """The sweep's metric, or the one that the task keeps its best checkpoint by.

    Raises:
        ConfigError: there is none, or its goal is the wrong way round.
    """
    from zoo_lightning import tasks

    task = getattr(tasks, experiment.task, None)
    goals = {"min": "minimize", "max": "maximize"}
    if sweep.metric is None:
        if task is None:
            raise ConfigError(
                f"{sweep.file}: metric: missing; add metric: {{name: ..., goal: ...}}"
            )
        return Metric(task.monitor, goals[task.monitor_mode])
    if task is not None and sweep.metric.name == task.monitor:
        right = goals[task.monitor_mode]
        if sweep.metric.goal != right:
            default = "" if "goal" in sweep.content["metric"] else ", W&B's default"
            raise ConfigError(
                f"{sweep.file}: metric.goal: {sweep.metric.goal}{default}, for {task.monitor}; "
                f"expected {right}"
            )
    return sweep.metric


def _here(
    sweep: Sweep, metric: Metric, folder: Path, extra: list[str], options: argparse.Namespace
) -> int:
    url = options.storage or f"sqlite:///{folder / 'study.db'}"
    trials = Trials(sweep, metric, folder, url, extra)
    if options.count is None and trials.cap is None:
        print("this sweep has no end of its own: stop it with Ctrl-C, or give --count")
    devices = [word for word in options.devices.split(",") if word]
    workers = max(options.workers, len(devices))
    status = 0
    try:
        if options.count != 0:
            run_here(trials, workers, options.count, devices, lambda line: print(line, flush=True))
    except WorkStopped as stop:
        print(f"{stop}; the same command goes on", file=sys.stderr)
        status = 128 + stop.signal_number
    results = results_of(trials)
    _report(sweep, metric, folder, extra, results)
    logged = next(folder.glob("trials/*/wandb/offline-run-*"), None)
    if logged is not None:
        print(f"for W&B: wandb sync {folder}/trials/*/wandb/offline-run-*")
    return status or int(not ranked(results, metric))


def _on_server(
    sweep: Sweep, metric: Metric, folder: Path, extra: list[str], options: argparse.Namespace
) -> int:
    found = hosted.open_hosted(sweep, folder, extra)
    print(f"sweep {found.path} on W&B's server; --local runs it here", flush=True)
    status = hosted.run_agents(found, options.workers, options.count) if options.count != 0 else 0
    results = hosted.hosted_results(found, sweep, metric)
    _report(sweep, metric, folder, extra, results)
    return status or int(not ranked(results, metric))


def _report(
    sweep: Sweep, metric: Metric, folder: Path, extra: Sequence[str], results: Sequence[Result]
) -> None:
    """Write what was found into the sweep's folder, and print the best of it."""
    counts = {
        state: sum(result.state == state for result in results)
        for state in ("done", "pruned", "failed", "running", "waiting")
    }
    told = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    print(f"\n{sweep.name}: {told or 'no trials yet'}")
    found = write_outcome(folder, results, sweep, metric)
    best = ranked(results, metric)
    if not best:
        return
    print(format_best(results, metric))
    values = {
        path: best[0].parameters.get(".".join(path), each.options.get("value"))
        for path, each in sweep.parameters.items()
    }
    path = write_best(folder, read_experiment(sweep, values, extra).options, best[0], metric)
    if not found:
        print(f"no importances: they need Optuna and {FEWEST} trials that differ and are done")
    print(f"wrote {TABLE}, {IMPORTANCES}, pictures/ to {folder}")
    print(f"the best: python -m zoo_lightning fit --config {path}")
