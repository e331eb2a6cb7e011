"""Head pose from 68 facial points, of photographs and drawn faces.

For grouping faces by pose, not for measuring: the head is assumed to be the drawn faces' template,
rotated, scaled and moved without perspective, which is right to within some degrees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from zoo_lightning.data.synthetic.face_shape import TEMPLATE

_RIGID = slice(27, 48)
"""Nose and eyes: brows and mouth move, and the jaw's points are where the outline is seen."""


def angles_of(rotation: np.ndarray) -> np.ndarray:
    """Compute yaw, pitch and roll of rotation matrices, in degrees.

    Args:
        rotation: ``(..., 3, 3)``, about the vertical axis first, then the horizontal one, then the
            line of sight; axes as in :mod:`~zoo_lightning.data.synthetic.face_shape`.

    Returns:
        ``(..., 3)`` degrees: yaw, positive for a face turned to the image's right; pitch, positive
        for a face that looks up; roll, positive for a face that leans clockwise.
    """
    yaw = np.arctan2(-rotation[..., 2, 0], rotation[..., 2, 2])
    pitch = np.arcsin(np.clip(rotation[..., 2, 1], -1, 1))
    roll = np.arctan2(-rotation[..., 0, 1], rotation[..., 1, 1])
    return np.degrees(np.stack([yaw, pitch, roll], axis=-1))


def head_poses(points: ArrayLike) -> np.ndarray:
    """Estimate yaw, pitch and roll of faces from 68 landmarks, in degrees.

    Args:
        points: ``(N, 68, 2)`` in the iBUG order of 300-W, in pixels of upright images or any other
            unit that is alike in x and y.

    Returns:
        ``(N, 3)`` degrees, as :func:`angles_of` defines them; NaN for a face that has NaN among the
        points of nose and eyes.

    Raises:
        ValueError: the points have another shape.
    """
    faces = np.asarray(points, dtype=float)
    if faces.ndim != 3 or faces.shape[1:] != (68, 2):
        raise ValueError(f"Expected the 68 points of 300-W, (N, 68, 2), found {faces.shape}.")
    seen = faces[:, _RIGID]
    known = np.isfinite(seen).all(axis=(1, 2))
    head = TEMPLATE[_RIGID] - TEMPLATE[_RIGID].mean(axis=0)
    seen = seen[known] - seen[known].mean(axis=1, keepdims=True)
    # The best affine map, (N, 2, 3), and the nearest two rows of a rotation to it.
    affine = np.einsum("kp,npc->nck", np.linalg.pinv(head), seen)
    left, _, right = np.linalg.svd(affine, full_matrices=False)
    rows = left @ right
    rotation = np.concatenate([rows, np.cross(rows[:, :1], rows[:, 1:])], axis=1)
    poses = np.full((len(faces), 3), np.nan)
    poses[known] = angles_of(rotation)
    return poses
