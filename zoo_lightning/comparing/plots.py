"""Figures of a comparison, readable in grey, too; in the manner of ``plots``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.comparing.report import Row, Table
from zoo_lightning.comparing.similarity import Similarity
from zoo_lightning.plots import new_figure

MARKS = "osD^vP*X<>hp"

DASHES = ("-", "--", "-.", ":")

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""Told apart by people who do not see red and green; Okabe and Ito, Color Universal Design, 2008.

Their yellow is left out, which is hardly seen on white.
"""


def plot_quality_against_compute(tables: Sequence[Table]) -> Figure:
    """Test figure of every method with its 95 % interval over the compute of its whole training.

    A line for each method through its budgets, Zoo-Tuning in black. Methods whose inference costs
    several networks, such as an ensemble, have hollow marks and say so in the legend.

    Args:
        tables: of one fraction of the training data, one for each budget.

    Returns:
        The figure. Compute is in trainings of one ordinary network where all tables have budgets,
        else in multiply-adds; its axis is logarithmic.

    Raises:
        ValueError: no row says what its training has cost.
    """
    in_units = all(row.units for table in tables for row in table.rows if row.figures)
    spent = "units" if in_units else "multiply_adds"
    found = [row for table in tables for row in table.rows if row.figures and getattr(row, spent)]
    # Of many single sources only those that a choice would take are worth a line.
    choices = {row.label for row in found if row.chosen}
    rows = [row for row in found if not (choices and row.label.startswith("single "))]
    if not rows:
        raise ValueError("no method's training costs are known; expected at least one")
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(row.label, []).append(row)
    one = min((row.cost.multiply_adds for row in rows if row.cost), default=None)
    figure = new_figure(8.0, 5.0)
    axes = figure.subplots()
    for index, (label, points) in enumerate(lines.items()):
        points.sort(key=lambda row: mean(getattr(row, spent).values()))
        times = max((row.cost.multiply_adds / one for row in points if row.cost), default=1.0)
        look = _look(index, zoo=points[0].zoo)
        if times > ONE_NETWORK:
            label, look = f"{label} (inference of {times:.0f} networks)", {**look, "mfc": "white"}
        axes.errorbar(
            [mean(getattr(row, spent).values()) for row in points],
            [row.interval.mean for row in points],
            yerr=[np.nan_to_num(row.interval.half) for row in points],
            label=label,
            capsize=2,
            elinewidth=0.6,
            **look,
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
"""Multiple of the cheapest method's inference above which a method is more than one network; gates
of a full zoo add a few per cent."""


def plot_learning_curves(
    curves: Mapping[str, Sequence[Mapping[int, float]]],
    ylabel: str,
    xlabel: str = "optimizer steps",
) -> Figure:
    """Mean validation figure of the seeds over steps, with its 95 % interval by the bootstrap.

    Args:
        curves: by method, one for each seed: figure by step.
        ylabel: what the figure is.
        xlabel: what the steps are.

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
        [line] = axes.plot(steps, values.mean(axis=0), label=label, **_look(index))
        axes.fill_between(steps, *_band(values), color=line.get_color(), alpha=0.1, lw=0)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, handlelength=4)
    return figure


def _look(index: int, zoo: bool | None = None) -> dict[str, Any]:
    """Of one of many lines; colours and dashes have no common divisor, so that few look alike.

    Args:
        index: of the line.
        zoo: whether it is Zoo-Tuning, which is black and nothing else is; ``None`` for neither.
    """
    colours = COLOURS if zoo is None else COLOURS[:1] if zoo else COLOURS[1:]
    return {
        "color": colours[index % len(colours)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKS[index % len(MARKS)],
        "markersize": 4,
    }


def _band(values: np.ndarray) -> np.ndarray:
    """Ends ``(2, S)`` of the 95 % interval of the mean of ``(R, S)`` runs, drawn anew."""
    drawn = np.random.default_rng(0).integers(len(values), size=(2000, len(values)))
    return np.percentile(values[drawn].mean(axis=1), [2.5, 97.5], axis=0)


def plot_similarity(found: Sequence[Similarity], names: Sequence[str]) -> Figure:
    """Linear CKA of every pair of sources, layer by layer.

    Args:
        found: of the layers, in their order.
        names: of the sources.

    Returns:
        The figure.

    Raises:
        ValueError: fewer than two sources, or no layers.
    """
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    if not pairs or not found:
        raise ValueError(f"{len(names)} sources and {len(found)} layers; expected two and one")
    figure = new_figure(8.0, 4.5)
    axes = figure.subplots()
    for index, (i, j) in enumerate(pairs):
        similarity = [float(each.cka[i, j]) for each in found]
        axes.plot(similarity, label=f"{names[i]}, {names[j]}", **_look(index))
    axes.set(ylim=(0, 1.02), ylabel="linear CKA of the layer's outputs")
    axes.set_xticks(range(len(found)), [each.layer for each in found], rotation=90, fontsize=6)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, handlelength=4)
    return figure
