"""Shape of a drawn face: a 3-D template of the 68 iBUG points, made individual, posed, projected.

Lengths are in half face widths; x points to the image's right, y down, z towards the viewer; the
outer corners of the eyes are at y = 0 and the jaw's upper ends at x = -1 and 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

JAW, LEFT_BROW, RIGHT_BROW = slice(0, 17), slice(17, 22), slice(22, 27)
NOSE, LEFT_EYE, RIGHT_EYE = slice(27, 36), slice(36, 42), slice(42, 48)
LIPS, INNER_LIPS = slice(48, 60), slice(60, 68)


def _mirrored(row: list[tuple[float, float, float]]) -> list[tuple[float, float, float]]:
    """Append the mirror image of all points but the last, which lies on the axis."""
    return row + [(-x, y, z) for x, y, z in row[-2::-1]]


def _template() -> np.ndarray:
    jaw = [
        (-1.0, 0.03, -0.05),
        (-0.985, 0.3, -0.05),
        (-0.95, 0.57, 0.0),
        (-0.88, 0.83, 0.08),
        (-0.76, 1.08, 0.2),
        (-0.59, 1.29, 0.34),
        (-0.39, 1.45, 0.48),
        (-0.2, 1.55, 0.57),
        (0.0, 1.59, 0.6),
    ]
    brow = [
        (-0.8, -0.25, 0.42),
        (-0.68, -0.36, 0.57),
        (-0.52, -0.4, 0.68),
        (-0.34, -0.37, 0.75),
        (-0.17, -0.31, 0.78),
    ]
    bridge = [(0.0, -0.03, 0.8), (0.0, 0.15, 0.92), (0.0, 0.33, 1.04), (0.0, 0.5, 1.16)]
    nostrils = [(-0.21, 0.63, 0.83), (-0.11, 0.675, 0.92), (0.0, 0.705, 0.96)]
    eye = [
        (-0.576, 0.0, 0.52),
        (-0.48, -0.075, 0.61),
        (-0.34, -0.075, 0.63),
        (-0.23, 0.02, 0.6),
        (-0.34, 0.06, 0.63),
        (-0.47, 0.065, 0.61),
    ]
    upper = [(-0.37, 0.98, 0.68), (-0.24, 0.915, 0.8), (-0.09, 0.875, 0.87), (0.0, 0.895, 0.88)]
    lower = [(-0.24, 1.075, 0.77), (-0.11, 1.125, 0.82), (0.0, 1.135, 0.83)]
    inner_upper = [(-0.31, 0.983, 0.7), (-0.11, 0.967, 0.83), (0.0, 0.973, 0.84)]
    inner_lower = [(-0.11, 0.983, 0.82), (0.0, 0.985, 0.82)]

    def across(points: list, order: list[int]) -> list:
        return [(-points[i][0], *points[i][1:]) for i in order]

    rows = [
        *_mirrored(jaw),
        *brow,
        *across(brow, [4, 3, 2, 1, 0]),
        *bridge,
        *_mirrored(nostrils),
        *eye,
        *across(eye, [3, 2, 1, 0, 5, 4]),
        *_mirrored(upper),
        *_mirrored(lower)[::-1],
        *_mirrored(inner_upper),
        *_mirrored(inner_lower)[::-1],
    ]
    return np.array(rows)


TEMPLATE = _template()
"""Template ``(68, 3)`` of the iBUG points: symmetric, eyes open, mouth closed."""


@dataclass(frozen=True)
class Projection:
    """Rotation and perspective from face coordinates to pixels.

    Args:
        rotation: rotation matrix ``(3, 3)``.
        distance: distance of the camera from the face's centre, half face widths.
        scale: pixels per half face width at the centre.
        centre: ``(2,)`` pixel at which the face's centre appears.
        roll: in-plane part of the rotation, radians.
    """

    rotation: np.ndarray
    distance: float
    scale: float
    centre: np.ndarray
    roll: float

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Project points ``(N, 3)`` to pixels ``(N, 2)``."""
        turned = (points - _PIVOT) @ self.rotation.T
        magnified = self.scale * self.distance / (self.distance - turned[:, 2:])
        return turned[:, :2] * magnified + self.centre


_PIVOT = np.array([0.0, 0.5, 0.2])


def individual_face(rng: np.random.Generator) -> np.ndarray:
    """Draw a face ``(68, 3)``: the template with random proportions and expression."""
    face = TEMPLATE.copy()
    for part, side in ((LEFT_EYE, -1), (RIGHT_EYE, 1)):
        face[part, 0] -= side * 0.4
    for part, side in ((LEFT_BROW, -1), (RIGHT_BROW, 1)):
        face[part, 0] -= side * 0.48
    _shape_features(face, rng)
    _shape_mouth(face, rng)
    _shape_jaw(face, rng)
    face += rng.normal(0, 0.006, face.shape)
    return face


def _shape_features(face: np.ndarray, rng: np.random.Generator) -> None:
    """Eyes and brows, which come centred on x = 0, and the nose."""
    size, opening = rng.uniform(0.85, 1.25), rng.uniform(0.7, 1.5)
    if rng.random() < 0.12:
        opening *= rng.uniform(0.05, 0.35)  # nearly or wholly closed
    slant, spacing = rng.normal(0, 0.07), rng.uniform(0.37, 0.44)
    raised, frown = rng.normal(0.0, 0.05), rng.normal(0, 0.04)
    arch = rng.uniform(0.5, 1.5)
    for eye, brow, side in ((LEFT_EYE, LEFT_BROW, -1), (RIGHT_EYE, RIGHT_BROW, 1)):
        face[eye, :2] *= size * np.array([1.0, opening])
        face[eye, 1] += slant * face[eye, 0] * side
        face[eye, 0] += side * spacing
        height = face[brow, 1].mean()
        face[brow, 1] = height + arch * (face[brow, 1] - height) - raised
        face[brow, 1] += frown * np.sign(-side * face[brow, 0]) * (np.abs(face[brow, 0]) / 0.3)
        face[brow, 0] = face[brow, 0] * rng.uniform(0.92, 1.08) + side * (spacing + 0.08)
    top = face[27, 1]
    face[NOSE, 1] = top + (face[NOSE, 1] - top) * rng.uniform(0.85, 1.12)
    face[NOSE, 0] *= rng.uniform(0.75, 1.35)
    face[28:36, 2] += rng.normal(0, 0.05) * np.array([0.4, 0.7, 1, 0.3, 0.5, 0.6, 0.5, 0.3])


def _shape_mouth(face: np.ndarray, rng: np.random.Generator) -> None:
    mouth = slice(48, 68)
    thickness = rng.uniform(0.6, 1.6)
    middle = 0.98
    face[LIPS, 1] = middle + (face[LIPS, 1] - middle) * thickness
    face[mouth, 0] *= rng.uniform(0.82, 1.15)
    smile = rng.uniform(-0.4, 1.0)
    outward = np.abs(face[mouth, 0]) / 0.37
    face[mouth, 0] *= 1 + 0.16 * max(smile, 0)
    face[mouth, 1] -= 0.09 * smile * (outward**2 - 0.3)
    face[mouth, 2] -= 0.05 * smile * outward
    opened = rng.uniform(0.02, 0.4) if rng.random() < 0.5 else 0.0
    # The corners stay, the lower lip and the chin go down, the upper lip a little up.
    parting = np.clip(1.05 - outward**2, 0, 1)
    lower, upper = [*range(55, 60), *range(65, 68)], [*range(49, 54), *range(61, 64)]
    face[lower, 1] += opened * parting[np.array(lower) - 48]
    face[upper, 1] -= 0.12 * opened * parting[np.array(upper) - 48]
    face[JAW, 1] += 0.6 * opened * np.clip((face[JAW, 1] - 0.5) / 1.1, 0, 1)
    face[mouth, 1] += rng.normal(0, 0.03)


def _shape_jaw(face: np.ndarray, rng: np.random.Generator) -> None:
    depth = np.clip(face[JAW, 1] / 1.6, 0, 1)
    face[JAW, 0] *= rng.uniform(0.92, 1.08) * (1 + rng.uniform(-0.14, 0.12) * depth)
    face[JAW, 1] *= 1 + rng.uniform(-0.05, 0.08) * depth
    squareness = rng.uniform(-0.05, 0.1)
    face[JAW, 0] += squareness * np.sign(face[JAW, 0]) * np.sin(np.pi * depth)


def random_projection(face: np.ndarray, size: int, rng: np.random.Generator) -> Projection:
    """Draw a pose and camera such that the landmarks' box fills most of the image.

    Args:
        face: ``(68, 3)``, changed in place: the far cheek is moved to the visible outline, as
            annotators do.
        size: side of the image, pixels.
        rng: random numbers.
    """
    limits = np.radians([36, 20, 28])
    spread = np.radians([17, 8, 9])
    yaw, pitch, roll = np.clip(rng.normal(0, spread), -limits, limits)
    far = np.sign(face[JAW, 0]) == np.sign(yaw)
    face[JAW, 2] += 0.4 * abs(math.sin(yaw)) * far * np.minimum(np.abs(face[JAW, 0]), 1)
    rotation = _turn(2, roll) @ _turn(0, pitch) @ _turn(1, yaw)
    unit = Projection(rotation, rng.uniform(4.5, 9), 1.0, np.zeros(2), float(roll))
    points = unit(face)
    low, high = points.min(0), points.max(0)
    scale = float(size * rng.uniform(0.56, 0.76) / (high - low).max())
    centre = size * (0.5 + rng.normal(0, 0.025, 2)) - scale * (low + high) / 2
    return Projection(rotation, unit.distance, scale, centre, float(roll))


def _turn(axis: int, angle: float) -> np.ndarray:
    """Rotation about an axis, radians."""
    matrix = np.eye(3)
    i, j = (axis + 1) % 3, (axis + 2) % 3
    matrix[i, i] = matrix[j, j] = math.cos(angle)
    matrix[i, j], matrix[j, i] = -math.sin(angle), math.sin(angle)
    return matrix
