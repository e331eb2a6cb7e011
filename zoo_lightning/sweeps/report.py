"""Report of a sweep: table of trials, parameter importances, figures, best configuration."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml
from matplotlib.figure import Figure

from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.plotting.figures import new_figure, save_figure
from zoo_lightning.runs.run_folder import PICTURES
from zoo_lightning.sweeps.parameters import json_text
from zoo_lightning.sweeps.schema import Sweep, SweepMetric

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BEST, TABLE, IMPORTANCES = "best.yaml", "trials.csv", "importances.json"

FEWEST = 4
"""Smallest number of finished trials for which importances are estimated."""

DASHES = ("-", "--", "-.")
"""Line styles of the three best trials."""


@dataclass(frozen=True)
class Result:
    """Result of a trial.

    Attributes:
        index: number of the trial in the sweep.
        state: ``done``, ``pruned``, ``failed``, ``running`` or ``waiting``.
        value: best value of the metric; ``None`` if there is none.
        parameters: values by name, without constant parameters.
        validations: number of validations.
        seconds: duration; ``None`` if the trial has not ended.
        note: reason of a failure, or name of the run on W&B's server.
    """

    index: int
    state: str
    value: float | None
    parameters: dict[str, Any]
    validations: int = 0
    seconds: float | None = None
    note: str = ""


def ranked(results: Sequence[Result], metric: SweepMetric) -> list[Result]:
    """Sort the finished trials, best first."""
    done = [result for result in results if result.state == "done" and result.value is not None]
    return sorted(done, key=lambda result: (-1 if metric.rises else 1) * (result.value or 0.0))


def importances(results: Sequence[Result], sweep: Sweep, metric: SweepMetric) -> dict[str, float]:
    """Estimate the importance of each parameter for being among the best trials (PED-ANOVA).

    Watanabe et al., *PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
    Subspaces*, IJCAI 2023.

    Args:
        results: results of the sweep; only finished trials are used.
        sweep: sweep file.
        metric: metric by which trials are compared.

    Returns:
        Importances by name, largest first, with sum 1. Empty for fewer than :data:`FEWEST` finished
        trials, equal values, or without Optuna, which sweeps on W&B's server do not need.
    """
    done = ranked(results, metric)
    if len(done) < FEWEST or len({result.value for result in done}) < 2:
        return {}
    try:
        import optuna
    except ImportError:
        return {}
    kinds = {".".join(path): each.kind for path, each in sweep.parameters.items()}
    distributions: dict[str, optuna.distributions.BaseDistribution] = {}
    columns: dict[str, list[Any]] = {}
    for name in done[0].parameters:
        values = [result.parameters[name] for result in done]
        texts = [json_text(value) for value in values]
        if len(set(texts)) < 2:
            continue
        if _is_numeric(values):
            low, high = min(values), max(values)
            log = "log" in kinds[name] and low > 0
            distributions[name] = optuna.distributions.FloatDistribution(low, high, log=log)
            columns[name] = list(map(float, values))
        else:
            distributions[name] = optuna.distributions.CategoricalDistribution(sorted(set(texts)))
            columns[name] = texts
    if not distributions:
        return {}
    study = optuna.create_study(direction=metric.goal)
    for row, result in enumerate(done):
        given = {name: column[row] for name, column in columns.items()}
        study.add_trial(
            optuna.create_trial(params=given, distributions=distributions, value=result.value)
        )
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(value) for name, value in found.items()}


def write_report(
    folder: Path, results: Sequence[Result], sweep: Sweep, metric: SweepMetric
) -> dict[str, float]:
    """Write ``trials.csv``, ``importances.json`` and the figures to a sweep's folder.

    Returns:
        The importances.
    """
    names = list(dict.fromkeys(name for result in results for name in result.parameters))
    with atomic_file(folder / TABLE) as part, part.open("w", newline="", **TEXT) as stream:
        table = csv.writer(stream)
        head = ["trial", "state", metric.name, *names, "validations", "seconds", "note"]
        table.writerow(head)
        for each in results:
            cells = [_cell(each.parameters.get(name, "")) for name in names]
            row = [each.index, each.state, each.value, *cells, each.validations, each.seconds]
            table.writerow([*row, each.note])
    found = importances(results, sweep, metric)
    with atomic_file(folder / IMPORTANCES) as part:
        part.write_text(json.dumps(found, indent=2) + "\n", **TEXT)
    best = ranked(results, metric)
    if best and names:
        logarithmic = {".".join(p) for p, each in sweep.parameters.items() if "log" in each.kind}
        figure = plot_parallel_coordinates(best, metric, logarithmic)
        save_figure(figure, folder / PICTURES / "parallel-coordinates.png")
    if found:
        save_figure(plot_importances(found, metric), folder / PICTURES / "importances.png")
    return found


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def write_best(folder: Path, options: dict[str, Any], best: Result, metric: SweepMetric) -> Path:
    """Write the configuration of the best trial as an experiment file.

    Args:
        folder: folder of the sweep.
        options: resolved options of ``fit`` of the trial.
        best: result of the best trial.
        metric: metric by which the trial is the best.
    """
    path = folder / BEST
    lines = [
        f"# python -m zoo_lightning fit --config {path}",
        f"# Trial {best.index:04d} of its sweep: {metric.name} {best.value:.6g}, with",
        *(f"#   {name}: {json_text(value)}" for name, value in best.parameters.items()),
    ]
    with atomic_file(path) as part:
        part.write_text("\n".join(lines) + "\n" + yaml.safe_dump(options, sort_keys=False), **TEXT)
    return path


def format_best(results: Sequence[Result], metric: SweepMetric, count: int = 5) -> str:
    """Format a table of the best trials as text."""
    best = ranked(results, metric)[:count]
    names = list(best[0].parameters) if best else []
    head = ["trial", metric.name, *short_names(names).values()]
    rows = [
        [f"{each.index:04d}", f"{each.value:.5g}", *(_readable(each.parameters[n]) for n in names)]
        for each in best
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return "\n".join(
        "  ".join(f"{word:<{width}}" for word, width in zip(line, widths, strict=True)).rstrip()
        for line in (head, *rows)
    )


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Shorten dotted names to their last parts, keeping them unique."""
    found = {}
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            short = ".".join(parts[-length:])
            if sum(other == short or other.endswith(f".{short}") for other in names) == 1:
                break
        found[name] = short
    return found


def _readable(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json_text(value).strip('"')


def _is_numeric(values: Sequence[Any]) -> bool:
    """Whether all values are numbers; booleans are not."""
    return all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values)


def plot_parallel_coordinates(
    best: Sequence[Result], metric: SweepMetric, logarithmic: Collection[str] = ()
) -> Figure:
    """Plot each trial as a line through its parameters and its metric, readable in greyscale.

    Args:
        best: finished trials, best first; the three best are drawn in black.
        metric: metric of the last axis, whose best value is at the top.
        logarithmic: names of parameters with a logarithmic axis, if all values are positive.

    Raises:
        ValueError: there are no trials, or they have no parameters.
    """
    if not best or not best[0].parameters:
        raise ValueError("no trials with parameters; expected at least one")
    names = list(best[0].parameters)
    columns = [
        _scaled([each.parameters[name] for each in best], name in logarithmic) for name in names
    ]
    heights, marks = _scaled([each.value or 0.0 for each in best], False)
    if not metric.rises:
        heights, marks = 1 - heights, [(1 - place, text) for place, text in marks]
    columns.append((heights, marks))
    lines = np.stack([column[0] for column in columns], axis=1)
    figure = new_figure(max(1.7 * len(columns), 5.0), 4.2)
    axes = figure.subplots()
    for rank in reversed(range(len(best))):  # the best drawn last
        top = rank < len(DASHES)
        shade = 0.0 if top else 0.45 + 0.4 * rank / len(best)
        axes.plot(
            lines[rank],
            DASHES[rank] if top else "-",
            color=str(shade),
            lw=1.8 - 0.3 * rank if top else 0.7,
            label=f"trial {best[rank].index:04d}" if top else None,
            zorder=3 if top else 1,
        )
    labels = [*short_names(names).values(), metric.name]
    for place, (_, ticks) in enumerate(columns):
        _draw_axis(axes, place, ticks)
    axes.set(xlim=(-0.3, len(columns) - 0.4), ylim=(-0.06, 1.06), yticks=[])
    axes.set_xticks(range(len(columns)), labels, fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    handles, texts = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], texts[::-1], loc="outside upper right", ncols=3, fontsize=8,
                  handlelength=4)  # fmt: skip
    return figure


def _scaled(values: Sequence[Any], log: bool) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Positions of values in [0, 1], and tick marks of the axis."""
    if not _is_numeric(values):
        kinds = sorted({json_text(value) for value in values})
        places = {kind: i / max(len(kinds) - 1, 1) for i, kind in enumerate(kinds)}
        found = np.array([places[json_text(value)] for value in values])
        return found, [(place, _short(kind.strip('"'))) for kind, place in places.items()]
    numbers = np.array(values, dtype=float)
    log = log and bool(numbers.min() > 0)
    scale = np.log(numbers) if log else numbers
    low, high = float(scale.min()), float(scale.max())
    if low == high:
        return np.full(len(values), 0.5), [(0.5, _readable(values[0]))]
    marks = []
    for place in (0.0, 0.5, 1.0):
        at = low + place * (high - low)
        marks.append((place, f"{float(np.exp(at)) if log else at:.3g}"))
    return (scale - low) / (high - low), marks


def _short(text: str) -> str:
    return text if len(text) <= 18 else f"{text[:8]}…{text[-8:]}"


def _draw_axis(axes: Axes, place: int, marks: Sequence[tuple[float, str]]) -> None:
    axes.axvline(place, color="black", lw=0.8, zorder=2)
    for height, text in marks:
        axes.annotate(
            text,
            (place, height),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=7,
            bbox={"boxstyle": "round,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.8},
            zorder=4,
        )


def plot_importances(found: Mapping[str, float], metric: SweepMetric) -> Figure:
    """Plot parameter importances as a bar chart.

    Args:
        found: importances by name, largest first.
        metric: metric of the importances, for the label.

    Raises:
        ValueError: there are no importances.
    """
    if not found:
        raise ValueError("no importances; expected at least one")
    figure = new_figure(5.5, 0.4 * len(found) + 1.2)
    axes = figure.subplots()
    labels = list(short_names(list(found)).values())
    bars = axes.barh(labels, list(found.values()), color="0.6", edgecolor="black")
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 1.1), xlabel=f"importance for {metric.name} (PED-ANOVA)")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
