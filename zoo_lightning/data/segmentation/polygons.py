"""Masks of polygons in COCO's JSON, drawn when they are needed."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo_lightning.data.annotation_text import LARGEST_NUMBER, image_name, require_file
from zoo_lightning.data.image_files import one_form
from zoo_lightning.data.segmentation.label_files import check_size
from zoo_lightning.errors import DataError, nearest
from zoo_lightning.files.text import ANNOTATIONS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EXPECTED = "a JSON file of `images`, `annotations` with `segmentation`, and `categories`"

BACKGROUND = "background"
"""Class of the pixels outside of all annotations, with index 0."""


@dataclass(frozen=True)
class Shape:
    """Area of one annotation.

    Attributes:
        label: class index.
        polygons: corners ``(N, 2)`` of its polygons, x and y in pixels from the top left corner.
        runs: lengths of runs of pixels outside and inside in turn, down the columns, as COCO's
            uncompressed RLE has them; empty for polygons.
        runs_shape: height and width that the runs fill, if the file states them.
    """

    label: int
    polygons: tuple[np.ndarray, ...] = ()
    runs: tuple[int, ...] = ()
    runs_shape: tuple[int, ...] | None = None

    def draw(self, mask: np.ndarray) -> None:
        """Give the pixels of the area in a mask ``(H, W)`` the label."""
        if self.runs:
            inside = np.arange(len(self.runs)) % 2 == 1
            mask[np.repeat(inside, self.runs).reshape(mask.shape[::-1]).T] = self.label
        for corners in self.polygons:
            mask[filled(corners, *mask.shape)] = self.label


@dataclass(frozen=True)
class Shapes:
    """Mask of annotations.

    Attributes:
        place: file and image, for messages.
        shapes: areas in the order of the file; where they overlap, the later one counts.
        size: width and height of the image that the file states, pixels; ``None`` if it does not.
    """

    place: str
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None

    def read(self, size: tuple[int, int]) -> np.ndarray:
        """Draw the mask, ``(H, W)`` uint8, 0 outside of all areas.

        Args:
            size: width and height of the image as it is seen, pixels.

        Raises:
            DataError: the file states another size, or runs of pixels that do not fill the image.
        """
        check_size(self.place, self.size or size, size)
        mask = np.zeros(size[::-1], np.uint8)
        for shape in self.shapes:
            if shape.runs and sum(shape.runs) != mask.size:
                raise DataError(
                    f"{self.place}: an RLE has runs of {sum(shape.runs)} pixels, the image has "
                    f"{mask.size}; correct `counts`."
                )
            if shape.runs_shape not in (None, mask.shape):
                raise DataError(
                    f"{self.place}: the `size` of an RLE is {list(shape.runs_shape or ())}, "
                    f"expected height and width of the image, {list(mask.shape)}; correct `size` "
                    "and `counts`."
                )
            shape.draw(mask)
        return mask


def filled(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Find the pixels whose centres lie inside a polygon, by the even-odd rule.

    Args:
        corners: corners ``(N, 2)``, x and y in pixels, the origin at the top left corner of the top
            left pixel; parts outside of the image are cut off.
        height: height of the image, pixels.
        width: width of the image, pixels.

    Returns:
        Mask ``(height, width)`` bool.
    """
    crossings = np.zeros((height, width + 1), np.int64)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        # Rows whose centres lie between the ends of the edge.
        first, stop = (
            int(np.clip(np.ceil(y - 0.5), 0, height)) for y in (min(y0, y1), max(y0, y1))
        )
        if first >= stop:
            continue
        rows = np.arange(first, stop)
        x = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
        np.add.at(crossings, (rows, np.clip(np.ceil(x - 0.5), 0, width).astype(int)), 1)
    return np.cumsum(crossings[:, :width], axis=1) % 2 == 1


def category_names(path: Path) -> list[str]:
    """Names of the classes of a COCO file: ``background``, then its categories by their ids.

    Raises:
        DataError: the file is absent or not such a file, or two categories have one name.
    """
    names = list(_categories(_load(path), path).values())
    others = [name for name in names if name != BACKGROUND]
    if len(set(others)) < len(others):
        raise DataError(f"{path}: two categories have the same name; rename one: {names}.")
    return [BACKGROUND, *others]


def read_polygons(path: Path, classes: Sequence[str]) -> dict[str, Shapes]:
    """Read the masks of a COCO file.

    Args:
        path: annotation file.
        classes: names of all classes; those of the file's categories must be among them.

    Returns:
        Masks by image name; of images without annotations, too.

    Raises:
        DataError: naming the file and the annotation, for a category that is no class, an image
            without an entry, a malformed polygon, or a compressed RLE.
    """
    content = _load(path)
    index = {one_form(name): label for label, name in enumerate(classes)}
    labels = {}
    for number, name in _categories(content, path).items():
        if name not in index:
            raise DataError(
                f"{path}: category {name!r} is none of the classes, {', '.join(classes)}."
                f"{nearest(name, classes)} Rename it, or add it to `classes`."
            )
        labels[number] = index[name]
        if index[name] == 0 and name.casefold() != BACKGROUND:
            raise DataError(
                f"{path}: category {name!r} is class 0, as is every pixel outside of the "
                f"annotations; put {BACKGROUND} before the other names in `classes` or classes.txt."
            )
    images = _images(content, path)
    shapes: dict[Any, list[Shape]] = {number: [] for number in images}
    for annotation in content["annotations"]:
        known = annotation if isinstance(annotation, dict) else {}
        place = f"{path}, annotation {known.get('id')!r:.60}"
        image, category = known.get("image_id"), known.get("category_id")
        if not isinstance(image, int | str) or image not in shapes:
            raise DataError(f"{place}: no entry of `images` has its image_id {image!r:.60}.")
        if not isinstance(category, int | str) or category not in labels:
            raise DataError(f"{place}: no entry of `categories` has its id {category!r:.60}.")
        shapes[image].append(_shape(known.get("segmentation"), labels[category], place))
    return {
        name: Shapes(f"{path}, image {name}", tuple(shapes[number]), size)
        for number, (name, size) in images.items()
    }


def _load(path: Path) -> dict[str, Any]:
    require_file(path, EXPECTED)
    try:
        content = json.loads(path.read_text(**ANNOTATIONS))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read as JSON ({error}); expected {EXPECTED}.") from error
    lists = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(
        isinstance(content.get(key), list) for key in lists
    ):
        raise DataError(f"{path} lacks one of the lists {', '.join(lists)}; expected {EXPECTED}.")
    return content


def _categories(content: dict[str, Any], path: Path) -> dict[int | str, str]:
    """Names of the categories by id, in the order of the ids."""
    found: dict[int | str, str] = {}
    for each in content["categories"]:
        number, name = (
            (each.get("id"), each.get("name")) if isinstance(each, dict) else (None, None)
        )
        if not isinstance(number, int | str) or not isinstance(name, str) or number in found:
            raise DataError(
                f"{path}: a category is {each!r:.100}, expected `id` and `name`, each id once."
            )
        found[number] = one_form(name.strip())
    return dict(sorted(found.items(), key=lambda item: (isinstance(item[0], str), item[0])))


def _images(
    content: dict[str, Any], path: Path
) -> dict[int | str, tuple[str, tuple[int, int] | None]]:
    """Name and stated size of the images by id."""
    found: dict[int | str, tuple[str, tuple[int, int] | None]] = {}
    numbers: dict[str, int | str] = {}
    for each in content["images"]:
        known = each if isinstance(each, dict) else {}
        number, name = known.get("id"), known.get("file_name")
        if not isinstance(number, int | str) or not isinstance(name, str) or number in found:
            raise DataError(
                f"{path}: an entry of `images` is {each!r:.100}, expected `id` and `file_name`, "
                "each id once."
            )
        width, height = known.get("width"), known.get("height")
        named = one_form(image_name(name, f"{path}, image {number!r:.60}"))
        stated = None
        if isinstance(width, int | float) and isinstance(height, int | float):
            if width != round(width) or height != round(height):
                raise DataError(
                    f"{path}, image {number!r:.60}: `width` and `height` are {width} and {height}, "
                    "expected whole numbers of pixels; correct them."
                )
            stated = (round(width), round(height))
        if named in numbers:
            raise DataError(
                f"{path}: images {numbers[named]!r:.60} and {number!r:.60} have the same file_name "
                f"{named!r:.300}; leave one entry, with the annotations of both."
            )
        numbers[named] = number
        found[number] = named, stated
    return found


def _shape(segmentation: Any, label: int, place: str) -> Shape:
    """Area of an annotation.

    Raises:
        DataError: it has neither polygons nor an uncompressed RLE.
    """
    if isinstance(segmentation, dict):
        runs = segmentation.get("counts")
        if isinstance(runs, list) and all(isinstance(run, int) and run >= 0 for run in runs):
            shape = segmentation.get("size")
            stated = tuple(shape) if isinstance(shape, list) else None
            return Shape(label, runs=tuple(runs), runs_shape=stated)
        raise DataError(
            f"{place}: its segmentation is a compressed RLE, which is not read; write polygons or "
            "uncompressed counts, or save the masks as label PNGs (pycocotools' annToMask)."
        )
    polygons = segmentation if isinstance(segmentation, list) else []
    corners = []
    for polygon in polygons:
        numbers = polygon if isinstance(polygon, list) else []
        valid = all(isinstance(n, int | float) and abs(n) <= LARGEST_NUMBER for n in numbers)
        if len(numbers) < 6 or len(numbers) % 2 or not valid:
            raise DataError(
                f"{place}: a polygon is {polygon!r:.100}, expected x0, y0, x1, y1, ... of at least "
                "three corners, in pixels."
            )
        corners.append(np.array(numbers, dtype=np.float64).reshape(-1, 2))
    if not corners:
        raise DataError(
            f"{place} has no `segmentation`; expected polygons [[x0, y0, ...], ...]. Boxes alone "
            "are no masks: add polygons, or remove the annotation."
        )
    return Shape(label, tuple(corners))
