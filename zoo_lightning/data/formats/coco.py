"""COCO keypoints: a JSON file of ``images`` and ``annotations``, the latter a face each.

Coordinates are taken as they are: where a writer counted pixels from 0 at their centres, all points
lie half a pixel further to the top left here, in training and testing alike.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.data.formats.text import LARGEST_NUMBER, image_name, require_file
from zoo_lightning.data.landmark_table import LandmarkTable
from zoo_lightning.errors import DataError

EXPECTED = "a JSON file of `images`, `annotations` and `categories`"


def read_coco_num_points(path: str | Path) -> int:
    """Number of keypoints K, from the first category or annotation that has any.

    Raises:
        DataError: if the file is absent, no COCO file, or without keypoints.
    """
    return _num_points(_load(Path(path)), path)


def read_coco(path: str | Path) -> LandmarkTable:
    """Read a face per annotation; those whose ``num_keypoints`` is 0 are left out and counted.

    A face's square has the centre and the longer side of its ``bbox``.

    Raises:
        DataError: naming the file and the annotation's id, for an absent image, keypoints that are
            not ``[x, y, v]`` of K points, visibilities that contradict ``num_keypoints``, no
            labelled point at all, an empty box, or boxes of some faces only.
    """
    content = _load(Path(path))
    num_points = _num_points(content, path)
    files = _image_names(content, path)
    names, values, boxes, left_out = [], [], [], 0
    for annotation in content["annotations"]:
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
    return LandmarkTable(
        names,
        table[..., :2].astype(np.float32),
        visible=table[..., 2].astype(np.uint8),
        regions=None if without else np.array(boxes),
    )


def _load(path: Path) -> dict[str, Any]:
    require_file(path, EXPECTED)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON text ({error}); expected {EXPECTED}.") from error
    for key in ("images", "annotations"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise DataError(f"{path} has no list `{key}`; expected {EXPECTED}.")
    return content


def _num_points(content: dict[str, Any], path: str | Path) -> int:
    categories = content.get("categories")
    for entry in categories if isinstance(categories, list) else ():
        if isinstance(entry, dict) and isinstance(entry.get("keypoints"), list):
            count = len(entry["keypoints"])
            if count:
                return count
    for entry in content["annotations"]:
        if isinstance(entry, dict) and isinstance(entry.get("keypoints"), list):
            count = len(entry["keypoints"]) // 3
            if count:
                return count
    raise DataError(f"{path} has no `keypoints`, neither in `categories` nor in `annotations`.")


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
