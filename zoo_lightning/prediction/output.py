"""Output of predictions: files of CSV or JSON lines, masks, and pictures of landmarks and masks."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import ImageDraw

from zoo_lightning.data.images import open_rgb
from zoo_lightning.data.multi_label.predicted import chosen_labels, label_cells, label_header
from zoo_lightning.data.segmentation.whole_images import areas_of
from zoo_lightning.data.values import ValueRange
from zoo_lightning.deployment.manifest import Manifest
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.prediction.inputs import Item
from zoo_lightning.prediction.predictor import Prediction

FORMATS = ("csv", "jsonl")

Write = Callable[[Prediction], None]


def writer(
    stream: IO[str],
    kind: str,
    manifest: Manifest,
    top: int,
    masks: Mapping[Item, str] | None = None,
) -> Write:
    """Begin a file of predictions, and return a function that writes one prediction to it.

    Args:
        stream: text file, opened for writing with ``newline=""``.
        kind: format, ``csv`` or ``jsonl``. CSV has the columns ``image,class_1,probability_1,...``
            for classes, ``image,labels,probability_NAME,...`` for labels (those that reach their
            thresholds, separated by ``;``, and the probability of each),
            ``image,x0,y0,x1,y1,...`` for landmarks, as :class:`~zoo_lightning.data.LandmarkCSV`
            reads them, ``image`` with a column for each target for numbers, as
            :class:`~zoo_lightning.data.ImageNumbers` reads them, and ``image,mask`` with the share
            of the image that each class has, such as ``area sky``, for masks. JSON lines have
            ``image`` with ``classes``, ``labels`` and ``probabilities``, ``points``, ``numbers``,
            or ``mask`` and ``areas``.
        manifest: manifest of the model.
        top: number of classes to write, the likeliest first.
        masks: names of the files of masks by image, for segmentation.
    """
    classes, files = manifest.output.get("classes") or [], masks or {}
    targets = manifest.output.get("targets") or []
    thresholds = manifest.output.get("thresholds")
    top = min(top, len(classes))

    def write_object(each: Prediction) -> None:
        found = _object(each, classes, top, thresholds)
        if each.numbers is not None:
            given = zip(targets, each.numbers, strict=True)
            found["numbers"] = {name: float(f"{number:.7g}") for name, number in given}
        if each.mask is not None:
            found["mask"] = files[each.item]
        stream.write(json.dumps(found) + "\n")

    if kind == "jsonl":
        return write_object
    table = csv.writer(stream)
    if manifest.task == "landmarks":
        count = manifest.output["num_points"]
        header = [f"{axis}{k}" for k in range(count) for axis in "xy"]
    elif manifest.task == "regression":
        header = targets
    elif manifest.task == "segmentation":
        header = ["mask", *(f"area {name}" for name in classes)]
    else:
        header = [f"{what}_{k + 1}" for k in range(top) for what in ("class", "probability")]
    table.writerow(label_header(classes) if thresholds else ["image", *header])

    def write_row(each: Prediction) -> None:
        if thresholds and each.probabilities is not None:
            cells = label_cells(each.probabilities.tolist(), thresholds, classes)
        else:
            cells = _cells(each, classes, top)
        name = [] if each.mask is None else [files[each.item]]
        table.writerow([each.item.name, *name, *cells])

    return write_row


def likeliest(each: Prediction, classes: Sequence[str], top: int) -> list[tuple[str, float]]:
    """Return the ``top`` likeliest classes with their probabilities; empty for other tasks.

    Args:
        each: prediction for an image.
        classes: names of all classes, in the order of the probabilities.
        top: largest number of classes to return.
    """
    if each.probabilities is None:
        return []
    order = np.argsort(-each.probabilities, kind="stable")[:top]
    return [(classes[i], float(each.probabilities[i])) for i in order]


def _cells(each: Prediction, classes: Sequence[str], top: int) -> list[str]:
    if each.points is not None:
        return [f"{value:.3f}" for value in each.points.flatten()]
    if each.numbers is not None:
        return [f"{value:.7g}" for value in each.numbers]
    if each.mask is not None:
        return [f"{area:.6f}" for area in areas_of(each.mask, len(classes))]
    pairs = likeliest(each, classes, top)
    return [cell for name, probability in pairs for cell in (name, f"{probability:.6f}")]


def _object(
    each: Prediction, classes: Sequence[str], top: int, thresholds: Sequence[float] | None
) -> dict[str, Any]:
    found: dict[str, Any] = {"image": each.item.name}
    if each.item.box is not None:
        found["box"] = list(each.item.box)
    if each.points is not None:
        return found | {"points": np.round(each.points, 3).tolist()}
    if each.numbers is not None:
        return found
    if thresholds and each.probabilities is not None:
        values = each.probabilities.tolist()
        rounded = {name: round(p, 6) for name, p in zip(classes, values, strict=True)}
        labels = chosen_labels(values, thresholds, classes)
        return found | {"labels": labels, "probabilities": rounded}
    if each.mask is not None:
        areas = np.round(areas_of(each.mask, len(classes)), 6).tolist()
        return found | {"areas": dict(zip(classes, areas, strict=True))}
    pairs = likeliest(each, classes, top)
    return found | {"classes": [{"class": n, "probability": round(p, 6)} for n, p in pairs]}


def draw_points(
    image_file: Path, points: np.ndarray, path: Path, values: ValueRange | None = None
) -> None:
    """Write a picture of an image with its landmarks, visible on light and dark backgrounds.

    Args:
        image_file: path of the image.
        points: x and y of each landmark ``(K, 2)``, in pixels of the image, turned as its EXIF data
            specify.
        path: path of the ``.png`` picture to write.
        values: values of the image that become 0 and 1; ``None`` estimates them, see
            :func:`~zoo_lightning.data.images.open_rgb`.
    """
    image = open_rgb(image_file, upright=True, values=values)
    # Rings would hide a small image.
    scale = max(1, round(256 / max(image.size)))
    image = image.resize((image.width * scale, image.height * scale))
    radius = max(image.size) / 128
    draw = ImageDraw.Draw(image)
    for x, y in points * scale:
        for extra, colour in ((1, "black"), (0, "#ffb000")):
            reach = radius + extra
            draw.ellipse((x - reach, y - reach, x + reach, y + reach), outline=colour, width=1)
    with atomic_file(path) as part:
        image.save(part, format="PNG")
