"""Plausibility checks of well-formed landmark annotations.

Each check looks at a whole part of the data, so that single odd faces raise no alarm. Annotations
that are almost certainly wrong raise an error, doubtful ones a warning. Nothing here reads files.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from zoo_lightning.data.landmarks.distances import tight_box
from zoo_lightning.data.landmarks.schemes import eyes_from_names, flip_from_names
from zoo_lightning.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from zoo_lightning.data.landmarks.schemes import LandmarkScheme
    from zoo_lightning.data.landmarks.table import LandmarkTable

LEAST_FACES = 5
"""Number of faces that a mean shape needs."""

UPRIGHT = 0.7
"""Fraction of all faces' extent that is in their mean shape, above which most faces are upright: at
least 0.95 in real sets, 0.77 of faces that are turned by up to 45 degrees, some 1/N for N faces
that are turned at random."""

MOST_TILTED = 70
"""Degrees by which the axis of a mean shape may be tilted, as few faces that are turned may be."""

MIRRORED = 0.25
"""Distance of a mean shape from its mirror image, in the shape's radii, up to which it is
symmetric: 0.2 or less even of 8 faces; 0.27 or more of faces that are all turned to one side."""

ASTRAY = 0.6
"""Such a distance from which on pairs are wrong: every wrong order of five points has 0.7."""

NO_PAIRS = 1.5
"""Such a distance from which on pairs are wrong even of faces turned to one side: at most 0.7 of
the faces in real sets that are turned furthest, 1.95 where x and y are exchanged."""

APART = 0.25
"""Distance from the box around the other points of a face, in its longer side, from which on a
place that several faces share is a marker."""

ALIGNED = 0.9
"""Fraction of the faces in which one point is at a place that no other point has, or near it, from
which on the faces may be aligned."""

FAR_APART = 1.0
"""As :data:`APART`, for a point by which faces may be aligned: the eyes of faces that are aligned
by them are 0.4 to 0.6 away from the other points."""

OFF = "--data.check_annotations=false takes them as they are"


class _Certain(str):
    """Finding that is almost certainly an error."""


def check_points(table: LandmarkTable, scheme: LandmarkScheme, source: Path) -> list[str]:
    """Check for markers of absent points, coinciding points, and a wrong order of points.

    Args:
        table: N faces.
        scheme: assumed scheme of the points.
        source: file of the table, for messages.

    Returns:
        Warnings.

    Raises:
        DataError: some points are almost certainly markers, or in another order than the scheme's.
    """
    return _sorted_out(
        source,
        _markers(table),
        _shared_places(table),
        _heaps(table),
        _point_names(table, scheme),
        _order(table, scheme),
    )


def check_squares(table: LandmarkTable, squares: np.ndarray, source: Path) -> list[str]:
    """Check that faces lie in their squares, are large enough and have a square of their own.

    Args:
        table: N faces.
        squares: ``(N, 3)`` centre x, centre y and side of what the network sees, original pixels.
        source: file of the table, for messages.

    Returns:
        Warnings.

    Raises:
        DataError: the squares are almost certainly not those of the faces.
    """
    return _sorted_out(
        source,
        _outside(table, squares),
        _in_one_quarter(table, squares),
        _too_small(table, squares),
        _twice(table, squares),
    )


def find_pairs(table: LandmarkTable) -> tuple[int, ...] | None:
    """Infer which points swap under mirroring from the mean shape of upright faces.

    Returns:
        A self-inverse permutation, as ``LandmarkScheme.flip``; ``None`` if it is not clear.
    """
    shape = _mean_shape(table)
    return None if shape is None else _pairs_of(shape)


def pairs_option(flip: tuple[int, ...]) -> str:
    """Write a permutation as the option ``--data.flip_pairs``."""
    pairs = [[point, other] for point, other in enumerate(flip) if point < other]
    return f"--data.flip_pairs '{json.dumps(pairs)}'"


def _sorted_out(source: Path, *checks: Iterator[str]) -> list[str]:
    warnings = []
    for check in checks:
        for text in check:
            if isinstance(text, _Certain):
                raise DataError(f"{source}: {text}; {OFF}.")
            warnings.append(f"{source}: {text}.")
    return warnings


def _markers(table: LandmarkTable) -> Iterator[str]:
    """Points at (0, 0), (-1, -1) and their kin, by which many files mean that there is no point."""
    numbers = table.points + np.float32(table.offset)
    x = numbers[..., 0]
    suspects = table.labelled & (x == numbers[..., 1]) & (x <= 0)
    for value, count in zip(*np.unique(x[suspects], return_counts=True), strict=True):
        if count == 1 and value not in (0, -1):
            continue  # a point that happens to be on the diagonal beyond the corner
        at = suspects & (x == value)
        faces = at.any(-1)
        first = int(np.argmax(faces))
        text = (
            f"({value:g}, {value:g}) is the place of {count} point{'s' if count > 1 else ''} in "
            f"{faces.sum()} of {len(table)} faces, first of point {int(np.argmax(at[first]))} in "
            f"{table.names[first]!r}; if it marks points that are not annotated, add "
            f"--data.missing={value:g}"
        )
        certain = count > 1 and faces.mean() >= 0.01
        yield _Certain(text) if certain else text


def _shared_places(table: LandmarkTable) -> Iterator[str]:
    """Places far from every face that several points have exactly: (1, 1), (-1, 0), (9999, 9999).

    Those that :func:`_markers` knows are left to it.
    """
    numbers = np.ascontiguousarray(table.points + np.float32(table.offset))
    keys = numbers.view(np.uint64)[..., 0]
    places, counts = np.unique(keys[table.labelled], return_counts=True)
    least = max(3, len(table) / 100)
    # Markers are the commonest places; of many others, aligned faces have some by chance.
    for number in np.argsort(-counts, kind="stable")[:20]:
        if counts[number] < least:
            return
        at = table.labelled & (keys == places[number])
        rows = at.any(-1)
        first = int(np.argmax(rows))
        x, y = numbers[first, int(np.argmax(at[first]))]
        if x == y and x <= 0:
            continue
        least_apart = FAR_APART if _may_be_aligned(table, at) else APART
        if not _is_apart(table.take(np.flatnonzero(rows)), at[rows], least_apart):
            continue
        hint = f"add --data.missing={x:g}" if x == y else "leave both its coordinates empty"
        yield _Certain(
            f"({x:g}, {y:g}) is the place of {counts[number]} points in {rows.sum()} of "
            f"{len(table)} faces, far from the others, first of point {int(np.argmax(at[first]))} "
            f"in {table.names[first]!r}; if it marks points that are not annotated, {hint}"
        )


def _may_be_aligned(table: LandmarkTable, at: np.ndarray) -> bool:
    """Whether points at one place, ``(N, K)`` bool, are one point that nearly all faces have there.

    So are points of faces that were aligned, and points that are in no face and have a marker.
    """
    points = np.flatnonzero(at.any(0))
    if len(points) > 1:
        return False
    own, place = table.points[:, points[0]], table.points[at][0]
    near = np.abs(own - place).max(-1) <= APART * np.median(_extents(table))
    labelled = table.labelled[:, points[0]]
    return bool((near & labelled).sum() >= ALIGNED * labelled.sum())


def _is_apart(table: LandmarkTable, at: np.ndarray, least: float) -> bool:
    """Whether some points, ``(N, K)`` bool, are far from the other points of every face.

    Args:
        table: N faces.
        at: the points.
        least: distance from the box around the other points, in its longer side.
    """
    others = table.labelled & ~at
    if (others.sum(-1) < 2).any():
        return False
    low, high = (each[:, None] for each in tight_box(table.points, others))
    away = np.maximum(low - table.points, table.points - high).max(-1)
    return bool((away > least * (high - low).max(-1))[at].all())


def _heaps(table: LandmarkTable) -> Iterator[str]:
    """Points of one face, or one point of many faces, at exactly the same place."""
    faces, count = table.labelled.shape
    # Both coordinates as one number, which sorting brings together; 0.0 makes -0.0 the same as 0.
    keys = np.ascontiguousarray(table.points + np.float32(0)).view(np.uint64)[..., 0]
    last = np.iinfo(np.uint64).max  # no coordinates: two NaN
    absent = (last - np.arange(faces * count, dtype=np.uint64)).reshape(faces, count)
    keys = np.where(table.labelled, keys, absent)
    least = max(3, -(-count // 4))
    if count >= least:
        within = np.sort(keys, axis=1)
        heaped = (within[:, least - 1 :] == within[:, : count - least + 1]).any(1)
        if heaped.any():
            text = (
                f"{least} or more of {count} points at one place in {heaped.sum()} of {faces} "
                f"faces, first in {table.names[int(np.argmax(heaped))]!r}; leave points empty "
                "that are not annotated"
            )
            yield _Certain(text) if heaped.sum() > 1 and heaped.mean() > 0.05 else text
    least = max(5, -(-faces // 5))
    if faces >= least:
        across = np.sort(keys, axis=0)
        heaped = (across[least - 1 :] == across[: faces - least + 1]).any(0)
        if heaped.any():
            yield (
                f"{heaped.sum()} of {count} points, first point {int(np.argmax(heaped))}, are at "
                f"exactly the same place in {least} or more of {faces} faces, as only aligned "
                "faces have them; leave points empty that are not annotated"
            )


def _mean_shape(table: LandmarkTable) -> np.ndarray | None:
    """``(K, 2)`` mean of all faces around their centres, with a mean square radius of at most 1.

    ``None`` for too few faces, for faces that are not upright, and if a point has no place.
    """
    whole = table.labelled.all(-1)
    if whole.sum() < LEAST_FACES:
        whole = table.labelled.mean(-1) > 0.5
    points, labelled = table.points[whole].astype(np.float64), table.labelled[whole][..., None]
    if len(points) < LEAST_FACES or not labelled.any(0).all():
        return None
    number = labelled.sum(1, keepdims=True)
    centred = points - np.where(labelled, points, 0).sum(1, keepdims=True) / number
    centred = np.where(labelled, centred, 0)
    radii = np.sqrt((centred**2).sum((1, 2), keepdims=True) / number)
    shape = (centred / np.maximum(radii, 1e-9)).sum(0) / labelled.sum(0)
    return shape if (shape**2).sum(-1).mean() > UPRIGHT else None


def _from_mirror(shape: np.ndarray, flip: tuple[int, ...]) -> np.ndarray:
    """``(K,)`` distance of each point from its partner's mirror image."""
    return np.linalg.norm(shape[list(flip)] * [-1, 1] - shape, axis=-1)


def _untilted(shape: np.ndarray, flip: tuple[int, ...]) -> np.ndarray:
    """Turned so that the axis about which the pairs fit best is upright, unless it is far from it.

    As complex numbers z, the mirror image about an axis at the angle a is exp(2ia) conj(z).
    """
    numbers = shape[:, 0] + 1j * shape[:, 1]
    tilt = np.angle(-(numbers * numbers[list(flip)]).sum()) / 2
    if abs(tilt) > np.deg2rad(MOST_TILTED):
        return shape
    numbers = numbers * np.exp(-1j * tilt)
    return np.stack([numbers.real, numbers.imag], -1)


def _is_mirrored(shape: np.ndarray, flip: tuple[int, ...]) -> bool:
    return bool(_radius(_from_mirror(shape, flip)) < MIRRORED)


def _radius(distances: np.ndarray) -> float:
    return float(np.sqrt((distances**2).mean()))


def _nearest_to_mirror(shape: np.ndarray) -> tuple[int, ...]:
    """For each point the one with the nearest mirror image; not necessarily an involution."""
    distances = np.linalg.norm((shape * [-1, 1])[None] - shape[:, None], axis=-1)
    return tuple(distances.argmin(1).tolist())


def _pairs_of(shape: np.ndarray) -> tuple[int, ...] | None:
    flip = _nearest_to_mirror(shape)
    if any(flip[other] != point for point, other in enumerate(flip)):
        return None
    if flip == tuple(range(len(flip))):  # all on one line from top to bottom
        return None
    return flip if _is_mirrored(shape, flip) else None


def _point_names(table: LandmarkTable, scheme: LandmarkScheme) -> Iterator[str]:
    """Names of points that make other pairs of left and right than the scheme."""
    names, flip = table.point_names, scheme.flip
    named = flip_from_names(names) if len(names) == scheme.num_points else None
    if flip is None or named is None:
        return
    other = (point for point, pair in enumerate(named) if pair not in (point, flip[point]))
    if (point := next(other, None)) is None:
        return
    eyes = eyes_from_names(names, named)
    groups = "" if eyes is None else f" '{json.dumps(eyes)}'"
    text = (
        f"the keypoints {names[point]!r} ({point}) and {names[named[point]]!r} ({named[point]}) "
        f"are a pair by their names, but not in the order {_named(scheme)}; give "
        f"{pairs_option(named)} and --data.eyes{groups} in place of a scheme"
    )
    yield text if scheme.name == "own" else _Certain(text)


def _order(table: LandmarkTable, scheme: LandmarkScheme) -> Iterator[str]:
    """Partners that are not opposite each other, and eyes below the mouth."""
    shape = _mean_shape(table)
    if shape is None:
        yield from _same_side(table, scheme)
        return
    pairs = _pairs_of(shape)
    flip, eyes, mouth = scheme.flip, scheme.eyes, scheme.mouth
    if flip is not None:
        if not _is_mirrored(shape, flip) and _fits_regrouped(table, flip):
            yield _Certain(
                f"the coordinates are x of all points and then y of all points, and not x and y of "
                f"one point after the other, as the order {_named(scheme)} shows; write them so"
            )
        yield from _not_opposite(shape, scheme, flip, pairs)
    if eyes is not None and mouth is not None:
        yield from _upside_down(table, shape, scheme, [*eyes[0], *eyes[1]], list(mouth))


def _fits_regrouped(table: LandmarkTable, flip: tuple[int, ...]) -> bool:
    """Whether faces are as the scheme says if the first half of their numbers are x, the rest y."""
    points = table.points[table.labelled.all(-1)]
    if len(points) < LEAST_FACES:
        return False
    regrouped = points.reshape(len(points), 2, -1).transpose(0, 2, 1)
    shape = _mean_shape(replace(table.take(np.arange(len(points))), points=regrouped, visible=None))
    return shape is not None and _is_mirrored(shape, flip)


def _not_opposite(
    shape: np.ndarray,
    scheme: LandmarkScheme,
    flip: tuple[int, ...],
    pairs: tuple[int, ...] | None,
) -> Iterator[str]:
    distances = _from_mirror(_untilted(shape, flip), flip)
    what = f"the points are not in the order {_named(scheme)}"
    exchanged = _is_mirrored(shape[:, ::-1], flip)
    columns = "; or x and y are exchanged in the file" if exchanged else ""
    symmetric = _is_mirrored(shape, _nearest_to_mirror(shape))
    if pairs is not None:
        astray = (distances > ASTRAY) & (_from_mirror(shape, pairs) < MIRRORED)
        if astray.any():
            point = int(np.argmax(astray))
            found, taken = (
                "no other point" if swap[point] == point else f"point {swap[point]}"
                for swap in (pairs, flip)
            )
            yield _Certain(
                f"{what}: in most faces the mirror image swaps point {point} with {found}, not "
                f"with {taken}; give {pairs_option(pairs)} {_eyes_option(shape, pairs, scheme)} in "
                f"place of a scheme{columns}"
            )
    elif _radius(distances) > (ASTRAY if symmetric else NO_PAIRS):
        yield _Certain(
            f"{what}: in most faces its pairs are not to the left and right of each other; give "
            f"--data.flip_pairs and --data.eyes as the points are{columns}"
        )


def _named(scheme: LandmarkScheme) -> str:
    if scheme.name == "own":
        return "that --data.flip_pairs describes"
    return f"of the scheme {scheme.name} ({scheme.num_points} points)"


def _eyes_option(shape: np.ndarray, pairs: tuple[int, ...], scheme: LandmarkScheme) -> str:
    """The option that names the eyes, which of five points are the uppermost pair."""
    if scheme.num_points != 5:
        return "and name the eyes with --data.eyes"
    two = [(point, other) for point, other in enumerate(pairs) if point < other]
    left, right = min(two, key=lambda pair: shape[list(pair), 1].mean())
    return f"--data.eyes '[[{left}], [{right}]]'"


def _upside_down(
    table: LandmarkTable,
    shape: np.ndarray,
    scheme: LandmarkScheme,
    eyes: list[int],
    mouth: list[int],
) -> Iterator[str]:
    if shape[eyes, 1].mean() < shape[mouth, 1].mean():
        return
    y = np.where(table.labelled, table.points[..., 1], np.nan)
    below = y[:, eyes].mean(-1) - y[:, mouth].mean(-1)
    below = below[~np.isnan(below)]
    share = (below > 0).mean() if len(below) else 0.0
    if share > 0.7:
        yield _Certain(
            f"the eyes are below the mouth in {share:.0%} of the faces: the points are not in the "
            f"order {_named(scheme)}, or y is counted from the images' bottom; correct the file or "
            "give --data.flip_pairs and --data.eyes as the points are"
        )


def _same_side(table: LandmarkTable, scheme: LandmarkScheme) -> Iterator[str]:
    """Pairs that contradict each other, of faces of which not even the upright is known."""
    pairs = [] if scheme.flip is None else [(p, o) for p, o in enumerate(scheme.flip) if p < o]
    whole = table.labelled.all(-1)
    if len(pairs) < 2 or whole.sum() < LEAST_FACES:
        return
    first, second = np.array(pairs).T
    vectors = table.points[whole][:, second] - table.points[whole][:, first]
    others = vectors.sum(1, keepdims=True) - vectors
    agree = ((vectors * others).sum(-1) > 0).mean()
    if agree < 0.4:
        yield (
            f"the points do not look like the order {_named(scheme)}: its pairs point the same way "
            f"in only {agree:.0%} of the faces; give --data.flip_pairs and --data.eyes if they are "
            "in another order"
        )


def _outside(table: LandmarkTable, squares: np.ndarray) -> Iterator[str]:
    away = np.abs(table.points - squares[:, None, :2]).max(-1)
    outside = table.labelled & (away > squares[:, 2:] / 2)
    share, faces = outside.sum() / max(table.labelled.sum(), 1), outside.any(-1)
    if share < 0.1 or faces.sum() < 3:
        return
    text = (
        f"{share:.0%} of the points are outside what the network sees of their images, in "
        f"{faces.sum()} of {len(table)} faces, first {table.names[int(np.argmax(faces))]!r}; "
        "correct the boxes or scales if the data have them, or the points' unit (pixels of these "
        "images), or set --data.box points"
    )
    yield _Certain(text) if share > 0.3 else text


def _in_one_quarter(table: LandmarkTable, squares: np.ndarray) -> Iterator[str]:
    """All faces above and to the left, as if their points were of smaller copies of the images."""
    inside = ((table.points < squares[:, None, :2]).all(-1) | ~table.labelled).all(-1)
    if len(table) < LEAST_FACES or not table.labelled.any() or not inside.all():
        return
    yield (
        "all points of all faces are in the upper left quarter of what the network sees; give them "
        "in pixels of these images if they are of smaller copies, or correct the boxes"
    )


def _extents(table: LandmarkTable) -> np.ndarray:
    """``(N,)`` longer side of the box around the labelled points of each face, pixels."""
    low, high = tight_box(table.points, table.labelled)
    return (high - low).max(-1)


def _too_small(table: LandmarkTable, squares: np.ndarray) -> Iterator[str]:
    several = table.labelled.sum(-1) > 1
    if several.sum() < 3:
        return
    share = float(np.median((_extents(table) / squares[:, 2])[several]))
    if share >= 0.1:
        return
    text = f"the points span only {share:.1%} of what the network sees in the median face"
    if share < 0.02:
        yield _Certain(
            f"{text}; give them in pixels of the images if they are fractions, or set --data.box "
            "points if the faces are that small"
        )
    else:
        yield f"{text}; set --data.box points to cut the faces out"


def _twice(table: LandmarkTable, squares: np.ndarray) -> Iterator[str]:
    """Rows of one image and one square, which ask for several answers to the same input."""
    numbers: dict[str, int] = {}
    image = np.array([numbers.setdefault(name, len(numbers)) for name in table.names])
    order = np.lexsort((squares[:, 1], squares[:, 0], image))
    row, after = order[:-1], order[1:]
    close = np.abs(squares[row] - squares[after]).max(-1) < 0.05 * squares[row, 2]
    row, after = (each[(image[row] == image[after]) & close] for each in (row, after))
    if not len(row):
        return
    both = table.labelled[row] & table.labelled[after]
    apart = np.linalg.norm(table.points[row] - table.points[after], axis=-1)
    mean = np.where(both, apart, 0).sum(-1) / np.maximum(both.sum(-1), 1)
    different = mean > 0.25 * np.maximum(_extents(table)[row], 1e-9)
    if different.any():
        name = table.names[row[int(np.argmax(different))]]
        text = (
            f"{different.sum()} of {len(table)} faces are of an image and a square that another "
            f"face has, too, first in {name!r}: the network cannot know which face is meant; set "
            "--data.box points, correct the boxes, or leave all but one face of an image out"
        )
        yield _Certain(text) if different.sum() >= 0.01 * len(table) else text
    if not different.all():
        name = table.names[row[int(np.argmin(different))]]
        yield f"{(~different).sum()} of {len(table)} faces are listed twice, first in {name!r}"
