"""Reader of COCO keypoint files, in which each annotation of one category is a face.

Coordinates are taken as they are: where a writer counted pixels from 0 at their centres, all points
lie half a pixel further to the top left here, in training and testing alike.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.data.annotation_text import LARGEST_NUMBER, image_name, require_file
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.errors import ConfigError, DataError, nearest
from zoo_lightning.files.text import ANNOTATIONS

LEAST_BOXES = 5
"""Number of boxes from which on the meaning of their numbers is checked."""

Category: TypeAlias = int | float | str
"""Types of a category's id; some writers make numbers of it that are no integers."""

EXPECTED = "a JSON file of `images`, `annotations` and `categories`"


class FaceCategory(NamedTuple):
    """The category whose annotations are faces.

    Attributes:
        name: name of the category; ``None`` in a file without categories.
        num_points: number of its keypoints, K.
        point_names: names of the keypoints; empty if the file has none.
    """

    name: str | None
    num_points: int
    point_names: tuple[str, ...]


def read_coco_category(path: str | Path, category: str | None = None) -> FaceCategory:
    """Find the category of the faces, and the number and names of its keypoints.

    Args:
        path: annotation file.
        category: name of the category; ``None`` takes the only one that has keypoints.

    Raises:
        DataError: the file is absent, not a COCO file or without keypoints, or several categories
            have keypoints and ``category`` is ``None``.
        ConfigError: no such category has keypoints.
    """
    content = _load(Path(path))
    name, ids = _category(content, path, category)
    return FaceCategory(name, _num_points(content, path, ids), _point_names(content, ids))


def read_coco(path: str | Path, category: str | None = None) -> LandmarkTable:
    """Read the annotations of one category of a COCO file, one face each.

    Annotations of other categories and those whose ``num_keypoints`` is 0 are left out; their
    number is logged. A face's square has the centre and the longer side of its ``bbox``.

    Args:
        path: annotation file.
        category: name of the category, see :func:`read_coco_category`.

    Raises:
        DataError: naming the file and the annotation's id, for an absent image, keypoints that are
            not ``[x, y, v]`` of K points, visibilities that contradict ``num_keypoints``, no
            labelled point at all, an empty box, or boxes of some faces only.
        ConfigError: no such category has keypoints.
    """
    content = _load(Path(path))
    category, ids = _category(content, path, category)
    num_points = _num_points(content, path, ids)
    files, stated_sizes = _image_names(content, path), _image_sizes(content)
    _report_others(content, path, category, ids)
    names, values, boxes, sides, sizes, left_out = [], [], [], [], [], 0
    for annotation in content["annotations"]:
        if not _is_of(annotation, ids):
            continue
        if not isinstance(annotation, dict):
            raise DataError(f"{path}: an entry of `annotations` is no object: {annotation!r:.60}.")
        image = annotation.get("image_id")
        place = f"{path}, annotation {annotation.get('id')!r:.60} of image {image!r:.60}"
        if not isinstance(image, int | str) or image not in files:
            raise DataError(f"{place}: no entry of `images` has this id; add or remove it.")
        keypoints = _keypoints(annotation, num_points, place)
        if keypoints is None:
            left_out += 1
            continue
        names.append(files[image])
        values.append(keypoints)
        boxes.append(_region(annotation["bbox"], place) if annotation.get("bbox") else None)
        sides.append(annotation.get("bbox"))
        sizes.append(stated_sizes[image])
    if not names:
        raise DataError(f"{path} has no annotation with labelled points; add one per face.")
    if left_out:
        rank_zero_info(
            f"{left_out} of {left_out + len(names)} annotations of {path} have no keypoints "
            "(`num_keypoints` 0); they are left out."
        )
    without = sum(box is None for box in boxes)
    if 0 < without < len(boxes):
        raise DataError(f"{path}: {without} of {len(boxes)} annotations have no `bbox`; add them.")
    table = np.array(values).reshape(len(names), num_points, 3)
    if not without:
        _refuse_corners(np.array(sides), table, path)
    return LandmarkTable(
        names,
        table[..., :2].astype(np.float32),
        visible=table[..., 2].astype(np.uint8),
        regions=None if without else np.array(boxes),
        point_names=_point_names(content, ids),
        image_sizes=np.array(sizes),
    )


def _load(path: Path) -> dict[str, Any]:
    require_file(path, EXPECTED)
    try:
        content = json.loads(path.read_text(**ANNOTATIONS))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON text ({error}); expected {EXPECTED}.") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path} has no list `{key}`; expected {EXPECTED}.")
    return content


def _categories(content: dict[str, Any]) -> list[dict[str, Any]]:
    found = content.get("categories")
    entries = found if isinstance(found, list) else []
    return [e for e in entries if isinstance(e, dict) and isinstance(e.get("id"), Category)]


def _names(content: dict[str, Any]) -> dict[Category, str]:
    """Names of the categories by their ids; the id itself where there is no name."""
    return {entry["id"]: str(entry.get("name", entry["id"])) for entry in _categories(content)}


def _category(
    content: dict[str, Any], path: str | Path, chosen: str | None
) -> tuple[str | None, set[Category] | None]:
    """Name and ids of the category that the faces are of; ``None`` where all annotations are."""
    entries, names = _categories(content), _names(content)
    used: set[Category] = set()
    for annotation in content["annotations"]:
        if isinstance(annotation, dict) and _has_keypoints(annotation):
            category = annotation.get("category_id")
            used |= {category} if isinstance(category, Category) else set()
    for each in used:
        names.setdefault(each, str(each))
    # A category that is only described is not what the annotations are of, if others are.
    able = used or {entry["id"] for entry in entries if _has_keypoints(entry)}
    options = sorted({names[each] for each in able})
    if chosen is not None and chosen not in options:
        raise ConfigError(
            f"{path} has no category {chosen!r} with keypoints; it has "
            f"{_listed(options)}.{nearest(chosen, options)} Set "
            "--data.category to one of them, the same in both files."
        )
    if not options:
        return None, None
    if chosen is None and len(options) > 1:
        raise DataError(
            f"{path} has several categories with keypoints, {_listed(options)}; name the one to "
            f"learn, such as --data.category={options[0]:.60}."
        )
    name = chosen or options[0]
    return name, {each for each, other in names.items() if other == name}


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(f"{name!r:.60}" for name in names[:10]) or "none") + more


def _has_keypoints(entry: dict[str, Any]) -> bool:
    return isinstance(entry.get("keypoints"), list) and bool(entry["keypoints"])


def _is_of(annotation: Any, ids: set[Category] | None) -> bool:
    """Whether an annotation belongs to some categories; one that names none belongs to all."""
    if ids is None or not isinstance(annotation, dict):
        return True
    category = annotation.get("category_id")
    return category is None or (isinstance(category, Category) and category in ids)


def _report_others(
    content: dict[str, Any], path: str | Path, category: str | None, ids: set[Category] | None
) -> None:
    """Log how many annotations of which other categories are left out."""
    names = _names(content)
    others = [each["category_id"] for each in content["annotations"] if not _is_of(each, ids)]
    if others:
        counts = Counter(f"{names.get(each, each)!r:.60}" for each in map(_plain, others))
        listed = ", ".join(f"{name} {count}" for name, count in counts.most_common(5))
        rank_zero_info(
            f"{len(others)} of {len(content['annotations'])} annotations of {path} are of other "
            f"categories than {category!r} ({listed}); they are left out."
        )


def _plain(category: Any) -> Category:
    return category if isinstance(category, Category) else str(category)


def _num_points(content: dict[str, Any], path: str | Path, ids: set[Category] | None) -> int:
    for entry in _categories(content):
        if _has_keypoints(entry) and (ids is None or entry["id"] in ids):
            return len(entry["keypoints"])
    for entry in content["annotations"]:
        if isinstance(entry, dict) and _has_keypoints(entry) and _is_of(entry, ids):
            return max(len(entry["keypoints"]) // 3, 1)
    raise DataError(f"{path} has no `keypoints`, neither in `categories` nor in `annotations`.")


def _point_names(content: dict[str, Any], ids: set[Category] | None) -> tuple[str, ...]:
    for entry in _categories(content):
        if _has_keypoints(entry) and (ids is None or entry["id"] in ids):
            names = entry["keypoints"]
            return tuple(names) if all(isinstance(name, str) for name in names) else ()
    return ()


def _image_sizes(content: dict[str, Any]) -> dict[int | str, tuple[int, int]]:
    """Width and height of the images by their ids, 0 where none is stated."""
    sizes = {}
    for entry in content["images"]:
        width, height = (entry.get(key) for key in ("width", "height"))
        stated = isinstance(width, int) and isinstance(height, int) and min(width, height) > 0
        sizes[entry["id"]] = (width, height) if stated else (0, 0)
    return sizes


def _image_names(content: dict[str, Any], path: str | Path) -> dict[int | str, str]:
    files = {}
    for entry in content["images"]:
        known = isinstance(entry, dict) and isinstance(entry.get("id"), int | str)
        if not known or not isinstance(entry.get("file_name"), str):
            raise DataError(
                f"{path}: an entry of `images` lacks `id` or `file_name`: {entry!r:.60}"
            )
        files[entry["id"]] = image_name(entry["file_name"], f"{path}, image {entry['id']!r:.60}")
    return files


def _keypoints(annotation: dict[str, Any], num_points: int, place: str) -> np.ndarray | None:
    """``(K, 3)``, or ``None`` for an annotation that says it has none."""
    claimed = annotation.get("num_keypoints")
    found = annotation.get("keypoints", [] if claimed == 0 else None)
    if claimed == 0 and not found:
        return None
    try:
        keypoints = np.array(found, np.float64)
    except (TypeError, ValueError, OverflowError):
        keypoints = np.array(np.nan)
    if keypoints.shape != (3 * num_points,) or not (np.abs(keypoints) <= LARGEST_NUMBER).all():
        there = f"{len(found)} values" if isinstance(found, list) else f"{found!r:.100}"
        raise DataError(
            f"{place}: `keypoints` is {there}, expected x, y, v of {num_points} points: "
            f"{3 * num_points} numbers."
        )
    keypoints = keypoints.reshape(num_points, 3)
    if not np.isin(keypoints[:, 2], (0, 1, 2)).all():
        raise DataError(f"{place}: a visibility is not 0 (no label), 1 (hidden) or 2 (visible).")
    labelled = int((keypoints[:, 2] > 0).sum())
    if claimed is not None and claimed != labelled:
        raise DataError(
            f"{place}: `num_keypoints` is {claimed!r:.60}, but {labelled} points have a visibility "
            "above 0; correct either."
        )
    if claimed == 0:
        return None
    if not labelled:
        raise DataError(f"{place}: no point is labelled (all v are 0); label or remove it.")
    return keypoints


def _refuse_corners(boxes: np.ndarray, keypoints: np.ndarray, path: str | Path) -> None:
    """Refuse boxes given as two corners, read as which all faces are in their upper left.

    Args:
        boxes: ``(N, 4)`` as they are in the file.
        keypoints: ``(N, K, 3)``.
        path: annotation file.

    Raises:
        DataError: nearly all points lie between the corners, and nearer to the middle of them than
            to that of boxes of x, y, width and height.
    """
    low, high = boxes[:, None, :2].astype(float), boxes[:, None, 2:].astype(float)
    margin = 0.02 * (high - low)
    points = keypoints[..., :2]
    between = ((points > low - margin) & (points < high + margin)).all(-1)
    between = (between | (keypoints[..., 2] == 0)).all(-1)
    # Where boxes begin near the images' corner, both readings are alike.
    begin = np.median(low[:, 0] / high[:, 0], axis=0)
    centres = np.where(keypoints[..., 2:] > 0, points, np.nan)
    centres = (np.nanmin(centres, axis=1) + np.nanmax(centres, axis=1)) / 2 - low[:, 0]
    as_corners, as_sizes = (
        np.abs(np.median(centres / side, axis=0) - 0.5).mean()
        for side in (np.maximum(high - low, 1e-9)[:, 0], high[:, 0])
    )
    if (
        len(boxes) >= LEAST_BOXES
        and between.mean() > 0.95
        and (begin > 0.2).all()
        and as_corners < as_sizes
    ):
        raise DataError(
            f"{path}: `bbox` is {boxes[0].tolist()}, which fits its face as left, top, right and "
            f"bottom, as do {between.sum()} of {len(boxes)} others; expected [x, y, width, height]."
        )


def _region(box: Any, place: str) -> list[float]:
    try:
        numbers = np.array(box, np.float64)
    except (TypeError, ValueError, OverflowError):
        numbers = np.array(np.nan)
    right = numbers.shape == (4,) and (np.abs(numbers) <= LARGEST_NUMBER).all()
    if not right or min(numbers[2:]) <= 0:
        raise DataError(
            f"{place}: `bbox` is {box!r:.100}, expected [x, y, width, height] with a width and "
            "height above 0."
        )
    left, top, width, height = numbers.tolist()
    return [left + width / 2, top + height / 2, max(width, height)]
