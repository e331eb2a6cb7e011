"""Draw faces with their landmarks, and error curves; create and save figures.

Nothing here needs a display or changes matplotlib's global state. Marks and lines differ in shape
and dash as well as in colour, so that they can be distinguished in grey print. Functions return
figures; ``save_figure`` writes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.metrics.functional import error_auc, failure_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Sized

    from matplotlib.axes import Axes
    from numpy.typing import ArrayLike

Batch: TypeAlias = "np.ndarray | Sequence[ArrayLike]"
"""Array with a batch dimension first, or a sequence of one array per image."""

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))


@dataclass(frozen=True)
class Faces:
    """Row of :func:`plot_ranked_faces`: images with their points and errors.

    Args:
        images: images ``(B, H, W, 3)`` or ``(B, 3, H, W)``, uint8 or floats in [0, 1].
        true: true points ``(B, K, 2)`` in the images' pixels.
        pred: predicted points ``(B, K, 2)`` in the images' pixels.
        errors: normalised mean error of each image, percent.
        visible: bool ``(B, K)``, points that count; ``None`` counts all.
    """

    images: Batch
    true: Batch
    pred: Batch
    errors: Sequence[float]
    visible: Batch | None = None


def plot_landmarks(
    images: Batch,
    true: Batch | None,
    pred: Batch | None = None,
    errors: Sequence[float] | None = None,
    titles: Sequence[str] | None = None,
    visible: Batch | None = None,
) -> Figure:
    """Draw a grid of images with true points as circles and predicted points as crosses.

    Args:
        images: images ``(B, H, W, 3)`` or ``(B, 3, H, W)``, uint8 or floats in [0, 1].
        true: true points ``(B, K, 2)`` in the images' pixels; ``None`` if unknown.
        pred: predicted points ``(B, K, 2)`` in the images' pixels; all of them are drawn.
        errors: normalised mean error of each image, percent, written above it.
        titles: text written above each image.
        visible: bool ``(B, K)``; true points that do not count get no circle.

    Returns:
        The figure, about 2 inches an image.

    Raises:
        ValueError: if there are no images or the lengths differ.
    """
    pixels = channels_last(images)
    given: list[Sized | None] = [true, pred, errors, titles, visible]
    marks = [each for each in given if each is not None]
    _check_lengths(pixels, marks)
    columns = min(math.ceil(math.sqrt(len(pixels))), 8)
    rows = math.ceil(len(pixels) / columns)
    titled = titles is not None or errors is not None
    figure = new_figure(2.1 * columns, (2.3 if titled else 2.1) * rows + 0.4)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for i, axes in enumerate(grid[: len(pixels)]):
        shown = slice(None) if visible is None else np.asarray(visible[i], dtype=bool)
        _draw_face(
            axes,
            pixels[i],
            None if true is None else np.asarray(true[i], dtype=float)[shown],
            None if pred is None else np.asarray(pred[i], dtype=float),
        )
        words = [] if titles is None else [str(titles[i])]
        words += [] if errors is None else [f"{float(errors[i]):.1f} %"]
        axes.set_title("  ".join(words), fontsize=8)
    _point_legend(figure, grid[0])
    return figure


def plot_ranked_faces(best: Faces, median: Faces, worst: Faces) -> Figure:
    """Draw three rows of faces, with the smallest, median and largest errors.

    A thin line joins each counted true point to its prediction, because in the worst faces they are
    too far apart to be paired by eye.

    Args:
        best: faces with the smallest errors.
        median: faces with errors around the median.
        worst: faces with the largest errors.

    Returns:
        The figure, about 2 inches an image.

    Raises:
        ValueError: if a row has no images or its lengths differ.
    """
    rows = {"best": best, "median": median, "worst": worst}
    columns = max(len(faces.errors) for faces in rows.values())
    figure = new_figure(2.1 * columns + 0.3, 2.3 * len(rows) + 0.3)
    grid = figure.subplots(len(rows), max(columns, 1), squeeze=False)
    for row, (label, faces) in zip(grid, rows.items(), strict=True):
        pixels = channels_last(faces.images)
        _check_lengths(pixels, [faces.true, faces.pred, faces.errors])
        for axes in row[len(pixels) :]:
            axes.set_axis_off()
        for i, axes in enumerate(row[: len(pixels)]):
            true, pred = (np.asarray(each[i], dtype=float) for each in (faces.true, faces.pred))
            if faces.visible is not None:
                counted = np.asarray(faces.visible[i], dtype=bool)
                true, pred = true[counted], pred[counted]
            _draw_face(axes, pixels[i], true, pred, joined=True)
            axes.set_title(f"{float(faces.errors[i]):.1f} %", fontsize=9)
        row[0].set_ylabel(label, fontsize=11)
    _point_legend(figure, grid[0, 0])
    return figure


def _check_lengths(pixels: np.ndarray, others: Sequence[Sized]) -> None:
    if not len(pixels) or any(len(other) != len(pixels) for other in others):
        raise ValueError(
            f"{len(pixels)} images with {[len(other) for other in others]} points, errors, titles "
            "or masks; expected as many of each as images, and at least one."
        )


def _draw_face(
    axes: Axes,
    pixels: np.ndarray,
    true: np.ndarray | None,
    pred: np.ndarray | None,
    joined: bool = False,
) -> None:
    """One image and its points, without ticks and frame."""
    draw_image(axes, pixels)
    if joined and true is not None and pred is not None:
        lines = list(np.stack([true, pred], axis=1))
        axes.add_collection(LineCollection(lines, colors="black", linewidths=1.4))
        axes.add_collection(LineCollection(lines, colors="white", linewidths=0.6))
    if true is not None:
        # A dark ring around a light one stands out on any skin and any background.
        size = 4.5 if len(true) < 30 else 2.7
        axes.plot(*true.T, "o", mfc="none", mec="black", mew=1.2, ms=size)
        axes.plot(*true.T, "o", mfc="none", mec="white", mew=0.6, ms=size, label="true")
    if pred is not None:
        size = 4 if len(pred) < 30 else 2.7
        axes.plot(*pred.T, "x", color="black", mew=1.5, ms=size + 0.4)
        axes.plot(*pred.T, "x", color="#ffb000", mew=0.7, ms=size, label="predicted")


def draw_image(
    axes: Axes,
    pixels: np.ndarray,
    cmap: str | None = None,
    vmin: float | None = None,
    vmax: float | None = None,
) -> None:
    """Draw an image such that coordinate (0, 0) is the corner of its first pixel.

    Args:
        axes: axes to draw on.
        pixels: image ``(H, W, 3)``, or ``(H, W)`` for a colour map.
        cmap: name of the colour map.
        vmin: value of the colour map's first colour.
        vmax: value of the colour map's last colour.
    """
    height, width = pixels.shape[:2]
    axes.imshow(
        pixels,
        extent=(0, width, height, 0),
        interpolation="nearest",
        cmap=cmap,
        vmin=vmin,
        vmax=vmax,
    )
    axes.set(xlim=(0, width), ylim=(height, 0), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _point_legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(
            handles,
            labels,
            loc="outside lower center",
            ncols=2,
            markerscale=2,
            facecolor="0.25",  # the marks are made for photographs, not for white paper
            labelcolor="white",
        )


def channels_last(images: ArrayLike | Batch) -> np.ndarray:
    """Convert images to ``(B, H, W, 3)``, uint8 or floats in [0, 1].

    Raises:
        ValueError: they are neither ``(B, H, W, 3)`` nor ``(B, 3, H, W)``.
    """
    pixels = np.asarray(images)
    if pixels.ndim != 4 or 3 not in (pixels.shape[1], pixels.shape[3]):
        raise ValueError(f"Expected images (B, H, W, 3) or (B, 3, H, W), found {pixels.shape}.")
    if pixels.shape[3] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    return pixels if pixels.dtype == np.uint8 else np.clip(pixels.astype(float), 0, 1)


def plot_error_curve(errors: Mapping[str, ArrayLike], threshold: float = 0.1) -> Figure:
    """Draw cumulative error curves, with area under the curve and failure rate in the legend.

    Areas are Simpson sums, as in :func:`~zoo_lightning.metrics.functional.error_auc`.

    Args:
        errors: errors ``(N,)`` of the images by label, fractions of the normalisation distance.
        threshold: largest error shown, a fraction; threshold of area and failure rate.

    Raises:
        ValueError: if there are no curves, or no errors for one of them.
    """
    if not errors or any(np.size(values) == 0 for values in errors.values()):
        raise ValueError("Nothing to plot: give at least one label with at least one error.")
    beside = len(errors) > 3  # where a legend inside would hide curves
    figure = new_figure(8.2 if beside else 5.2, 3.8)
    axes = figure.subplots()
    for i, (label, values) in enumerate(errors.items()):
        nme = torch.as_tensor(np.asarray(values, dtype=float))
        x, y = _steps(nme.numpy(), threshold)
        auc, failures = float(error_auc(nme, threshold)), float(failure_rate(nme, threshold))
        axes.plot(
            100 * x,
            100 * y,
            linestyle=_DASHES[i % len(_DASHES)],
            linewidth=1.8 if i < len(_DASHES) else 0.9,
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
    if beside:
        figure.legend(loc="outside right upper", fontsize=8, handlelength=3.5)
    else:
        axes.legend(loc="best", fontsize=8, handlelength=3)
    return figure


def _steps(nme: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Where the curve steps up, and how high it is from there on."""
    below = np.sort(nme[nme <= threshold])
    heights = np.arange(1, len(below) + 1) / len(nme)
    last = heights[-1] if len(below) else 0.0
    return np.r_[0.0, below, threshold], np.r_[0.0, heights, last]


def new_figure(width: float, height: float) -> Figure:
    """Create an empty figure without pyplot.

    Args:
        width: width, inches.
        height: height, inches.
    """
    figure = Figure(figsize=(width, height), layout="constrained", dpi=160)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file atomically.

    Args:
        figure: figure to write.
        path: path whose suffix is the format; its folder is created if it is absent.
    """
    path = Path(path)
    with atomic_file(path) as part:
        figure.savefig(part, format=path.suffix.removeprefix("."))
