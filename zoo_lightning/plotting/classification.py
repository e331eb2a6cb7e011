"""Draw confusion matrices and misclassified images, readable in greyscale."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from zoo_lightning.plotting.figures import channels_last, draw_image, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMED = 20
"""Largest number of classes whose names are written beside a confusion matrix."""

PAIRS = 12
"""Number of most confused pairs that are named if there are more than ``NAMED`` classes."""

LONGEST = 22
"""Largest number of characters of a class name that are shown."""


def most_confused(matrix: ArrayLike, count: int) -> list[tuple[int, int, float]]:
    """Find the most confused pairs of classes in a confusion matrix.

    Args:
        matrix: numbers of images ``(C, C)``, true classes in rows.
        count: largest number of pairs to return.

    Returns:
        True class, predicted class and fraction of the true class's images, for pairs with some
        confusion, the largest fraction first.
    """
    shares = _shares(np.asarray(matrix))
    np.fill_diagonal(shares, 0)
    order = np.argsort(-shares, axis=None, kind="stable")[:count]
    pairs = [divmod(int(place), shares.shape[1]) for place in order]
    return [(true, pred, float(shares[true, pred])) for true, pred in pairs if shares[true, pred]]


def plot_confusion(matrix: ArrayLike, classes: Sequence[str]) -> Figure:
    """Draw a confusion matrix in greys, each row in percent of its class's images.

    With up to twenty classes, all are named and each cell shows its percentage; with more, only the
    most confused pairs are named, and numbers mark their cells.

    Args:
        matrix: image counts ``(C, C)``, true classes in rows, predicted ones in columns.
        classes: names of the ``C`` classes.

    Raises:
        ValueError: the matrix is not ``(C, C)``, or there are no classes.
    """
    counts = np.asarray(matrix)
    if counts.shape != (len(classes), len(classes)) or not len(classes):
        raise ValueError(f"Expected a square matrix of {len(classes)} classes, not {counts.shape}.")
    shares = _shares(counts)
    if len(classes) <= NAMED:
        side = max(0.42 * len(classes), 2.0)
        figure = new_figure(side + 2.2, side + 1.6)
        axes = figure.subplots()
        _name_cells(axes, shares, classes)
    else:
        figure = new_figure(11.0, 5.6)
        axes, list_axes = figure.subplots(1, 2, width_ratios=(5.6, 5.4))
        _mark_pairs(axes, list_axes, most_confused(counts, PAIRS), classes)
    image = axes.imshow(100 * shares, cmap="Greys", vmin=0, vmax=100, interpolation="nearest")
    axes.set(xlabel="predicted class", ylabel="true class")
    figure.colorbar(image, ax=axes, label="images of the true class (%)", shrink=0.8)
    return figure


def _shares(counts: np.ndarray) -> np.ndarray:
    """Rows divided by their sums; rows without images are 0."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _name_cells(axes: Axes, shares: np.ndarray, classes: Sequence[str]) -> None:
    places = np.arange(len(classes))
    names = [_short(name) for name in classes]
    axes.set_xticks(places, names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    axes.set_yticks(places, names, fontsize=8)
    for true, pred in zip(*np.nonzero(shares > 0.005), strict=True):
        share = shares[true, pred]
        axes.text(
            pred,
            true,
            f"{100 * share:.0f}",
            ha="center",
            va="center",
            fontsize=7,
            color="white" if share > 0.5 else "black",
        )


def _mark_pairs(
    axes: Axes,
    list_axes: Axes,
    pairs: Sequence[tuple[int, int, float]],
    classes: Sequence[str],
) -> None:
    """Draw numbered rings around the pairs' cells, and a bar chart that explains the numbers."""
    for number, (true, pred, _) in enumerate(pairs, 1):
        axes.plot(pred, true, "o", mfc="none", mec="black", mew=0.8, ms=6)
        axes.annotate(str(number), (pred, true), (4, 4), textcoords="offset points", fontsize=7)
    places = np.arange(len(pairs))
    list_axes.barh(places, [100 * share for _, _, share in pairs], color="0.6", edgecolor="black")
    list_axes.set_yticks(
        places,
        [
            f"{_short(classes[true])} as {_short(classes[pred])}  {number}"
            for number, (true, pred, _) in enumerate(pairs, 1)
        ],
        fontsize=8,
    )
    list_axes.invert_yaxis()
    list_axes.set(xlabel="images of the true class (%)", title="confused most")


def plot_mistakes(
    images: ArrayLike,
    true: Sequence[str],
    pred: Sequence[str],
    probabilities: Sequence[float],
) -> Figure:
    """Draw a grid of images with their true class, predicted class and its probability.

    Args:
        images: images ``(B, H, W, 3)`` or ``(B, 3, H, W)``, uint8 or floats in [0, 1].
        true: names of the true classes.
        pred: names of the predicted classes.
        probabilities: probabilities of the predicted classes, in [0, 1].

    Raises:
        ValueError: if there are no images or the lengths differ.
    """
    pixels = channels_last(images)
    lengths = {len(pixels), len(true), len(pred), len(probabilities)}
    if len(lengths) > 1 or not len(pixels):
        raise ValueError(f"Expected as many names and probabilities as images, found {lengths}.")
    columns = min(math.ceil(math.sqrt(1.5 * len(pixels))), 6)
    rows = math.ceil(len(pixels) / columns)
    figure = new_figure(max(1.9 * columns, 2.4), 2.5 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(pixels) :]:
        axes.set_axis_off()
    for i, axes in enumerate(grid[: len(pixels)]):
        draw_image(axes, pixels[i])
        words = f"{_short(true[i])}\nas {_short(pred[i])}, {100 * probabilities[i]:.0f} %"
        axes.set_title(words, fontsize=8)
    return figure


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # no mathematics in a class's name
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
