"""Draw images with their true and predicted masks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike

from zoo_lightning.data.segmentation.label_files import IGNORED
from zoo_lightning.data.segmentation.whole_images import overlaid, palette
from zoo_lightning.plotting.figures import channels_last, draw_image, new_figure

LISTED = 20
"""Largest number of classes that the legend names; of more, those that the images show."""

BESIDE = 2
"""Images in a row, each with three pictures."""


def plot_masks(
    images: ArrayLike,
    true: Sequence[ArrayLike],
    pred: Sequence[ArrayLike],
    classes: Sequence[str],
    titles: Sequence[str] | None = None,
) -> Figure:
    """Draw images, each with its true mask and its predicted one laid over it.

    Class 0 is left uncoloured, and what has no class is light grey. So are predictions beyond the
    outermost rows and columns that have true classes: in padding they mean nothing.

    Args:
        images: images ``(B, H, W, 3)`` or ``(B, 3, H, W)``, uint8.
        true: true classes of each image's cells, ``(h, w)``; 255 for none.
        pred: predicted classes of the same cells.
        classes: names of the classes.
        titles: text above each image.

    Raises:
        ValueError: if there are no images or the lengths differ.
    """
    pixels = channels_last(images)
    lengths = {len(pixels), len(true), len(pred), len(titles or pixels)}
    if len(lengths) > 1 or not len(pixels):
        raise ValueError(f"Expected as many masks and titles as images, found {lengths}.")
    rows = math.ceil(len(pixels) / BESIDE)
    figure = new_figure(3 * BESIDE * 1.6 + 0.4, 1.85 * rows + 0.7)
    grid = figure.subplots(rows, 3 * BESIDE, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    shown: set[int] = set()
    for i, picture in enumerate(pixels):
        cells = np.asarray(true[i])
        masks = [
            _of_size(each, picture.shape[:2])
            for each in (cells, _within(cells, np.asarray(pred[i])))
        ]
        shown |= {int(label) for mask in masks for label in np.unique(mask)}
        views = [picture, *(overlaid(picture, mask) for mask in masks)]
        for axes, view in zip(grid[3 * i : 3 * i + 3], views, strict=True):
            draw_image(axes, view)
        title = titles[i] if titles is not None else ""
        for axes, words in zip(grid[3 * i :], (title, "true", "predicted"), strict=False):
            axes.set_title(words, fontsize=8)
    named = [label for label in range(1, len(classes)) if len(classes) <= LISTED or label in shown][
        :LISTED
    ]
    colours = palette() / 255
    patches = [Patch(color=colours[k], label=classes[k].replace("$", r"\$")) for k in named]
    if IGNORED in shown:
        patches.append(Patch(color=colours[IGNORED], label="no true class"))
    if patches:
        figure.legend(handles=patches, loc="outside lower center", ncols=6, fontsize=8)
    return figure


def _within(true: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """Predicted classes inside the rows and columns that have true classes, none elsewhere."""
    known = true != IGNORED
    inside = np.ix_(*(_from_first_to_last(known.any(axis)) for axis in (1, 0)))
    found = np.full_like(pred, IGNORED)
    found[inside] = pred[inside]
    return found


def _from_first_to_last(known: np.ndarray) -> np.ndarray:
    """Indices from the first to the last true one."""
    indices = np.flatnonzero(known)
    return np.arange(indices[0], indices[-1] + 1) if len(indices) else indices


def _of_size(mask: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Repeat the cells of a mask up to the size of its image."""
    rows, columns = (np.arange(length) * cells // length for length, cells in
                     zip(size, mask.shape, strict=True))  # fmt: skip
    return mask[np.ix_(rows, columns)].astype(np.uint8)
