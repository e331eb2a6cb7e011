"""Figures of gate reports and of the gates of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from zoo_lightning.plotting.figures import channels_last, draw_image, new_figure
from zoo_lightning.plotting.gates import draw_table, maps_by_source, short

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from zoo_lightning.analysis.report import GateReport
    from zoo_lightning.analysis.watching import WatchedGates


def plot_gates(found: GateReport) -> Figure:
    """Plot heat maps of gate shares, kernel shares and, if measured, effects by layer and source.

    Darker cells have larger values. Every cell shows its number; effects below zero, where a layer
    is better without the source, are hatched.

    Args:
        found: gate report.

    Returns:
        Figure whose height grows with the number of layers.
    """
    sources = [row.source for row in found.sources]
    layers = [row.layer for row in found.layers[:: len(sources)]]
    columns: dict[str, list[float | None]] = {
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
    grid[0].set_yticks(np.arange(len(layers)), [short(name) for name in layers], fontsize=7)
    return figure


def plot_watched_gates(
    found: WatchedGates, names: Sequence[str] | None = None, xlabel: str = ""
) -> Figure:
    """Plot gates of all layers across samples or groups, a heat map for each source.

    Darker cells have larger values. Differences from the mean
    (:meth:`~zoo_lightning.analysis.watching.WatchedGates.without_mean`) go from white, below the
    mean, to black.

    Args:
        found: gates ``(N, L, m)``, or differences of gates.
        names: names of the ``N`` columns; ``None`` numbers them.
        xlabel: label of the columns' axis.

    Raises:
        ValueError: there is not one name for each column.
    """
    count = len(found.values)
    if names is not None and len(names) != count:
        raise ValueError(f"names must have one name for each of {count} columns, got {len(names)}")
    figure, grid = maps_by_source(found.values.numpy(), found.layers, found.sources, xlabel)
    if names is not None:
        for axes in grid:
            axes.set_xticks(np.arange(count), [short(name) for name in names], rotation=90)
    return figure


def plot_mean_gates(found: Mapping[str, WatchedGates]) -> Figure:
    """Plot a heat map of mean gates by layer and source, for each network.

    Args:
        found: gates of each network, by its label; all have the same layers and sources.

    Raises:
        ValueError: there are no networks, or their layers or sources differ.
    """
    kinds = {(tuple(each.layers), tuple(each.sources)) for each in found.values()}
    if len(kinds) != 1:
        raise ValueError(
            "found must have networks with the same layers and sources, got "
            f"{len(kinds)} different combinations"
        )
    [(layers, sources)] = kinds
    width = len(found) * (0.6 * len(sources) + 0.5) + 2.2
    figure = new_figure(width, 0.24 * len(layers) + 1.9)
    grid = figure.subplots(1, len(found), squeeze=False, sharey=True)[0]
    for axes, (label, each) in zip(grid, found.items(), strict=True):
        draw_table(axes, each.values.nanmean(dim=0).numpy(), sources, share=True)
        axes.set_title(label, size=8)
    grid[0].set_yticks(np.arange(len(layers)), [short(name) for name in layers], fontsize=7)
    return figure


def plot_gates_of_images(images: ArrayLike, found: WatchedGates, layer: str) -> Figure:
    """Plot images with their gates of one layer as bars, one for each source.

    Args:
        images: images ``(N, H, W, 3)`` or ``(N, 3, H, W)``, uint8 or floats in [0, 1].
        found: gates of the images, ``(N, L, m)``.
        layer: name of the layer.

    Raises:
        ValueError: the layer is unknown, there are no images, or the numbers of images and gates
            differ.
    """
    pixels = channels_last(images)
    if layer not in found.layers:
        raise ValueError(f"layer must be one of {', '.join(found.layers)}, got {layer!r}")
    if not len(pixels) or len(pixels) != len(found.values):
        raise ValueError(
            f"images must be as many as the gates, {len(found.values)}, got {len(pixels)}"
        )
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
    grid[1, 0].set_yticks(places, [short(name) for name in found.sources], fontsize=7)
    grid[1, 0].invert_yaxis()
    figure.supxlabel(f"gate of {short(layer)}", size=8)
    return figure
