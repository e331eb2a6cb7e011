"""The distances that errors are divided by, of each face, in pixels of the original image."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from zoo_lightning.data.schemes import LandmarkScheme, check_groups
from zoo_lightning.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo_lightning.data.landmark_table import LandmarkTable
    from zoo_lightning.data.schemes import Groups

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
    """Which distances some data have.

    Args:
        scheme: of the points.
        given: whether a distance comes with the data.
        between: two groups of indices of the user's own.
        chosen: those to keep; ``None`` keeps all.

    Raises:
        ConfigError: if a chosen one does not exist for these data, or none is chosen.
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
    """The user's own two groups of points, checked.

    Raises:
        ConfigError: if they are not two groups of some of the K points.
    """
    if between is None:
        return None
    groups = tuple(tuple(group) for group in between)
    check_groups("distance_between", groups, num_points)
    return groups


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
    """Distances of each face by the normalisations' names.

    Args:
        table: N faces.
        counted: ``(N, K)`` bool, the points that the box is drawn around.
        scheme: says which points are the eyes and pupils.
        names: of the distances to compute.
        between: the groups of ``custom``.

    Returns:
        ``(N,)`` float32 each; NaN where a point that is needed is not labelled.

    Raises:
        DataError: naming an image in which a distance is 0 or unknown.
    """
    groups = {"interocular": scheme.eyes, "interpupil": scheme.pupils, "custom": between}
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
        unusable = ~(distances[name] > 0)
        if unusable.any():
            row = int(np.argmax(unusable))
            raise DataError(_unusable(name, table.names[row], distances[name][row], names))
    return distances


def _unusable(name: str, image: str, distance: float, names: Sequence[str]) -> str:
    found = "unknown, as points are not labelled" if np.isnan(distance) else f"{distance:g} pixels"
    others = ", ".join(other for other in names if other != name)
    mend = f", or leave `{name}` out (--data.normalizations '[{others}]')" if others else ""
    return (
        f"The distance `{name}` ({MEANINGS[name]}) is {found} in {image!r}: its error cannot be "
        f"normalised by it; correct or remove that annotation{mend}."
    )
