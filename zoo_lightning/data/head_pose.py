"""Which way heads are turned, from 68 facial points: of photographs and of drawn faces alike.

For telling faces apart by pose, not for measuring: the head is taken for the drawn faces' template,
turned, scaled and moved without perspective, which is right to some degrees.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from zoo_lightning.data.face_shape import TEMPLATE

_RIGID = slice(27, 48)
"""Nose and eyes: brows and mouth move, and the jaw's points are where the outline is seen."""


def angles_of(rotation: np.ndarray) -> np.ndarray:
    """Yaw, pitch and roll of rotations.

    Args:
        rotation: ``(..., 3, 3)``, about the vertical axis first, then the horizontal one, then the
            line of sight; axes as in :mod:`~zoo_lightning.data.face_shape`.

    Returns:
        ``(..., 3)`` degrees: yaw, positive for a face turned to the image's right; pitch, positive
        for one that looks up; roll, positive for one that leans clockwise.
    """
    yaw = np.arctan2(-rotation[..., 2, 0], rotation[..., 2, 2])
    pitch = np.arcsin(np.clip(rotation[..., 2, 1], -1, 1))
    roll = np.arctan2(-rotation[..., 0, 1], rotation[..., 1, 1])
    return np.degrees(np.stack([yaw, pitch, roll], axis=-1))


def head_poses(points: ArrayLike) -> np.ndarray:
    """Yaw, pitch and roll of faces, see :func:`angles_of`.

    Args:
        points: ``(N, 68, 2)`` in the iBUG order of 300-W, in pixels of upright images or any other
            unit that is alike in x and y.

    Returns:
        ``(N, 3)`` degrees; NaN for a face of which a point of nose or eyes is NaN.

    Raises:
        ValueError: for points of another shape.
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
