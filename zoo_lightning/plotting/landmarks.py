"""Draw the error of each landmark on the mean face, and heat maps over faces.

Figures are readable in greyscale: larger values are also darker or brighter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import patheffects
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize

from zoo_lightning.plotting.figures import Batch, channels_last, draw_image, new_figure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import ArrayLike


def _path(first: int, last: int, closed: bool = False) -> list[tuple[int, int]]:
    """Connect a row of points, and its last to its first point if it is closed."""
    path = [(k, k + 1) for k in range(first, last)]
    return [*path, (last, first)] if closed else path


CONNECTIONS: dict[str, tuple[tuple[int, int], ...]] = {
    "ibug68": (
        *_path(0, 16),  # jaw
        *_path(17, 21),  # brows
        *_path(22, 26),
        *_path(27, 30),  # nose
        *_path(31, 35),
        *_path(36, 41, closed=True),  # eyes
        *_path(42, 47, closed=True),
        *_path(48, 59, closed=True),  # lips
        *_path(60, 67, closed=True),
    )
}
"""Pairs of points that are joined by lines to draw a face, by scheme name."""

_UNIT = Normalize(0, 1)
_FACE = 0.6
"""Brightest grey of a face behind heat."""

_ERROR_COLOURS = "YlOrRd"  # from light to dark without turning back
_HEAT_COLOURS = LinearSegmentedColormap.from_list(
    "heat",
    [(0.0, "#a0200000"), (0.25, "#c8380070"), (0.65, "#ff8c00e0"), (1.0, "#fff7b8ff")],
)
"""Colours from transparent over dark to bright: the face is visible where there is no heat."""


def plot_point_errors(
    mean_shape: ArrayLike,
    errors: ArrayLike,
    connections: Sequence[tuple[int, int]] = (),
    worst: int = 6,
) -> Figure:
    """Draw the error of each point at its place on the mean face.

    A circle's area and its darkness are both proportional to the error. A point without an error
    has a small cross.

    Args:
        mean_shape: mean of the points ``(K, 2)`` in any unit, y downwards.
        errors: mean error ``(K,)`` of each point, percent; NaN if unknown.
        connections: pairs of points that are joined by a thin line, see ``CONNECTIONS``.
        worst: how many of the points with the largest errors are numbered.

    Returns:
        The figure, about 5 inches wide.

    Raises:
        ValueError: if the lengths differ or no point has an error.
    """
    shape, values = np.asarray(mean_shape, dtype=float), np.asarray(errors, dtype=float)
    known = np.isfinite(values)
    if shape.shape != (len(values), 2) or not known.any():
        raise ValueError(
            f"Expected a mean shape (K, 2) and K errors of which one is a number, found "
            f"{shape.shape} and {values.shape} with {int(known.sum())} numbers."
        )
    width, height = np.ptp(shape[np.isfinite(shape).all(axis=1)], axis=0)
    figure = new_figure(5.6, float(np.clip(4.4 * height / max(width, 1e-9), 2.5, 7)))
    axes = figure.subplots()
    axes.set(aspect="equal")
    axes.set_axis_off()
    axes.invert_yaxis()
    lines = [shape[list(pair)] for pair in connections if np.isfinite(shape[list(pair)]).all()]
    axes.add_collection(LineCollection(lines, colors="0.75", linewidths=1, zorder=1))
    axes.plot(*shape[~known].T, "+", color="0.4", ms=6)
    order = np.flatnonzero(known)[np.argsort(-values[known])]  # small circles over large ones
    areas = _circle_areas(values[order])
    x, y = shape[order].T
    circles = axes.scatter(
        x,
        y,
        s=areas,
        c=values[order],
        cmap=_ERROR_COLOURS,
        norm=Normalize(0, max(values[order[0]], 1e-9)),
        edgecolors="black",
        linewidths=0.6,
        zorder=2,
    )
    for k, area in zip(order[:worst], areas, strict=False):
        _number(axes, k, shape[k], shape[known].mean(axis=0), np.sqrt(area / np.pi))
    axes.margins(0.1)
    bar = figure.colorbar(circles, ax=axes, shrink=0.8, aspect=28)
    bar.set_label("mean error of the point (%)")
    mean = values[known].mean()
    bar.ax.axhline(mean, color="black", linewidth=1.2)
    bar.ax.annotate(
        f"mean {mean:.2f}",
        (0, mean),
        xycoords=("axes fraction", "data"),
        xytext=(-3, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=8,
    )
    return figure


def _circle_areas(values: np.ndarray) -> np.ndarray:
    """Areas in square points, proportional to the values, that fill a fair part of the face."""
    room = min(7000 / len(values), 250)  # mean area
    return room * values / max(values.mean(), 1e-9)


def _number(axes: Axes, k: int, point: np.ndarray, centre: np.ndarray, radius: float) -> None:
    """Write a point's number beside its circle, away from the face's centre."""
    outwards = point - centre
    outwards = outwards / max(np.linalg.norm(outwards), 1e-9)
    text = axes.annotate(
        str(k),
        (float(point[0]), float(point[1])),
        xytext=(radius + 8) * outwards * (1, -1),  # offsets count upwards
        textcoords="offset points",
        ha="center",
        va="center",
        fontsize=9,
        fontweight="bold",
        zorder=3,
    )
    text.set_path_effects([patheffects.withStroke(linewidth=2.5, foreground="white")])


def combine_heatmaps(heatmaps: ArrayLike) -> np.ndarray:
    """Combine heat maps of all points: maximum over points, each relative to its own peak.

    Args:
        heatmaps: heat maps ``(B, K, h, w)``, non-negative.

    Returns:
        ``(B, h, w)`` float32 in [0, 1]; heat maps without a positive value add nothing.

    Raises:
        ValueError: ``heatmaps`` has another number of dimensions.
    """
    maps = np.asarray(heatmaps, dtype=np.float32)
    if maps.ndim != 4:
        raise ValueError(f"Expected heat maps (B, K, h, w), found {maps.shape}.")
    peaks = maps.max(axis=(2, 3), keepdims=True)
    return (np.maximum(maps, 0) / np.where(peaks > 0, peaks, 1)).max(axis=1)


def plot_heatmaps(images: ArrayLike, heatmaps: ArrayLike, pred: Batch | None = None) -> Figure:
    """Draw the heat maps of all points over darkened greyscale images; brighter is higher.

    Args:
        images: images ``(B, H, W, 3)`` or ``(B, 3, H, W)``, uint8 or floats in [0, 1].
        heatmaps: heat maps ``(B, K, h, w)``, non-negative, of any resolution, covering the whole
            image.
        pred: predicted points ``(B, K, 2)`` in the images' pixels, drawn as crosses.

    Returns:
        The figure, about 2 inches an image.

    Raises:
        ValueError: if there are no images or the numbers of images differ.
    """
    pixels, heat = channels_last(images), combine_heatmaps(heatmaps)
    lengths = {len(pixels), len(heat), len(pixels) if pred is None else len(pred)}
    if len(lengths) > 1 or not len(pixels):
        raise ValueError(
            f"Expected as many images, heat maps and predictions, and at least one, found "
            f"{len(pixels)} images, heat maps of {len(heat)} and "
            f"{'no' if pred is None else len(pred)} predictions."
        )
    columns = min(int(np.ceil(np.sqrt(len(pixels)))), 6)
    rows = -(-len(pixels) // columns)
    figure = new_figure(2.1 * columns + 0.6, 2.1 * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.ravel()[len(pixels) :]:
        axes.set_axis_off()
    for i, axes in enumerate(grid.ravel()[: len(pixels)]):
        height, width = pixels.shape[1:3]
        draw_image(axes, _darkened(pixels[i]), cmap="gray", vmin=0, vmax=1)
        axes.imshow(
            heat[i],
            extent=(0, width, height, 0),
            cmap=_HEAT_COLOURS,
            norm=_UNIT,
            interpolation="bilinear",
        )
        if pred is not None:
            axes.plot(*np.asarray(pred[i], dtype=float).T, "x", color="black", mew=0.6, ms=2.2)
    bar = figure.colorbar(ScalarMappable(_UNIT, _HEAT_COLOURS), ax=grid, shrink=0.8, aspect=30)
    bar.ax.set_facecolor(str(_FACE / 2))
    words = "heat relative to the point's peak"
    bar.set_label(words if pred is None else f"{words}\n(crosses: predicted points)")
    return figure


def _darkened(pixels: np.ndarray) -> np.ndarray:
    """Grey ``(H, W)``, stretched to reach from black to ``_FACE``: dark photographs show too."""
    grey = pixels @ np.array([0.299, 0.587, 0.114])
    low, high = np.percentile(grey, (1, 99))
    return _FACE * np.clip((grey - low) / max(high - low, 1e-9), 0, 1)
