"""Figures of landmarks and of their errors, drawn without a display and without global state.

Marks and lines differ in shape and dash as well as in colour, so that they are told apart in grey
print. Functions return figures; ``save_figure`` writes them.
"""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zoo_lightning.metrics.functional import error_auc, failure_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


def plot_landmarks(
    images: ArrayLike,
    true: ArrayLike | None,
    pred: ArrayLike | None = None,
    errors: Sequence[float] | None = None,
    titles: Sequence[str] | None = None,
) -> Figure:
    """Grid of images with true points as circles and predicted points as crosses.

    Args:
        images: ``(B, H, W, 3)`` or ``(B, 3, H, W)``, uint8 or floats in [0, 1].
        true: ``(B, K, 2)`` in the images' pixels; ``None`` if unknown.
        pred: ``(B, K, 2)`` in the images' pixels.
        errors: normalised mean error of each image, percent, written above it.
        titles: written above each image.

    Returns:
        The figure, about 2 inches an image.

    Raises:
        ValueError: if there are no images or the lengths differ.
    """
    pixels = _channels_last(images)
    marks = [points for points in (true, pred, errors, titles) if points is not None]
    if not len(pixels) or any(len(points) != len(pixels) for points in marks):
        raise ValueError(
            f"{len(pixels)} images with {[len(points) for points in marks]} points, errors or "
            "titles; expected as many of each as images, and at least one."
        )
    columns = min(math.ceil(math.sqrt(len(pixels))), 8)
    rows = math.ceil(len(pixels) / columns)
    figure = _figure(2.1 * columns, 2.3 * rows + 0.3)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for i, axes in enumerate(grid[: len(pixels)]):
        height, width = pixels.shape[1:3]
        # Coordinates have their origin at the pixel's corner, as everywhere in the package.
        axes.imshow(pixels[i], extent=(0, width, height, 0), interpolation="nearest")
        if true is not None:
            _mark(axes, true[i], "o", "true")
        if pred is not None:
            _mark(axes, pred[i], "x", "predicted")
        axes.set(xlim=(0, width), ylim=(height, 0))
        words = [] if titles is None else [str(titles[i])]
        words += [] if errors is None else [f"{float(errors[i]):.1f} %"]
        axes.set_title("  ".join(words), fontsize=8)
    handles, labels = grid[0].get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=2, facecolor="0.6")
    return figure


def _mark(axes: Axes, points: ArrayLike, marker: str, label: str) -> None:
    x, y = np.asarray(points, dtype=float).T
    if marker == "o":
        # A dark ring around a light one stands out on any skin and any background.
        size = 4.5 if len(x) < 30 else 3
        axes.plot(x, y, "o", mfc="none", mec="black", mew=1.6, ms=size)
        axes.plot(x, y, "o", mfc="none", mec="white", mew=0.8, ms=size, label=label)
    else:
        axes.plot(x, y, "x", color="black", mew=1.8, ms=4)
        axes.plot(x, y, "x", color="#ffb000", mew=0.9, ms=3.6, label=label)


def _channels_last(images: ArrayLike) -> np.ndarray:
    pixels = np.asarray(images)
    if pixels.ndim != 4 or 3 not in (pixels.shape[1], pixels.shape[3]):
        raise ValueError(f"Expected images (B, H, W, 3) or (B, 3, H, W), found {pixels.shape}.")
    if pixels.shape[3] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    return pixels if pixels.dtype == np.uint8 else np.clip(pixels.astype(float), 0, 1)


def plot_error_curve(errors: Mapping[str, ArrayLike], threshold: float = 0.1) -> Figure:
    """Cumulative error curves, with area under the curve and failure rate in the legend.

    Args:
        errors: for each label the images' errors ``(N,)``, fractions of the normalising distance.
        threshold: largest error shown; area and failure rate refer to it.

    Raises:
        ValueError: if there are no curves, or no errors for one of them.
    """
    if not errors or any(np.size(values) == 0 for values in errors.values()):
        raise ValueError("Nothing to plot: give at least one label with at least one error.")
    figure = _figure(5.2, 3.8)
    axes = figure.subplots()
    for i, (label, values) in enumerate(errors.items()):
        nme = torch.as_tensor(np.asarray(values, dtype=float))
        x, y = _steps(nme.numpy(), threshold)
        auc, failures = float(error_auc(nme, threshold)), float(failure_rate(nme, threshold))
        axes.plot(
            100 * x,
            100 * y,
            linestyle=_DASHES[i % len(_DASHES)],
            drawstyle="steps-post",
            label=f"{label}: AUC {auc:.3f}, failures {100 * failures:.1f} %",
        )
    axes.set(
        xlim=(0, 100 * threshold),
        ylim=(0, 100),
        xlabel="normalised mean error of the image (%)",
        ylabel="images with at most this error (%)",
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize=8)
    return figure


def _steps(nme: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the curve steps up, and how high it is from there on."""
    below = np.sort(nme[nme <= threshold])
    heights = np.arange(1, len(below) + 1) / len(nme)
    last = heights[-1] if len(below) else 0.0
    return np.r_[0.0, below, threshold], np.r_[0.0, heights, last]


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure so that a reader sees the old file or the new one, never half of one.

    Args:
        figure: to write.
        path: with the format's suffix; its folder is made if it is absent.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".figure-", suffix=path.suffix)
    os.close(handle)
    try:
        figure.savefig(temporary)
        os.chmod(temporary, 0o644)  # mkstemp makes files that only their owner can read
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
