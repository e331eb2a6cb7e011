"""What every annotation format is read into: the images' names and all that is known of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

HIDDEN, VISIBLE = 1, 2
"""Visibility of a labelled point as COCO counts it; 0 is a point that is not labelled."""


@dataclass(frozen=True)
class LandmarkTable:
    """Annotations of N faces. An image with several faces is named once for each.

    Coordinates are continuous pixels of the original images; the origin is the top left corner of
    the top left pixel, whose centre is at 0.5.

    Args:
        names: of the images, relative to their folder.
        points: ``(N, K, 2)`` float32.
        visible: ``(N, K)`` uint8: 0 not labelled, 1 labelled but hidden, 2 visible. ``None`` if the
            format does not say: all are visible.
        regions: ``(N, 3)`` centre x, centre y and side of the square around each face, without
            margin. ``None`` if the format has none.
        sizes: ``(N,)`` a distance of each face to divide errors by, or ``None``.
        subsets: which faces belong to a named part, ``(N,)`` bool each.
        pixels: the images themselves, ``(H, W)`` or ``(H, W, 3)`` uint8, of formats that hold them;
            ``None`` if images are files.
    """

    names: list[str]
    points: np.ndarray
    visible: np.ndarray | None = None
    regions: np.ndarray | None = None
    sizes: np.ndarray | None = None
    subsets: dict[str, np.ndarray] = field(default_factory=dict)
    pixels: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labelled(self) -> np.ndarray:
        """``(N, K)`` bool: points that have a position."""
        if self.visible is None:
            return np.ones(self.points.shape[:2], bool)
        return self.visible > 0

    def counted(self, count_occluded: bool) -> np.ndarray:
        """``(N, K)`` bool: labelled points, without the hidden ones if these do not count."""
        if self.visible is None or count_occluded:
            return self.labelled
        return self.visible == VISIBLE

    def take(self, rows: np.ndarray) -> LandmarkTable:
        """The given rows, in the given order."""

        def rows_of(array: np.ndarray | None) -> np.ndarray | None:
            return None if array is None else array[rows]

        return LandmarkTable(
            [self.names[row] for row in rows],
            self.points[rows],
            rows_of(self.visible),
            rows_of(self.regions),
            rows_of(self.sizes),
            {name: members[rows] for name, members in self.subsets.items()},
            None if self.pixels is None else [self.pixels[row] for row in rows],
        )
