"""Landmark errors as pure functions; ``landmarks`` accumulates them over batches and processes.

Errors are fractions of a normalising distance (between the eyes, or the box's size), not percent.
"""

from __future__ import annotations

import torch
from torch import Tensor


def per_image_nme(pred: Tensor, target: Tensor, distance: Tensor) -> Tensor:
    """Normalised mean error of each image: ``mean_k |pred_k - target_k| / distance``.

    Args:
        pred: ``(B, K, 2)`` in pixels.
        target: ``(B, K, 2)`` in pixels of the same image.
        distance: ``(B,)`` normalising distances in the same pixels, greater than 0.

    Returns:
        ``(B,)`` fractions of the distance.

    Raises:
        ValueError: if shapes disagree or a distance is 0, negative, infinite or NaN.
    """
    if pred.shape != target.shape or distance.shape != pred.shape[:1]:
        raise ValueError(
            f"Shapes disagree: pred {tuple(pred.shape)}, target {tuple(target.shape)}, "
            f"distance {tuple(distance.shape)}; expected (B, K, 2), (B, K, 2), (B,)."
        )
    usable = torch.isfinite(distance) & (distance > 0)
    if not usable.all():
        raise ValueError(
            f"{int((~usable).sum())} of {distance.numel()} normalising distances are not positive "
            "numbers; points without eyes are normalised by their box."
        )
    return (pred - target).norm(dim=-1).mean(-1) / distance


def failure_rate(nme: Tensor, threshold: float) -> Tensor:
    """Share of images whose error exceeds the threshold; an error that is NaN is a failure.

    Args:
        nme: ``(N,)`` fractions.
        threshold: fraction, e.g. 0.10 or 0.08.

    Returns:
        Scalar in [0, 1].
    """
    return (~(nme <= threshold)).to(nme.dtype).mean()


def error_auc(nme: Tensor, threshold: float) -> Tensor:
    """Area under the cumulative error curve up to the threshold, divided by the threshold.

    The curve is a step function: image i adds 1/N to it from its error e_i on, hence
    (t - e_i) / (N t) to the area if e_i < t and nothing otherwise. The mean of max(0, 1 - e_i / t)
    is therefore the exact integral; the Simpson sums of other evaluations approximate it.

    Args:
        nme: ``(N,)`` fractions.
        threshold: fraction greater than 0.

    Returns:
        Scalar in [0, 1]; 1 if every error is 0.
    """
    return (1 - nme / threshold).clamp(min=0).mean()


def cumulative_error_curve(nme: Tensor, grid: Tensor) -> Tensor:
    """Share of images whose error is at most each value of the grid.

    Args:
        nme: ``(N,)`` fractions.
        grid: ``(G,)`` fractions in any order.

    Returns:
        ``(G,)`` in [0, 1].
    """
    ordered = nme.sort().values
    counts = torch.searchsorted(ordered, grid.to(ordered).contiguous(), right=True)
    return counts.to(ordered.dtype) / max(nme.numel(), 1)
