"""Pictures of a run folder as ``data:`` addresses, so that a report needs no file beside it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from zoo_lightning.reports.contents import Picture

LARGEST = 400_000
"""Bytes from which a picture is stored smaller than it is on the disk."""

WIDEST = 1600
"""Pixels to which larger pictures are scaled down."""

TITLES = {
    "confusion": "Confusions: true classes by predicted ones",
    "label_scores": "Average precision of each label",
    "best_masks": "Best masks of the test, by the image's intersection over union",
    "worst_masks": "Worst masks of the test, by the image's intersection over union",
    "mistakes": "The most confident mistakes",
    "ranked_faces": "Best, median and worst faces of the test",
    "test_faces": "Best, median and worst faces of the test",
    "scatter": "Predicted by true numbers of the test",
    "worst": "Images of the test with the largest errors",
    "val_faces": "Faces of the validation",
    "val_images": "Images of the validation",
    "heatmaps": "Heat maps",
    "test_heatmaps": "Heat maps",
    "error_curve": "Cumulative error of the test faces",
    "point_errors": "Error of each point",
    "gates": "Gates: layers by sources",
    "gates_over_time": "Gates over the training",
    "decision": "The result against the other candidates",
    "parallel-coordinates": "Trials: a line for each, the three best in black",
    "importances": "Importance of the parameters",
}
"""Titles of pictures by the stem of their file; others are named after it."""


def pictures_in(
    folder: Path, titles: Mapping[str, str] = TITLES
) -> tuple[list[Picture], list[str]]:
    """Read the pictures of a folder.

    Args:
        folder: folder with PNG files; need not exist.
        titles: titles by the stem of the file.

    Returns:
        The pictures in the order of their names, and a line for each file that is no picture.
    """
    found, lines = [], []
    for path in sorted(folder.glob("*.png")):
        title = titles.get(path.stem, path.stem.replace("_", " ").replace("-", " ").capitalize())
        try:
            found.append(_embedded(path, title))
        except Exception as error:  # Pillow raises whatever a damaged file leads it to
            lines.append(f"{path.name} cannot be read as a picture ({type(error).__name__})")
    return found, lines


def _embedded(path: Path, title: str) -> Picture:
    """Picture of a PNG file, stored as WebP where the file is large."""
    content, kind = path.read_bytes(), "png"
    with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
        image.load()
        width, height = image.size
        if len(content) > LARGEST:
            smaller = image.convert("RGBA" if "A" in image.getbands() else "RGB")
            smaller.thumbnail((WIDEST, WIDEST * 4))
            stream = io.BytesIO()
            smaller.save(stream, "webp", quality=85)
            content, kind = stream.getvalue(), "webp"
    address = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(address, title, width, height, path.stem)
