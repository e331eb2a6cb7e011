"""Predictions as files: CSV or JSON lines, written as they come, and pictures with points."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ImageDraw

from zoo_lightning.data.images import open_rgb
from zoo_lightning.deployment.manifest import Manifest
from zoo_lightning.predicting.predictor import Prediction
from zoo_lightning.whole_files import whole_file

FORMATS = ("csv", "jsonl")

Write = Callable[[Prediction], None]


def writer(stream: IO[str], kind: str, manifest: Manifest, top: int) -> Write:
    """Begin a file of predictions.

    Args:
        stream: open for writing, ``newline=""``.
        kind: ``csv``: of classes ``image,class_1,probability_1,...``; of points
            ``image,x0,y0,x1,y1,...``, the layout that landmarks are trained from. ``jsonl``: an
            object a line, ``image`` with ``classes`` or ``points``.
        manifest: of the model.
        top: classes to name, the likeliest first.

    Returns:
        What writes a prediction.
    """
    classes = manifest.output.get("classes") or []
    top = min(top, len(classes))
    if kind == "jsonl":
        return lambda each: stream.write(json.dumps(_object(each, classes, top)) + "\n") and None
    table = csv.writer(stream)
    if manifest.task == "landmarks":
        count = manifest.output["num_points"]
        header = [f"{axis}{k}" for k in range(count) for axis in "xy"]
    else:
        header = [f"{what}_{k + 1}" for k in range(top) for what in ("class", "probability")]
    table.writerow(["image", *header])
    return lambda each: table.writerow([each.item.name, *_cells(each, classes, top)]) and None


def likeliest(each: Prediction, classes: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The ``top`` likeliest classes and their probabilities."""
    order = np.argsort(-each.probabilities, kind="stable")[:top]
    return [(classes[i], float(each.probabilities[i])) for i in order]


def _cells(each: Prediction, classes: Sequence[str], top: int) -> list[str]:
    if each.points is not None:
        return [f"{value:.3f}" for value in each.points.flatten()]
    pairs = likeliest(each, classes, top)
    return [cell for name, share in pairs for cell in (name, f"{share:.6f}")]


def _object(each: Prediction, classes: Sequence[str], top: int) -> dict[str, Any]:
    found: dict[str, Any] = {"image": each.item.name}
    if each.item.box is not None:
        found["box"] = list(each.item.box)
    if each.points is not None:
        return found | {"points": np.round(each.points, 3).tolist()}
    pairs = likeliest(each, classes, top)
    return found | {"classes": [{"class": n, "probability": round(p, 6)} for n, p in pairs]}


def draw_points(each: Prediction, path: Path) -> None:
    """Write an image with its points: light rings in dark ones, which any background shows.

    Args:
        each: with points.
        path: of the picture, a ``.png``.
    """
    image = open_rgb(each.item.path, upright=True)
    # Points of a small image would hide it.
    scale = max(1, round(256 / max(image.size)))
    image = image.resize((image.width * scale, image.height * scale))
    radius = max(image.size) / 128
    draw = ImageDraw.Draw(image)
    for x, y in each.points * scale:
        for extra, colour in ((1, "black"), (0, "#ffb000")):
            reach = radius + extra
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=1)
    with whole_file(path) as part:
        image.save(part, format="PNG")
