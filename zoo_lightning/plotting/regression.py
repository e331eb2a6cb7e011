"""Draw predicted against true numbers, and images with both, readable in greyscale."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from zoo_lightning.plotting.figures import channels_last, draw_image, new_figure

DRAWN = 12
"""Largest number of targets that get a scatter plot."""

NAMED = 4
"""Largest number of targets that are written above an image."""

LONGEST = 16
"""Largest number of characters of a target's name that are shown above an image."""


def plot_scatter(true: ArrayLike, found: ArrayLike, names: Sequence[str]) -> Figure:
    """Draw predicted against true numbers, with a plot for each of the first twelve targets.

    A dashed line shows where both are equal. Titles have the mean absolute error and the number of
    images.

    Args:
        true: true numbers ``(N, T)``; NaN where unknown.
        found: predicted numbers ``(N, T)``.
        names: names of the ``T`` targets.

    Raises:
        ValueError: the shapes differ, or there are no targets.
    """
    wanted, given = np.asarray(true, dtype=float), np.asarray(found, dtype=float)
    if wanted.shape != given.shape or wanted.shape[1:] != (len(names),) or not names:
        raise ValueError(
            f"Expected two arrays of {len(names)} targets, found {wanted.shape} and {given.shape}."
        )
    shown = list(names[:DRAWN])
    columns = min(len(shown), 4)
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(3.2 * columns + 0.4, 3.3 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(shown) :]:
        axes.set_axis_off()
    for column, (axes, name) in enumerate(zip(grid, shown, strict=False)):
        known = np.isfinite(wanted[:, column]) & np.isfinite(given[:, column])
        x, y = wanted[known, column], given[known, column]
        axes.set(xlabel="true", ylabel="predicted")
        axes.set_title(_short(name), fontsize=9)
        if not len(x):
            continue
        # Few images as clear points, many as clouds.
        axes.plot(x, y, "o", ms=3, mew=0, color="black", alpha=float(max(0.15, len(x) ** -0.25)))
        ends = [min(x.min(), y.min()), max(x.max(), y.max())]
        axes.plot(ends, ends, "--", color="0.4", lw=1)
        error = np.abs(y - x).mean()
        axes.set_title(f"{_short(name)}\nMAE {error:.4g}, {len(x)} images", fontsize=9)
    return figure


def plot_numbers(
    images: ArrayLike, true: ArrayLike, found: ArrayLike, names: Sequence[str]
) -> Figure:
    """Draw a grid of images with true and predicted numbers of the first four targets.

    Args:
        images: images ``(B, H, W, 3)`` or ``(B, 3, H, W)``, uint8 or floats in [0, 1].
        true: true numbers ``(B, T)``; NaN where unknown.
        found: predicted numbers ``(B, T)``.
        names: names of the ``T`` targets.

    Raises:
        ValueError: there are no images, or the lengths differ.
    """
    pixels = channels_last(images)
    wanted, given = np.asarray(true, dtype=float), np.asarray(found, dtype=float)
    shapes = {wanted.shape, given.shape, (len(pixels), len(names))}
    if len(shapes) > 1 or not len(pixels):
        raise ValueError(f"Expected numbers of all images and targets, found {shapes}.")
    columns = min(math.ceil(math.sqrt(1.5 * len(pixels))), 6)
    rows = math.ceil(len(pixels) / columns)
    lines = min(len(names), NAMED)
    figure = new_figure(max(2.2 * columns, 2.6), (2.2 + 0.17 * lines) * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(pixels) :]:
        axes.set_axis_off()
    for i, axes in enumerate(grid[: len(pixels)]):
        draw_image(axes, pixels[i])
        words = [
            f"{_short(name)} {_number(wanted[i, k])}, predicted {_number(given[i, k])}"
            for k, name in enumerate(names[:NAMED])
        ]
        axes.set_title("\n".join(words), fontsize=7)
    return figure


def _number(value: float) -> str:
    return "?" if math.isnan(value) else f"{value:.4g}"


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # no mathematics in a target's name
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
