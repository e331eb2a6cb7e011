"""Table of landmark annotations, the common result of all readers of annotation formats."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

HIDDEN, VISIBLE = 1, 2
"""Visibility flags of labelled points, as in COCO; 0 means not labelled."""


@dataclass(frozen=True)
class LandmarkTable:
    """Landmark annotations of N faces; an image with several faces has one row for each.

    Coordinates are continuous pixels of the original images; the origin is the top left corner of
    the top left pixel, whose centre is at 0.5.

    Args:
        names: image names relative to their folder.
        points: ``(N, K, 2)`` float32.
        visible: ``(N, K)`` uint8: 0 not labelled, 1 labelled but hidden, 2 visible. ``None`` if the
            format has no such flags: all are visible.
        regions: ``(N, 3)`` centre x, centre y and side of the square around each face, without
            margin. ``None`` if the format has none.
        sizes: ``(N,)`` normalisation distance of each face, or ``None``.
        subsets: members of each named subset, ``(N,)`` bool each.
        pixels: the images, ``(H, W)`` or ``(H, W, 3)`` uint8, of formats that contain them;
            ``None`` if images are files.
        offset: pixels by which the files' coordinates exceed those of ``points``.
        point_names: names of the K points, if the format has names.
        image_sizes: ``(N, 2)`` width and height of each face's image as the annotations state them,
            0 where they do not; ``None`` if the format has none.
    """

    names: list[str]
    points: np.ndarray
    visible: np.ndarray | None = None
    regions: np.ndarray | None = None
    sizes: np.ndarray | None = None
    subsets: dict[str, np.ndarray] = field(default_factory=dict)
    pixels: list[np.ndarray] | None = None
    offset: float = 0.0
    point_names: tuple[str, ...] = ()
    image_sizes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labelled(self) -> np.ndarray:
        """Mask ``(N, K)`` bool of the points that have a position."""
        if self.visible is None:
            return np.ones(self.points.shape[:2], bool)
        return self.visible > 0

    def counted(self, count_occluded: bool) -> np.ndarray:
        """Mask ``(N, K)`` bool of the labelled points, optionally without the hidden ones."""
        if self.visible is None or count_occluded:
            return self.labelled
        return self.visible == VISIBLE

    def unlabel(self, points: np.ndarray) -> LandmarkTable:
        """Copy the table with the points in a mask ``(N, K)`` unlabelled and at coordinates 0."""
        if not points.any():
            return self
        visible = np.full(points.shape, VISIBLE, np.uint8) if self.visible is None else self.visible
        return replace(
            self,
            points=np.where(points[..., None], np.float32(0), self.points),
            visible=np.where(points, np.uint8(0), visible),
        )

    def without_nan(self) -> LandmarkTable:
        """Copy the table with the points that have NaN coordinates unlabelled."""
        return self.unlabel(np.isnan(self.points).any(-1))

    def at(self, number: float) -> np.ndarray:
        """Mask ``(N, K)`` bool of labelled points whose x and y in the file are both ``number``."""
        return self.labelled & (self.points == np.float32(number - self.offset)).all(-1)

    def take(self, rows: np.ndarray) -> LandmarkTable:
        """Copy the table with the given rows, in the given order."""

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
            self.offset,
            self.point_names,
            rows_of(self.image_sizes),
        )
