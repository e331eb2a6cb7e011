"""What a sweep found: trials as a table, importances of parameters, the best configuration."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from zoo_lightning.errors import ConfigError
from zoo_lightning.plots import save_figure
from zoo_lightning.run_folder import PICTURES
from zoo_lightning.sweeping.plots import plot_importances, plot_parallel_coordinates
from zoo_lightning.sweeping.schema import Metric, Sweep
from zoo_lightning.sweeping.showing import is_numeric, short_names, shown, text_of
from zoo_lightning.sweeping.states import (
    ERROR,
    INDEX,
    import_optuna,
    is_put_back,
    is_surplus,
)
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

if TYPE_CHECKING:
    from zoo_lightning.sweeping.study import Trials

BEST, TABLE, IMPORTANCES = "best.yaml", "trials.csv", "importances.json"

FEWEST = 4
"""Trials that have to be done before anything is said about importances."""

STATES = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running",
          "WAITING": "waiting"}  # fmt: skip


@dataclass(frozen=True)
class Result:
    """A trial.

    Attributes:
        index: which of the sweep it is.
        state: ``done``, ``pruned``, ``failed``, ``running`` or ``waiting``.
        value: best figure of the metric; ``None`` without any.
        parameters: by name, those that the sweep keeps constant left out.
        validations: how many there were.
        seconds: from its beginning to its end; ``None`` before that.
        note: why it failed.
    """

    index: int
    state: str
    value: float | None
    parameters: dict[str, Any]
    validations: int = 0
    seconds: float | None = None
    note: str = ""


def results_of(trials: Trials) -> list[Result]:
    """Trials of a study in their order; those that others go on with are left out."""
    found = []
    searched = [p for p, each in trials.sweep.parameters.items() if each.kind != "constant"]
    for trial in trials.all():
        if is_put_back(trial) or is_surplus(trial) or INDEX not in trial.user_attrs:
            continue
        history = list(trial.intermediate_values.values())
        values = {}
        if set(trials.space.distributions) <= set(trial.params):
            values = trials.space.values(trial.params)
        took = trial.duration
        found.append(
            Result(
                trial.user_attrs[INDEX],
                STATES[trial.state.name],
                trials.metric.best(history) if history else trial.value,
                {".".join(path): values[path] for path in searched if path in values},
                len(history),
                None if took is None else round(took.total_seconds(), 1),
                trial.user_attrs.get(ERROR, ""),
            )
        )
    return sorted(found, key=lambda result: result.index)


def ranked(results: Sequence[Result], metric: Metric) -> list[Result]:
    """Those that are done, the best first."""
    done = [result for result in results if result.state == "done" and result.value is not None]
    return sorted(done, key=lambda result: (-1 if metric.rises else 1) * (result.value or 0.0))


def importances(results: Sequence[Result], sweep: Sweep, metric: Metric) -> dict[str, float]:
    """How much each parameter decides about being among the best, by PED-ANOVA; sums to one.

    Watanabe et al., *PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces*, IJCAI 2023.

    Args:
        results: of which those that are done count.
        sweep: whose parameters.
        metric: by which they are judged.

    Returns:
        By name, the largest first; nothing of fewer than :data:`FEWEST` trials or without Optuna,
        which a sweep on W&B's server does not need.
    """
    try:
        optuna = import_optuna()
    except ConfigError:
        return {}
    done = ranked(results, metric)
    kinds = {".".join(path): each.kind for path, each in sweep.parameters.items()}
    varied: dict[str, Any] = {}
    for name in done[0].parameters if done else ():
        values = [result.parameters[name] for result in done]
        if len({text_of(value) for value in values}) < 2:
            continue
        if is_numeric(values):
            log = "log" in kinds[name] and min(values) > 0
            varied[name] = optuna.distributions.FloatDistribution(min(values), max(values), log=log)
        else:
            choices = sorted({text_of(value) for value in values})
            varied[name] = optuna.distributions.CategoricalDistribution(choices)
    if len(done) < FEWEST or not varied or len({result.value for result in done}) < 2:
        return {}
    study = optuna.create_study(direction=metric.goal)
    for result in done:
        given = {
            name: text_of(result.parameters[name])
            if isinstance(each, optuna.distributions.CategoricalDistribution)
            else float(result.parameters[name])
            for name, each in varied.items()
        }
        study.add_trial(optuna.create_trial(params=given, distributions=varied, value=result.value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def write_outcome(
    folder: Path, results: Sequence[Result], sweep: Sweep, metric: Metric
) -> dict[str, float]:
    """Write ``trials.csv``, ``importances.json`` and the pictures.

    Returns:
        The importances.
    """
    names = list(dict.fromkeys(name for result in results for name in result.parameters))
    with whole_file(folder / TABLE) as part, part.open("w", newline="", **TEXT) as stream:
        table = csv.writer(stream)
        head = ["trial", "state", metric.name, *names, "validations", "seconds", "note"]
        table.writerow(head)
        for each in results:
            chosen = [_cell(each.parameters.get(name, "")) for name in names]
            row = [each.index, each.state, each.value, *chosen, each.validations, each.seconds]
            table.writerow([*row, each.note])
    found = importances(results, sweep, metric)
    with whole_file(folder / IMPORTANCES) as part:
        part.write_text(json.dumps(found, indent=2) + "\n", **TEXT)
    best = ranked(results, metric)
    if best and names:
        logarithmic = {".".join(p) for p, each in sweep.parameters.items() if "log" in each.kind}
        figure = plot_parallel_coordinates(best, metric, logarithmic)
        save_figure(figure, folder / PICTURES / "parallel-coordinates.png")
    if found:
        save_figure(plot_importances(found, metric), folder / PICTURES / "importances.png")
    return found


def _cell(value: Any) -> Any:
    return value if isinstance(value, str) else json.dumps(value)


def write_best(folder: Path, options: dict[str, Any], best: Result, metric: Metric) -> Path:
    """Write the best trial's experiment file.

    Args:
        folder: of the sweep.
        options: of ``fit``, resolved.
        best: the trial.
        metric: it is best by.
    """
    path = folder / BEST
    lines = [
        f"# python -m zoo_lightning fit --config {path}",
        f"# Trial {best.index:04d} of its sweep: {metric.name} {best.value:.6g}, with",
        *(f"#   {name}: {text_of(value)}" for name, value in best.parameters.items()),
    ]
    with whole_file(path) as part:
        part.write_text("\n".join(lines) + "\n" + yaml.safe_dump(options, sort_keys=False), **TEXT)
    return path


def format_best(results: Sequence[Result], metric: Metric, count: int = 5) -> str:
    """Table of the best trials."""
    best = ranked(results, metric)[:count]
    names = list(best[0].parameters) if best else []
    head = ["trial", metric.name, *short_names(names).values()]
    rows = [
        [f"{each.index:04d}", f"{each.value:.5g}", *(shown(each.parameters[n]) for n in names)]
        for each in best
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, *rows]
    return "\n".join(
        "  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
