"""Draw gates by layer and source as greyscale heat maps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.plotting.figures import new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 200
"""Largest number of validations that a picture shows, evenly spread over all."""

LONGEST = 24
"""Number of last characters of a name that are shown; layer names differ in these."""


def plot_gates_now(
    gates: np.ndarray, layers: Sequence[str], sources: Sequence[str], step: int
) -> Figure:
    """Draw a heat map of the gates with their values; darker is larger.

    Args:
        gates: gates ``(L, m)``, in [0, 1].
        layers: names of the ``L`` layers.
        sources: names of the ``m`` sources.
        step: training step, for the title.
    """
    figure = new_figure(0.6 * len(sources) + 2.7, 0.24 * len(layers) + 1.9)
    axes = figure.subplots()
    draw_table(axes, gates, sources, share=True)
    axes.set_title(f"gates at step {step}", size=8)
    axes.set_yticks(np.arange(len(layers)), [short(name) for name in layers], fontsize=7)
    return figure


def plot_gate_history(
    history: np.ndarray, steps: Sequence[int], layers: Sequence[str], sources: Sequence[str]
) -> Figure:
    """Draw heat maps of the gates over the training, a panel for each source.

    Args:
        history: gates ``(V, L, m)`` at ``V`` validations, in [0, 1].
        steps: training steps of the ``V`` validations.
        layers: names of the ``L`` layers.
        sources: names of the ``m`` sources.
    """
    shown = np.unique(np.linspace(0, len(steps) - 1, COLUMNS).round().astype(int))
    figure, grid = maps_by_source(history[shown], layers, sources, "step")
    ticks = np.unique(np.linspace(0, len(shown) - 1, 3).round().astype(int))
    for axes in grid:
        axes.set_xticks(ticks, [f"{steps[shown[place]]:,}" for place in ticks], fontsize=6)
    return figure


def maps_by_source(
    values: np.ndarray, layers: Sequence[str], sources: Sequence[str], xlabel: str
) -> tuple[Figure, list[Axes]]:
    """Draw a heat map for each source, with one scale for all; darker is larger.

    Args:
        values: values ``(X, L, m)``; if some are negative, 0 is grey, negative values are lighter
            and positive ones darker.
        layers: names of the ``L`` layers.
        sources: names of the ``m`` sources.
        xlabel: name of the ``X`` axis.

    Returns:
        The figure, and the axes of each source.
    """
    figure = new_figure(1.9 * len(sources) + 2.4, 0.16 * len(layers) + 1.8)
    grid = list(figure.subplots(1, len(sources), squeeze=False, sharey=True)[0])
    largest = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    differences = bool((values < 0).any())  # which gates never are
    for column, (axes, source) in enumerate(zip(grid, sources, strict=True)):
        image = axes.imshow(
            values[:, :, column].T,
            cmap="Greys",
            vmin=-largest if differences else 0,
            vmax=largest,
            aspect="auto",
            interpolation="nearest",
        )
        axes.set_title(short(source), size=8)
        axes.tick_params(length=2, labelsize=6)
    grid[0].set_yticks(np.arange(len(layers)), [short(name) for name in layers], fontsize=6)
    figure.supxlabel(xlabel, size=8)
    bar = figure.colorbar(image, ax=grid, shrink=0.8)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("gate, less its mean" if differences else "gate", size=8)
    return figure, grid


def draw_table(axes: Axes, table: np.ndarray, sources: Sequence[str], share: bool) -> None:
    """Draw one heat map with its values as numbers.

    Args:
        axes: axes to draw on.
        table: values ``(L, m)``.
        sources: names of the columns.
        share: whether the values lie in [0, 1]; otherwise the largest magnitude is darkest.
    """
    largest = 1.0 if share else float(np.abs(table).max()) or 1.0
    shades = np.abs(table) / largest
    decimals = max(1, 2 - math.floor(math.log10(largest)))
    axes.imshow(shades, cmap="Greys", vmin=0, vmax=1.1, aspect="auto", interpolation="nearest")
    names = [short(name) for name in sources]
    axes.set_xticks(
        np.arange(len(names)), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=7
    )
    axes.tick_params(length=0)
    for (row, column), value in np.ndenumerate(table):
        dark = shades[row, column] > 0.55
        if value < 0:
            axes.fill(
                column + np.array([-0.5, 0.5, 0.5, -0.5]),
                row + np.array([-0.5, -0.5, 0.5, 0.5]),
                facecolor="none",
                edgecolor="0.5" if dark else "0.8",
                hatch="///",
                linewidth=0,
            )
        axes.text(
            column,
            row,
            f"{value:.2f}" if share else f"{value:+.{decimals}f}",
            ha="center",
            va="center",
            fontsize=6,
            color="white" if dark else "black",
        )


def short(name: str) -> str:
    """Shorten a layer's or source's name to its last characters, for a picture."""
    name = name.replace("$", r"\$")  # no mathematics in a name
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
