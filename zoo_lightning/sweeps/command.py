"""``sweep``: run a W&B sweep file, on W&B's server or locally."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zoo_lightning.errors import ConfigError
from zoo_lightning.experiments.option_names import OF_RUNS, CommandParser
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.reports.writing import leave_report
from zoo_lightning.runs.options import task_of
from zoo_lightning.runs.pool import Execution, add_pool_options, execution_of
from zoo_lightning.runs.run_folder import PAGE
from zoo_lightning.runs.stopping import WorkStopped
from zoo_lightning.sweeps import hosted
from zoo_lightning.sweeps.expansion import expand, nested, words_of_fit
from zoo_lightning.sweeps.parameters import ParameterPath
from zoo_lightning.sweeps.report import (
    FEWEST,
    IMPORTANCES,
    TABLE,
    Result,
    format_best,
    ranked,
    write_best,
    write_report,
)
from zoo_lightning.sweeps.schema import Goal, Sweep, SweepMetric, find_sweep, read_sweep

ABOUT = """\
Search hyperparameters as a W&B sweep file describes: on W&B's server if you are logged in, else
locally by Optuna. Every trial is an ordinary run in its own folder below --run_dir and is judged by
validation data. The same command resumes a sweep that was stopped, and several commands may work on
one sweep at a time.
"""

GOALS: dict[str, Goal] = {"min": "minimize", "max": "maximize"}
"""Goal of a sweep by the mode of its metric."""


def main(arguments: Sequence[str]) -> int:
    """Run the command line of ``sweep``.

    Returns:
        Exit status 0; 1 if no trial has finished; 129, 130 or 143 if the sweep was interrupted.

    Raises:
        ConfigError: the sweep file or an option is invalid.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.count is not None and options.count < 0:
        raise ConfigError(f"--count must be at least 0, got {options.count}")
    execution = execution_of(options)
    sweep = read_sweep(find_sweep(options.file))
    _check_extra(sweep, rest)
    folder = options.run_dir or Path("runs", "sweeps", re.sub(r"[^\w.-]+", "-", sweep.name))
    remote = not options.local and not options.storage and hosted.logged_in()
    if not remote:
        _check_local(sweep)
    middle = {path: each.value(0.5) for path, each in sweep.parameters.items()}
    experiment = resolve_trial(sweep, middle, rest, parser.option_names())
    _check_varied(sweep, middle, rest, experiment)
    metric = _metric(sweep, task_of(experiment))
    _check_logged(sweep, metric, experiment)
    _check_goal(sweep, metric, task_of(experiment))
    with atomic_file(folder / "sweep.yaml") as part:
        part.write_text(sweep.file.read_text(**TEXT), **TEXT)
    if sweep.text("description"):
        print(sweep.text("description"))
    if remote:
        status, results = _run_hosted(sweep, metric, folder, rest, options)
    else:
        status, results = _run_local(sweep, metric, folder, rest, options, execution)
    _report(sweep, metric, folder, rest, results)
    if next(folder.glob("trials/*/wandb/offline-run-*"), None) is not None:
        print(f"to upload the runs to W&B: wandb sync {folder}/trials/*/wandb/offline-run-*")
    return status or int(not ranked(results, metric))


def _parser() -> CommandParser:
    parser = CommandParser(
        "sweep",
        OF_RUNS,
        description=ABOUT,
        epilog="Further options are options of fit, passed to every trial.",
    )
    parser.add_argument("file", metavar="FILE", help="path, or name in experiments/sweeps")
    parser.add_argument(
        "--count", type=int, help="largest number of trials to run; 0 only reports (default: all)"
    )
    add_pool_options(parser)
    parser.add_argument(
        "--run_dir", type=Path, help="folder of the sweep (default: runs/sweeps/NAME)"
    )
    parser.add_argument(
        "--storage",
        metavar="URL",
        help="database shared by several machines, such as postgresql://user@host/name "
        "(default: study.db in the sweep's folder)",
    )
    parser.add_argument(
        "--local", action="store_true", help="run locally even if you are logged in to W&B"
    )
    return parser


def _check_local(sweep: Sweep) -> None:
    """Refuse a local sweep without Optuna, or with a key that only W&B's server supports."""
    import zoo_lightning.sweeps.search  # noqa: F401

    if sweep.metric and sweep.metric.impute and sweep.method == "bayes":
        raise ConfigError(
            f"{sweep.file}: metric.impute: {sweep.metric.impute} works on W&B's server only; "
            "a local search leaves failed trials out: remove it"
        )


def _check_extra(sweep: Sweep, extra: Sequence[str]) -> None:
    names = {".".join(path) for path in sweep.parameters}
    for word in extra:
        if word.removeprefix("--").partition("=")[0] in names:
            raise ConfigError(
                f"{word}: sets what the sweep varies; leave it out, or change the file"
            )
    try:
        words_of_fit(["-m", "zoo_lightning", "fit", *extra])
    except ConfigError as error:
        raise ConfigError(str(error).replace("command: has", "sweep:")) from error


def _check_varied(
    sweep: Sweep,
    values: Mapping[ParameterPath, Any],
    extra: Sequence[str],
    options: Mapping[str, Any],
) -> None:
    """Refuse further options that override what the sweep varies, under whatever name.

    Args:
        sweep: sweep file.
        values: values of its parameters.
        extra: further options.
        options: options of ``fit`` that values and further options resolve to.

    Raises:
        ConfigError: a value is overridden.
    """
    found = {path: _at(options, path) for path in values}
    if not extra or all(found[path] in (None, value) for path, value in values.items()):
        return
    alone = resolve_trial(sweep, values, [])  # parsing, too, may change a value
    for path, value in found.items():
        if value != _at(alone, path):
            raise ConfigError(
                f"{' '.join(extra)}: sets {'.'.join(path)}, which is what the sweep varies; leave "
                "it out, or change the file"
            )


def _at(options: Any, path: ParameterPath) -> Any:
    """Value at a path of nested options, whose parts may be dotted; ``None`` if absent."""
    for name in ".".join(path).split("."):
        options = options.get(name) if isinstance(options, dict) else None
    return options


def resolve_trial(
    sweep: Sweep,
    values: Mapping[ParameterPath, Any],
    extra: Sequence[str],
    command_options: Sequence[str] = (),
) -> dict[str, Any]:
    """Resolve the options of ``fit`` of a trial, without building anything.

    Args:
        sweep: sweep file.
        values: values of its parameters.
        extra: command-line words added to every trial.
        command_options: options of ``sweep``, for suggestions.

    Raises:
        ConfigError: the command is not ``fit`` of this package, or an option is invalid.
    """
    # Slow to import, and not needed to refuse a file.
    from zoo_lightning.experiments.refused_options import check_fit
    from zoo_lightning.experiments.resolving import resolve

    content = nested(values)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "parameters.json")
        file.write_text(json.dumps(content), **TEXT)
        try:
            words = expand([*sweep.command, *extra], content, sweep.text("program"), file)
            words = words_of_fit(words)
            resolved = resolve(overrides=words, command_options=command_options)
            options = resolved.options
            check_fit(options, words, None, several=True)
        except ConfigError as error:
            raise ConfigError(f"{sweep.file}: {error}") from error
    kept = resolved.shared()
    return kept | {name: options[name] for name in ("init_from", "budget") if options[name]}


def _metric(sweep: Sweep, task_name: str) -> SweepMetric:
    """Metric of the sweep, or the one by which the task keeps its best checkpoint.

    Raises:
        ConfigError: there is none.
    """
    from zoo_lightning import tasks

    if sweep.metric is not None:
        return sweep.metric
    task = getattr(tasks, task_name, None)
    if task is None:
        raise ConfigError(f"{sweep.file}: metric: missing; add metric: {{name: ..., goal: ...}}")
    return SweepMetric(task.monitor, GOALS[task.monitor_mode])


def _check_goal(sweep: Sweep, metric: SweepMetric, task_name: str) -> None:
    """Refuse to search for the worst value of a metric.

    Raises:
        ConfigError: the goal of a known metric is the wrong one.
    """
    from zoo_lightning import tasks
    from zoo_lightning.experiments.logged_metrics import better_mode

    task = getattr(tasks, task_name, None)
    mode = better_mode(metric.name)
    if task is not None and metric.name == task.monitor:
        mode = task.monitor_mode
    if mode is not None and metric.goal != GOALS[mode]:
        default = "" if "goal" in sweep.content["metric"] else " (W&B's default)"
        raise ConfigError(
            f"{sweep.file}: metric.goal must be {GOALS[mode]} for {metric.name}, got "
            f"{metric.goal}{default}"
        )


def _check_logged(sweep: Sweep, metric: SweepMetric, options: Mapping[str, Any]) -> None:
    """Refuse, before the first trial, a metric that no trial would log, or trials without a log.

    Raises:
        ConfigError: with the names of the metrics that are logged.
    """
    from zoo_lightning.experiments.logged_metrics import check_logged, logged_names
    from zoo_lightning.experiments.parser_errors import known_classes

    trainer = options.get("trainer") or {}
    if trainer.get("logger") is False:
        raise ConfigError(
            f"{sweep.file}: trainer.logger false: a sweep reads the metrics.csv of its trials, "
            "which would be missing; remove it"
        )
    varied = {".".join(path) for path in sweep.parameters}
    class_path = options["model"]["class_path"]
    task = known_classes().get(class_path.rpartition(".")[2])
    foreign = "." in class_path and not class_path.startswith("zoo_lightning.")
    if task is None or foreign or varied & {"model", "model.class_path", "trainer.callbacks"}:
        return
    if trainer.get("callbacks"):  # they may log anything
        return
    names = logged_names(task, options["model"]["init_args"], options)
    check_logged(metric.name, names, f"{sweep.file}: metric.name")


def _run_local(
    sweep: Sweep,
    metric: SweepMetric,
    folder: Path,
    extra: Sequence[str],
    options: argparse.Namespace,
    execution: Execution,
) -> tuple[int, list[Result]]:
    """Run a sweep locally; returns the exit status and the results."""
    from zoo_lightning.sweeps.study import SweepStudy
    from zoo_lightning.sweeps.worker import run_here

    url = options.storage or f"sqlite:///{folder / 'study.db'}"
    trials = SweepStudy(sweep, metric, folder, url, extra)
    if options.count is None and trials.cap is None:
        print("this sweep has no end of its own: stop it with Ctrl-C, or give --count")
    status = 0
    try:
        if options.count != 0:
            run_here(trials, execution.workers, options.count, execution.devices, execution.report)
    except WorkStopped as stop:
        print(f"{stop}; the same command resumes the sweep", file=sys.stderr)
        status = 128 + stop.signal_number
    return status, trials.results()


def _run_hosted(
    sweep: Sweep,
    metric: SweepMetric,
    folder: Path,
    extra: Sequence[str],
    options: argparse.Namespace,
) -> tuple[int, list[Result]]:
    """Run a sweep through W&B's server; returns the exit status and the results."""
    found = hosted.open_hosted(sweep, folder, extra)
    print(f"sweep {found.path} on W&B's server; --local runs it locally", flush=True)
    status = hosted.run_agents(found, options.workers, options.count) if options.count != 0 else 0
    return status, hosted.hosted_results(found, sweep, metric)


def _report(
    sweep: Sweep,
    metric: SweepMetric,
    folder: Path,
    extra: Sequence[str],
    results: Sequence[Result],
) -> None:
    """Write the results to the sweep's folder, and print the best of them."""
    counts = {
        state: sum(result.state == state for result in results)
        for state in ("done", "pruned", "failed", "running", "waiting")
    }
    summary = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
    print(f"\n{sweep.name}: {summary or 'no trials yet'}")
    found = write_report(folder, results, sweep, metric)
    best = ranked(results, metric)
    if not best:
        return
    print(format_best(results, metric))
    values = {
        path: best[0].parameters.get(".".join(path), each.options.get("value"))
        for path, each in sweep.parameters.items()
    }
    path = write_best(folder, resolve_trial(sweep, values, extra), best[0], metric)
    if not found:
        print(f"no importances: they need Optuna and {FEWEST} finished trials that differ")
    page = f"{PAGE}, " if leave_report(folder) else ""
    print(f"wrote {TABLE}, {IMPORTANCES}, {page}pictures/ to {folder}")
    print(f"the best configuration: python -m zoo_lightning fit --config {path}")
