"""Figures of a comparison, readable in grey, too; in the manner of ``plots``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.comparing.report import Table
from zoo_lightning.comparing.similarity import Similarity
from zoo_lightning.plots import new_figure

MARKS = "osD^vP*X<>hp"

DASHES = ("-", "--", "-.", ":")

COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9")
"""Told apart by people who do not see red and green; Okabe and Ito, Color Universal Design, 2008.

Their yellow is left out, which is hardly seen on white.
"""


def plot_quality_against_cost(table: Table) -> Figure:
    """Test figure of every method with its 95 % interval, beside the cost of inference.

    A line for each method, the best one on top: most methods end as one ordinary network, so that
    over their costs they would lie upon each other. Zoo-Tuning is black.

    Args:
        table: with costs.

    Returns:
        The figure: on the left the test figure, on the right multiply-adds of one image.

    Raises:
        ValueError: no row has costs.
    """
    rows = [row for row in table.rows if row.cost and row.figures and not row.chosen]
    if not rows:
        raise ValueError("no method's costs were measured; expected at least one")
    rows.sort(key=lambda row: row.interval.mean, reverse=not table.metric.rises)
    figure = new_figure(7.5, 1.2 + 0.28 * len(rows))
    quality, cost = figure.subplots(1, 2, sharey=True, width_ratios=[3, 1])
    for place, row in enumerate(rows):
        half = row.interval.half
        look = {"color": "black" if row.zoo else "0.55", "mfc": "black" if row.zoo else "white"}
        error = None if np.isnan(half) else half
        quality.errorbar(row.interval.mean, place, xerr=error, fmt="o", capsize=3, **look)
        cost.plot(row.cost.multiply_adds, place, "o", **look)
    quality.set_yticks(range(len(rows)), [row.label for row in rows])
    quality.set(xlabel=table.metric.unit)
    cost.set(xlabel="multiply-adds, M")
    cost.set_xlim(0, 1.1 * max(row.cost.multiply_adds for row in rows))
    for axes in (quality, cost):
        axes.grid(alpha=0.3)
    return figure


def plot_learning_curves(
    curves: Mapping[str, Sequence[Mapping[int, float]]],
    ylabel: str,
    xlabel: str = "optimiser steps",
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


def _look(index: int) -> dict[str, Any]:
    """Of one of many lines; colours and dashes have no common divisor, so that few look alike."""
    return {
        "color": COLOURS[index % len(COLOURS)],
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
