"""Pictures of gates by layer and source, in greys: of a report, of a training, of samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.plots import channels_last, draw_image, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

    from zoo_lightning.gates.report import GateReport
    from zoo_lightning.gates.watching import WatchedGates

COLUMNS = 200
"""Most validations that a picture shows, evenly spread over all."""

LONGEST = 24
"""Letters of a name that are shown, the last ones: they tell layers apart."""


def plot_gates(found: GateReport) -> Figure:
    """Heat maps, layers by sources: gate share, kernel share and, if measured, the effect.

    Dark is much. Every cell has its number, so that nothing depends on the shade; effects below
    zero, where a layer does better without the source, are hatched.

    Args:
        found: the report.

    Returns:
        The figure; its height grows with the number of layers.
    """
    sources = [row.source for row in found.sources]
    layers = [row.layer for row in found.layers[:: len(sources)]]
    columns = {
        "share\nof the gates": [row.gate_share for row in found.layers],
        "share\nof the kernels' norms": [row.kernel_share for row in found.layers],
    }
    if found.layer_samples:
        effects = [row.effect for row in found.layers]
        columns[f"rise of {found.measure.loss}\nwithout the source"] = effects
    width = len(columns) * (0.6 * len(sources) + 0.5) + 2.2
    figure = new_figure(width, 0.24 * len(layers) + 1.9)
    grid = figure.subplots(1, len(columns), squeeze=False, sharey=True)[0]
    for axes, (title, values) in zip(grid, columns.items(), strict=True):
        table = np.array(values, dtype=float).reshape(len(layers), len(sources))
        draw_table(axes, table, sources, share=title.startswith("share"))
        axes.set_title(title, size=8)
    grid[0].set_yticks(np.arange(len(layers)), [_short(name) for name in layers], fontsize=7)
    return figure


def plot_watched_gates(
    found: WatchedGates, names: Sequence[str] | None = None, xlabel: str = ""
) -> Figure:
    """Gates of all layers across samples, groups or moments: a heat map for each source.

    Dark is much. Differences (:meth:`WatchedGates.without_mean`) go from white, below the mean,
    over grey to black.

    Args:
        found: gates ``(N, L, m)``, or differences of gates.
        names: of the ``N`` columns; ``None`` numbers them.
        xlabel: what the columns are.

    Raises:
        ValueError: names that are not as many as the columns.
    """
    count = len(found.values)
    if names is not None and len(names) != count:
        raise ValueError(f"{len(names)} names for {count} columns of gates; expected as many")
    figure, grid = _maps_by_source(found.values.numpy(), found.layers, found.sources, xlabel)
    for axes in grid if names is not None else ():
        axes.set_xticks(np.arange(count), [_short(name) for name in names], rotation=90)
    return figure


def plot_mean_gates(found: Mapping[str, WatchedGates]) -> Figure:
    """Heat maps of mean gates, layers by sources, one for each network, with their numbers.

    Args:
        found: by the networks' labels; of the same layers and sources.

    Raises:
        ValueError: no networks, or networks of other layers or sources.
    """
    kinds = {(tuple(each.layers), tuple(each.sources)) for each in found.values()}
    if len(kinds) != 1:
        raise ValueError(f"networks of {len(kinds)} kinds; expected the same layers and sources")
    [(layers, sources)] = kinds
    width = len(found) * (0.6 * len(sources) + 0.5) + 2.2
    figure = new_figure(width, 0.24 * len(layers) + 1.9)
    grid = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, (label, each) in zip(grid, found.items(), strict=True):
        draw_table(axes, each.values.nanmean(dim=0).numpy(), sources, share=True)
        axes.set_title(label, size=8)
    grid[0].set_yticks(np.arange(len(layers)), [_short(name) for name in layers], fontsize=7)
    return figure


def plot_gates_of_images(images: ArrayLike, found: WatchedGates, layer: str) -> Figure:
    """Images, and under each what one layer's gate says of it: a bar for each source.

    Args:
        images: ``(N, H, W, 3)`` or ``(N, 3, H, W)``, uint8 or floats in [0, 1].
        found: the images' gates ``(N, L, m)``.
        layer: its name.

    Raises:
        ValueError: an unknown layer, no images, or gates of another number of images.
    """
    pixels = channels_last(images)
    if layer not in found.layers:
        raise ValueError(f"no layer {layer!r} among {', '.join(found.layers)}")
    if not len(pixels) or len(pixels) != len(found.values):
        raise ValueError(f"{len(pixels)} images and gates of {len(found.values)}; expected as many")
    values, places = found.values[:, found.layers.index(layer)].numpy(), range(len(found.sources))
    figure = new_figure(1.3 * len(pixels) + 1.2, 1.6 + 0.22 * len(places))
    heights = (1.2, 0.22 * len(places) + 0.1)
    grid = figure.subplots(2, len(pixels), squeeze=False, height_ratios=heights, sharey="row")
    for above, axes, image, gates in zip(*grid, pixels, values, strict=True):
        draw_image(above, image)
        axes.barh(places, gates, color="0.75", edgecolor="black", linewidth=0.6)
        for place, gate in zip(places, gates, strict=True):
            beside = gate + 0.03 if gate < 0.7 else 0.03
            axes.text(beside, place, f"{gate:.2f}", va="center", fontsize=7)
        axes.set(xlim=(0, 1), xticks=[0, 1])
        axes.tick_params(length=2, labelsize=6)
    grid[1, 0].set_yticks(places, [_short(name) for name in found.sources], fontsize=7)
    grid[1, 0].invert_yaxis()
    figure.supxlabel(f"gate of {_short(layer)}", size=8)
    return figure


def plot_gates_now(
    gates: np.ndarray, layers: Sequence[str], sources: Sequence[str], step: int
) -> Figure:
    """Heat map of the gates with their numbers, dark is much.

    Args:
        gates: ``(L, m)``, in [0, 1].
        layers: names of the ``L`` layers.
        sources: names of the ``m`` sources.
        step: of the training, written above.
    """
    figure = new_figure(0.6 * len(sources) + 2.7, 0.24 * len(layers) + 1.9)
    axes = figure.subplots()
    draw_table(axes, gates, sources, share=True)
    axes.set_title(f"gates at step {step}", size=8)
    axes.set_yticks(np.arange(len(layers)), [_short(name) for name in layers], fontsize=7)
    return figure


def plot_gate_history(
    history: np.ndarray, steps: Sequence[int], layers: Sequence[str], sources: Sequence[str]
) -> Figure:
    """Heat map of the gates over the training, a panel for each source.

    Args:
        history: ``(V, L, m)`` gates of ``V`` validations, in [0, 1].
        steps: of the validations.
        layers: names of the ``L`` layers.
        sources: names of the ``m`` sources.
    """
    shown = np.unique(np.linspace(0, len(steps) - 1, COLUMNS).round().astype(int))
    figure, grid = _maps_by_source(history[shown], layers, sources, "step")
    ticks = np.unique(np.linspace(0, len(shown) - 1, 3).round().astype(int))
    for axes in grid:
        axes.set_xticks(ticks, [f"{steps[shown[place]]:,}" for place in ticks], fontsize=6)
    return figure


def _maps_by_source(
    values: np.ndarray, layers: Sequence[str], sources: Sequence[str], xlabel: str
) -> tuple[Figure, list[Axes]]:
    """A heat map of ``(X, L, m)`` for each source, all in one scale; dark is much."""
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
        axes.set_title(_short(source), size=8)
        axes.tick_params(length=2, labelsize=6)
    grid[0].set_yticks(np.arange(len(layers)), [_short(name) for name in layers], fontsize=6)
    figure.supxlabel(xlabel, size=8)
    bar = figure.colorbar(image, ax=grid, shrink=0.8)
    bar.ax.tick_params(labelsize=6)
    bar.set_label("gate, less its mean" if differences else "gate", size=8)
    return figure, grid


def draw_table(axes: Axes, table: np.ndarray, sources: Sequence[str], share: bool) -> None:
    """One heat map with its numbers.

    Args:
        axes: to draw on.
        table: ``(L, m)``.
        sources: names of the columns.
        share: whether the values lie in [0, 1]; otherwise the largest magnitude is darkest.
    """
    largest = 1.0 if share else float(np.abs(table).max()) or 1.0
    shades = np.abs(table) / largest
    decimals = max(1, 2 - math.floor(math.log10(largest)))
    axes.imshow(shades, cmap="Greys", vmin=0, vmax=1.1, aspect="auto", interpolation="nearest")
    names = [_short(name) for name in sources]
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


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # no mathematics in a name
    return name if len(name) <= LONGEST else f"…{name[1 - LONGEST :]}"
