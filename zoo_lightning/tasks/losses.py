"""Losses of landmark regression as pure functions of predicted and true coordinates."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LOSS_SCALE = 256.0
"""Coordinates are compared as if the image were this many pixels wide, because the literature's
constants (Wing's w and ε, smooth L1's β) are meant for inputs of 256 pixels."""


def l1(pred: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of fractions ``(B, K, 2)``, in pixels of a 256-pixel image."""
    return LOSS_SCALE * F.l1_loss(pred, target)


def smooth_l1(pred: Tensor, target: Tensor) -> Tensor:
    """Quadratic below one pixel of a 256-pixel image, absolute above; fractions ``(B, K, 2)``."""
    return F.smooth_l1_loss(LOSS_SCALE * pred, LOSS_SCALE * target)


def wing(pred: Tensor, target: Tensor, width: float = 10.0, curvature: float = 2.0) -> Tensor:
    """Wing loss (Feng et al., CVPR 2018, equation 5): steep for small errors, linear for large.

    Args:
        pred: fractions of the image, ``(B, K, 2)``.
        target: likewise.
        width: ``w``, pixels of a 256-pixel image below which the loss is logarithmic.
        curvature: ``ε``, in the same pixels.

    Returns:
        Mean over all coordinates, a scalar.
    """
    error = LOSS_SCALE * (pred - target).abs()
    offset = width - width * math.log1p(width / curvature)
    inner = width * torch.log1p(error / curvature)
    return torch.where(error < width, inner, error - offset).mean()


LOSSES = {"l1": l1, "smooth_l1": smooth_l1, "wing": wing}
