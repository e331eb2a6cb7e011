"""Normalisation distances of faces, by which errors are divided, in original pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoo_lightning.data.landmarks.schemes import LandmarkScheme, check_groups
from zoo_lightning.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from zoo_lightning.data.landmarks.schemes import Groups
    from zoo_lightning.data.landmarks.table import LandmarkTable

MEANINGS = {
    "interocular": "between the eyes",
    "interpupil": "between the pupils",
    "box": "sqrt(width * height) of the box around the points",
    "diagonal": "diagonal of the box around the points",
    "height": "height of the box around the points",
    "given": "that comes with the data",
    "custom": "of `distance_between`",
}
"""All normalisations, in the order in which they are listed."""


def normalizations_of(
    scheme: LandmarkScheme,
    given: bool = False,
    between: Groups | None = None,
    chosen: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Names of the normalisation distances that are available, or of those chosen.

    Args:
        scheme: scheme of the points.
        given: whether the annotations contain a normalisation distance.
        between: the user's own two groups of indices.
        chosen: names to keep; ``None`` keeps all.

    Raises:
        ConfigError: a chosen distance does not exist for these data, or none is chosen.
    """
    absent = {
        "interocular": scheme.eyes is None,
        "interpupil": scheme.pupils is None,
        "given": not given,
        "custom": between is None,
    }
    available = tuple(name for name in MEANINGS if not absent.get(name, False))
    if chosen is None:
        return available
    unknown = [name for name in chosen if name not in available]
    if unknown or not chosen:
        found = repr(unknown[0]) if unknown else "none"
        raise ConfigError(
            f"`normalizations` names {found}; these data have {', '.join(available)}."
            f"{nearest(unknown[0], available) if unknown else ''}"
        )
    return tuple(name for name in available if name in chosen)


def groups_between(num_points: int, between: Sequence[Sequence[int]] | None) -> Groups | None:
    """Check the user's own two groups of points, the option ``distance_between``.

    Raises:
        ConfigError: if they are not two groups of some of the K points.
    """
    if between is None:
        return None
    return check_groups("distance_between", between, num_points)


def group_distance(points: np.ndarray, groups: Groups) -> np.ndarray:
    """Distance between the means of two groups of points.

    Args:
        points: ``(..., K, 2)``.
        groups: two groups of indices.

    Returns:
        ``(...)`` float32.
    """
    first, second = (points[..., list(group), :].mean(-2) for group in groups)
    return np.linalg.norm(first - second, axis=-1).astype(np.float32)


def tight_box(points: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest coordinates of the counted points.

    Args:
        points: ``(N, K, 2)``.
        counted: ``(N, K)`` bool.

    Returns:
        Two arrays ``(N, 2)``; infinite where no point counts.
    """
    chosen = counted[..., None]
    low = np.where(chosen, points, np.inf).min(-2)
    return low, np.where(chosen, points, -np.inf).max(-2)


def face_distances(
    table: LandmarkTable,
    counted: np.ndarray,
    scheme: LandmarkScheme,
    names: Sequence[str],
    between: Groups | None = None,
) -> dict[str, np.ndarray]:
    """Compute normalisation distances of each face, by name.

    Args:
        table: annotations of N faces.
        counted: ``(N, K)`` bool, the points that the box is drawn around.
        scheme: scheme of the points, which defines eyes and pupils.
        names: names of the distances to compute.
        between: groups of points of the distance ``custom``.

    Returns:
        ``(N,)`` float32 each; NaN where a point that is needed is not labelled.

    Raises:
        DataError: a distance is 0 in an image, or unknown in all images; names the image.
    """
    known = {"interocular": scheme.eyes, "interpupil": scheme.pupils, "custom": between}
    groups = {name: pair for name, pair in known.items() if pair is not None}
    low, high = tight_box(table.points, counted)
    width, height = (high - low).T
    boxes = {"box": np.sqrt(width * height), "diagonal": np.hypot(width, height), "height": height}
    labelled = np.where(table.labelled[..., None], table.points, np.nan)
    distances = {}
    for name in names:
        if name in groups:
            distances[name] = group_distance(labelled, groups[name])
        else:
            distances[name] = np.asarray(boxes.get(name, table.sizes), np.float32)
    faulty = {}
    for name, values in distances.items():
        unknown = np.isnan(values)
        faulty[name] = unknown if unknown.all() else ~(unknown | (values > 0))
    usable = [name for name in names if not faulty[name].any()]
    for name in names:
        if name not in usable:
            unusable = faulty[name]
            row = int(np.argmax(unusable))
            place = f"{table.names[row]!r} ({int(unusable.sum())} of {len(table)} faces)"
            raise DataError(_unusable(name, place, distances[name][row], usable))
    return distances


def unmeasured(distances: Mapping[str, np.ndarray], faces: str) -> str:
    """Format a warning about faces without a normalisation distance, and so without an error.

    Args:
        distances: result of :func:`face_distances`.
        faces: description of the faces, for the line.

    Returns:
        The warning; empty if all faces have all distances.
    """
    lacking = {name: int(np.isnan(values).sum()) for name, values in distances.items()}
    if not any(lacking.values()):
        return ""
    number = len(next(iter(distances.values())))
    found = [
        f"{count} of {number} lack points of `{name}` ({MEANINGS[name]})"
        for name, count in lacking.items()
        if count
    ]
    return f"{faces}: {', '.join(found)}; errors divided by these are of the other faces."


def _unusable(name: str, place: str, distance: float, usable: Sequence[str]) -> str:
    found = "unknown, as points are not labelled" if np.isnan(distance) else f"{distance:g} pixels"
    hint = ""
    if usable:
        hint = f", or leave `{name}` out (--data.normalizations '[{', '.join(usable)}]'"
        hint += f" --model.normalization {usable[0]})"
    return (
        f"The distance `{name}` ({MEANINGS[name]}) is {found} in {place}: the error cannot be "
        f"normalised by it; correct or remove that annotation{hint}."
    )
