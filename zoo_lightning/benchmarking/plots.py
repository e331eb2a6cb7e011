"""Figures of a comparison, readable in greyscale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.benchmarking.report import Row, Table
from zoo_lightning.plotting.figures import new_figure

MARKS = "osD^vP*X<>hp"

DASHES = ("-", "--", "-.", ":")

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""Colour-blind safe colours (Okabe and Ito, Color Universal Design, 2008).

Yellow is left out, because it is hardly visible on white.
"""


def plot_quality_against_compute(tables: Sequence[Table]) -> Figure:
    """Plot the metric of every method, with 95 % intervals, over its training compute.

    Each method is a line through its budgets, Zoo-Tuning in black. Methods with the inference cost
    of several networks, such as an ensemble, have hollow markers and a note in the legend.

    Args:
        tables: tables for one fraction of the training data, one for each budget.

    Returns:
        The figure. Compute is in trainings of one ordinary network if all tables have budgets,
        else in multiply-adds, on a logarithmic axis.

    Raises:
        ValueError: no row has a training cost.
    """
    in_units = all(row.units for table in tables for row in table.rows if row.figures)
    spent = "units" if in_units else "multiply_adds"
    found = [row for table in tables for row in table.rows if row.figures and getattr(row, spent)]
    # Single sources get a line only if there is no choice among them.
    choices = {row.label for row in found if row.chosen}
    rows = [row for row in found if not (choices and row.label.startswith("single "))]
    if not rows:
        raise ValueError("no method's training costs are known; expected at least one")
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row.label, []).append(row)
    one = min((row.cost.multiply_adds for row in rows if row.cost), default=1.0)
    figure = new_figure(8.0, 5.0)
    axes = figure.subplots()
    for index, (label, points) in enumerate(lines.items()):
        points.sort(key=lambda row: mean(getattr(row, spent).values()))
        times = max((row.cost.multiply_adds / one for row in points if row.cost), default=1.0)
        style = line_style(index, zoo=points[0].zoo)
        if times > ONE_NETWORK:
            label, style = f"{label} (inference of {times:.0f} networks)", {**style, "mfc": "white"}
        axes.errorbar(
            [mean(getattr(row, spent).values()) for row in points],
            [row.interval.mean for row in points],
            yerr=[np.nan_to_num(row.interval.half) for row in points],
            label=label,
            capsize=2,
            elinewidth=0.6,
            **style,
        )
    unit = "trainings of one network" if in_units else "multiply-adds"
    axes.set_xscale("log", base=2 if in_units else 10)
    axes.set(xlabel=f"compute of the whole training, {unit}", ylabel=tables[0].metric.unit)
    if in_units:
        budgets = sorted({table.budget for table in tables if table.budget})
        axes.set_xticks(budgets, [f"{budget:g}" for budget in budgets], minor=False)
        axes.set_xticks([], minor=True)
    if not tables[0].metric.rises:
        axes.invert_yaxis()  # better is higher in all pictures of quality
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, handlelength=4)
    return figure


ONE_NETWORK = 1.5
"""Multiple of the cheapest inference cost above which a method counts as several networks.

Gates of a full zoo add a few percent.
"""


def plot_learning_curves(
    curves: Mapping[str, Sequence[Mapping[int, float]]],
    ylabel: str,
    xlabel: str = "optimizer steps",
) -> Figure:
    """Plot the mean of the seeds' learning curves with its 95 % bootstrap interval.

    Args:
        curves: curves by method, one for each seed, as values by step.
        ylabel: label of the vertical axis.
        xlabel: label of the horizontal axis.

    Returns:
        The figure.

    Raises:
        ValueError: no curves.
    """
    if not curves:
        raise ValueError("no learning curves; expected at least one")
    figure = new_figure(7.5, 4.5)
    axes = figure.subplots()
    for index, (label, runs) in enumerate(curves.items()):
        steps = sorted(set.intersection(*(set(run) for run in runs)))
        values = np.array([[run[step] for step in steps] for run in runs])
        [line] = axes.plot(steps, values.mean(axis=0), label=label, **line_style(index))
        axes.fill_between(steps, *_band(values), color=line.get_color(), alpha=0.1, lw=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, handlelength=4)
    return figure


def line_style(index: int, zoo: bool | None = None) -> dict[str, Any]:
    """Choose colour, dashes and marker of one of many lines.

    The numbers of colours and of dashes are coprime, so that few lines look the same.

    Args:
        index: number of the line.
        zoo: whether the line is Zoo-Tuning, which alone is black; ``None`` uses all colours for all
            lines.
    """
    colours = COLOURS if zoo is None else COLOURS[:1] if zoo else COLOURS[1:]
    return {
        "color": colours[index % len(colours)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKS[index % len(MARKS)],
        "markersize": 4,
    }


def _band(values: np.ndarray) -> np.ndarray:
    """Ends ``(2, S)`` of the 95 % bootstrap interval of the mean of ``(R, S)`` runs.

    This needs no scipy, since notebooks plot learning curves without the extra ``compare``.
    """
    drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    return np.percentile(values[drawn].mean(axis=1), [2.5, 97.5], axis=0)
