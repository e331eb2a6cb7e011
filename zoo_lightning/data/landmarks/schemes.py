"""Landmark schemes: which points swap under mirroring, and which are the eyes.

A scheme holds facts about the order of the points only, not about images or files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from zoo_lightning.errors import ConfigError, nearest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Groups: TypeAlias = "tuple[tuple[int, ...], tuple[int, ...]]"
"""Two groups of points, whose means are a distance apart."""


@dataclass(frozen=True)
class LandmarkScheme:
    """Scheme of K landmarks: what mirroring swaps, and which points are eyes, pupils and mouth.

    Args:
        name: name in messages and reports.
        num_points: number of points K.
        flip: point ``flip[k]`` takes the place of point ``k`` in a mirrored image; a permutation
            that undoes itself. ``None`` if unknown: such images must not be mirrored.
        eyes: two groups of indices; the distance between the groups' means is the inter-ocular
            distance. ``None`` if no points mark the eyes.
        pupils: two groups of indices; the distance between the groups' means is the inter-pupil
            distance. ``None`` if no points mark the pupils.
        mouth: indices of points of the mouth, which are below the eyes of an upright face. ``None``
            if unknown.

    Raises:
        ConfigError: if ``flip`` is no self-inverse permutation of K points or an index of an eye or
            pupil is not among the K points.
    """

    name: str
    num_points: int
    flip: tuple[int, ...] | None = None
    eyes: Groups | None = None
    pupils: Groups | None = None
    mouth: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        known = set(range(self.num_points))
        if self.flip is not None:
            if len(self.flip) != self.num_points or set(self.flip) != known:
                raise ConfigError(
                    f"The flip of scheme {self.name!r} is not a permutation of 0 to "
                    f"{self.num_points - 1}; name every point exactly once."
                )
            if any(self.flip[partner] != point for point, partner in enumerate(self.flip)):
                raise ConfigError(
                    f"The flip of scheme {self.name!r} does not undo itself; points swap in pairs."
                )
        for option, groups in (("eyes", self.eyes), ("pupils", self.pupils)):
            if groups is not None:
                check_groups(option, groups, self.num_points)

    def facts(self) -> dict[str, Any]:
        """Facts for checkpoints: ``scheme``, ``num_points`` and ``flip`` as plain values."""
        flip = None if self.flip is None else list(self.flip)
        return {"scheme": self.name, "num_points": self.num_points, "flip": flip}


def check_groups(option: str, groups: Sequence[Sequence[int]], num_points: int) -> Groups:
    """Check that an option names two groups of the points, and return them as tuples.

    Raises:
        ConfigError: it does not, or an index is not among the points; names the option.
    """
    if len(groups) != 2 or not all(groups):
        raise ConfigError(
            f"`{option}` must be two groups of indices, such as [[36], [45]], got "
            f"{[list(group) for group in groups]}."
        )
    known = set(range(num_points))
    _check_indices(option, (index for group in groups for index in group), known)
    first, second = groups
    return tuple(first), tuple(second)


def _check_indices(option: str, indices: Iterable[int], known: set[int]) -> None:
    unknown = sorted(set(indices) - known)
    if unknown:
        raise ConfigError(
            f"`{option}` names point {unknown[0]}, but the points are numbered 0 to {max(known)}."
        )


def flip_from_pairs(num_points: int, pairs: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Build the permutation that swaps each pair of points and leaves the others in place.

    Raises:
        ConfigError: if a pair is not two known points, or a point is in two pairs.
    """
    flip = list(range(num_points))
    seen: set[int] = set()
    for pair in pairs:
        _check_indices("flip_pairs", pair, set(range(num_points)))
        if len(pair) != 2 or pair[0] == pair[1] or seen & set(pair):
            raise ConfigError(
                f"`flip_pairs` must pair each point with at most one other; {list(pair)} does not. "
                "Leave points on the mirror's axis out."
            )
        seen.update(pair)
        flip[pair[0]], flip[pair[1]] = pair[1], pair[0]
    return tuple(flip)


SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}
"""Words in point names, with the words that replace them in a mirror image."""


def flip_from_names(names: Sequence[str]) -> tuple[int, ...] | None:
    """Build the permutation that swaps points whose names differ only in left and right.

    Args:
        names: names of the points, such as ``left_eye``, ``rightEye`` or ``mouth-l``.

    Returns:
        The permutation; ``None`` if no two names are such a pair, or a name occurs twice.
    """
    words = [tuple(re.findall(r"[a-z]+|[0-9]+", _snake_case(name))) for name in names]
    places = {each: point for point, each in enumerate(words)}
    mirrored = (tuple(SIDES.get(word, word) for word in each) for each in words)
    flip = tuple(places.get(each, point) for point, each in enumerate(mirrored))
    return None if len(places) < len(names) or flip == tuple(range(len(flip))) else flip


def eyes_from_names(names: Sequence[str], flip: tuple[int, ...]) -> Groups | None:
    """Find the points of both eyes by point names; ``None`` if no name contains eye."""
    eyes = [
        (point, other)
        for point, other in enumerate(flip)
        if point < other and re.search(r"eye(?!.?brow|.?lash)", _snake_case(names[point]))
    ]
    if not eyes:
        return None
    first, second = zip(*eyes, strict=True)
    return first, second


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _row(first: int, last: int) -> list[tuple[int, int]]:
    """Mirror pairs in a row of points numbered from one side of the face to the other."""
    return [(first + i, last - i) for i in range((last - first + 1) // 2)]


IBUG68 = LandmarkScheme(
    "ibug68",
    68,
    flip_from_pairs(
        68,
        [
            *_row(0, 16),  # jaw
            *_row(17, 26),  # brows
            *_row(31, 35),  # nostrils
            *[(36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)],  # eyes
            *_row(48, 54),  # lips: outer upper, outer lower, inner upper, inner lower
            *_row(55, 59),
            *_row(60, 64),
            *_row(65, 67),
        ],
    ),
    ((36,), (45,)),
    (tuple(range(36, 42)), tuple(range(42, 48))),
    tuple(range(48, 68)),
)
"""300-W order; the inter-ocular distance is between the outer corners of the eyes, the inter-pupil
distance between the means of each eye's points."""

WFLW98 = LandmarkScheme(
    "wflw98",
    98,
    flip_from_pairs(
        98,
        [
            *_row(0, 32),  # jaw
            *[(33 + i, 46 - i) for i in range(5)],  # brows: upper edge, from the outer end inwards
            *[(38 + i, 50 - i) for i in range(4)],  # and lower edge, back to the outer end
            *_row(55, 59),  # nostrils; 51 to 54 are the bridge
            *[(60 + i, 72 - i) for i in range(5)],  # eyes: outer corner, upper lid, inner corner
            *[(65, 75), (66, 74), (67, 73)],  # and lower lid
            *_row(76, 82),  # lips: outer upper, outer lower, inner upper, inner lower
            *_row(83, 87),
            *_row(88, 92),
            *_row(93, 95),
            (96, 97),  # pupils
        ],
    ),
    ((60,), (72,)),
    ((96,), (97,)),
    tuple(range(76, 96)),
)
"""WFLW order; the inter-ocular distance is between the outer corners of the eyes."""

COFW29 = LandmarkScheme(
    "cofw29",
    29,
    flip_from_pairs(
        29,
        [
            *[(0, 1), (2, 3), (4, 6), (5, 7)],  # brows: outer and inner ends, edges
            *[(8, 9), (10, 11), (12, 14), (13, 15)],  # eyes: outer and inner corners, lids
            *[(16, 17), (18, 19), (22, 23)],  # pupils, nostrils, corners of the mouth
        ],
    ),
    ((8,), (9,)),
    ((16,), (17,)),
    tuple(range(22, 28)),
)
"""COFW order; the inter-ocular distance is between the outer corners of the eyes."""

AFLW19 = LandmarkScheme(
    "aflw19",
    19,
    flip_from_pairs(19, [*_row(0, 5), *_row(6, 11), *_row(12, 14), *_row(15, 17)]),
    ((6,), (11,)),
    ((7,), (10,)),
    (15, 16, 17),
)
"""AFLW without its ears: brows, eyes (corner, centre, corner), nose, mouth, chin, each from the
image's left to its right. Errors on AFLW are usually divided by a distance that is given."""

FACES5 = LandmarkScheme(
    "faces5", 5, flip_from_pairs(5, [(0, 1), (3, 4)]), ((0,), (1,)), ((0,), (1,)), (3, 4)
)
"""Left eye, right eye, nose, left and right corner of the mouth; left is the image's left."""

SCHEMES: dict[str, LandmarkScheme] = {
    scheme.name: scheme for scheme in (IBUG68, WFLW98, COFW29, AFLW19, FACES5)
}
"""Landmark schemes by name."""


def scheme_for(
    num_points: int,
    name: str | None = None,
    flip_pairs: Sequence[Sequence[int]] | None = None,
    eyes: Sequence[Sequence[int]] | None = None,
) -> LandmarkScheme:
    """Select a landmark scheme by name or number of points, or build it from flip pairs.

    Args:
        num_points: K of the data.
        name: a key of ``SCHEMES``; ``None`` selects by the number of points: 5, 19, 29, 68 or 98.
        flip_pairs: pairs of points that swap under mirroring, for points in an order of the user's
            own; no scheme is then selected by the number of points. Empty: no points swap.
        eyes: two groups of point indices that replace the scheme's eyes.

    Raises:
        ConfigError: the name is unknown, given together with ``flip_pairs``, or of another number
            of points; or an index is impossible.
    """
    if name is not None and flip_pairs is not None:
        raise ConfigError(
            f"Both the scheme {name!r} and `flip_pairs` say how points swap; give one of them."
        )
    if name is not None and name not in SCHEMES:
        raise ConfigError(
            f"There is no landmark scheme {name!r}; known are {', '.join(SCHEMES)}."
            f"{nearest(name, SCHEMES)} For points in another order give `flip_pairs` and `eyes`."
        )
    if name is not None:
        scheme = SCHEMES[name]
        if scheme.num_points != num_points:
            raise ConfigError(
                f"The scheme {name!r} has {scheme.num_points} points, but the data have "
                f"{num_points}; leave `scheme` out or give `flip_pairs` and `eyes`."
            )
    elif flip_pairs is not None:
        scheme = LandmarkScheme("own", num_points, flip_from_pairs(num_points, flip_pairs))
    else:
        recognised = (known for known in SCHEMES.values() if known.num_points == num_points)
        scheme = next(recognised, LandmarkScheme("unknown", num_points))
    if eyes is not None:
        scheme = replace(scheme, eyes=check_groups("eyes", eyes, num_points))
    return scheme
