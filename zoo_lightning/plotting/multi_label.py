"""Draw scores of labels, and images with their true and predicted labels, readable in greyscale."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike

from zoo_lightning.plotting.figures import channels_last, draw_image, new_figure

MOST = 40
"""Largest number of labels in a chart; of more, those of the lowest average precision are shown."""

LONGEST = 24
"""Largest number of characters of a label that are shown."""

LINES = 3
"""Largest number of lines for the labels of an image."""


def plot_label_scores(
    classes: Sequence[str], precisions: ArrayLike, f1: ArrayLike, shares: ArrayLike
) -> Figure:
    """Draw the average precision of each label as a bar, with its F1 and its share of the images.

    The share of images that have a label is the average precision of random scores.

    Args:
        classes: names of the ``L`` labels.
        precisions: average precision of each label, in [0, 1]; NaN for labels without images, which
            are left out.
        f1: F1 of each label at its threshold, in [0, 1].
        shares: share of the images that have the label, in [0, 1].

    Raises:
        ValueError: the lengths differ.
    """
    values = [np.asarray(each, dtype=float) for each in (precisions, f1, shares)]
    lengths = {len(classes), *map(len, values)}
    if len(lengths) > 1:
        raise ValueError(f"Expected three numbers for each label, found {lengths}.")
    known = np.flatnonzero(~np.isnan(values[0]))
    order = known[np.argsort(-values[0][known], kind="stable")]
    title = f"{len(order)} labels"
    if len(order) > MOST:
        title = f"the {MOST} of {len(order)} labels that are found worst"
        order = order[-MOST:]
    figure = new_figure(7.5, 1.6 + 0.24 * max(len(order), 1))
    axes = figure.subplots()
    places = np.arange(len(order))
    precision, scored, share = (100 * each[order] for each in values)
    axes.barh(places, precision, color="0.75", edgecolor="black", label="average precision")
    axes.plot(scored, places, "kx", ms=6, label="F1 at the threshold")
    axes.plot(share, places, "|", color="black", ms=10, mew=2, label="images that have it")
    axes.set_yticks(places, [_short(classes[i]) for i in order], fontsize=8)
    axes.invert_yaxis()
    axes.set(xlim=(0, 102), xlabel="percent", title=title)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=3, fontsize=8, frameon=False)
    return figure


def plot_labels(
    images: ArrayLike, true: Sequence[Sequence[str]], pred: Sequence[Sequence[str]]
) -> Figure:
    """Draw a grid of images with their true and predicted labels.

    Args:
        images: images ``(B, H, W, 3)`` or ``(B, 3, H, W)``, uint8 or floats in [0, 1].
        true: names of the labels that each image has.
        pred: names of the labels that are predicted for it.

    Raises:
        ValueError: if there are no images or the lengths differ.
    """
    pixels = channels_last(images)
    lengths = {len(pixels), len(true), len(pred)}
    if len(lengths) > 1 or not len(pixels):
        raise ValueError(f"Expected as many lists of labels as images, found {lengths}.")
    columns = min(math.ceil(math.sqrt(1.5 * len(pixels))), 6)
    rows = math.ceil(len(pixels) / columns)
    figure = new_figure(max(2.1 * columns, 2.6), 3.0 * rows)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(pixels) :]:
        axes.set_axis_off()
    for axes, image, has, found in zip(grid, pixels, true, pred, strict=False):
        draw_image(axes, image)
        axes.set_title(f"is {_listed(has)}\nfound {_listed(found)}", fontsize=7)
    return figure


def _listed(names: Sequence[str]) -> str:
    """Names in a few lines of a picture's width."""
    lines = textwrap.wrap(", ".join(map(_short, names)) or "none", 32)
    return "\n".join([*lines[: LINES - 1], "..."] if len(lines) > LINES else lines)


def _short(name: str) -> str:
    name = name.replace("$", r"\$")  # no mathematics in a label's name
    return name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
