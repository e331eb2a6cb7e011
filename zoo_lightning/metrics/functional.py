"""Landmark errors as pure functions; ``metrics.landmarks`` has them as torchmetrics.

Errors are fractions of a normalisation distance (between the eyes, or the box's size), not percent.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["simpson", "exact"]
"""How the area under a cumulative error curve is computed, see :func:`error_auc`."""

AUC_STEP = 1e-4
"""Grid step of Simpson's rule in publications, as a fraction of the normalisation distance."""


def sum_dtype(device: torch.device) -> torch.dtype:
    """Dtype in which errors are computed and summed: float64, or float32 on MPS."""
    return torch.float32 if device.type == "mps" else torch.float64


def per_point_error(
    pred: Tensor, target: Tensor, distance: Tensor, visible: Tensor | None = None
) -> Tensor:
    """Compute the normalised error of each point: ``|pred_k - target_k| / distance``.

    Args:
        pred: predicted points ``(B, K, 2)`` in pixels.
        target: true points ``(B, K, 2)`` in the same pixels; ignored where points do not count.
        distance: normalising distances ``(B,)`` in the same pixels, greater than 0.
        visible: bool ``(B, K)``, points that count; ``None`` counts all.

    Returns:
        ``(B, K)`` fractions of the distance; NaN for points that do not count.

    Raises:
        ValueError: if shapes disagree or a distance is 0, negative, infinite or NaN.
    """
    error = _counted_distances(pred, target, visible) / _checked(distance, pred)[:, None]
    return error if visible is None else error.masked_fill(~visible, torch.nan)


def per_image_nme(
    pred: Tensor, target: Tensor, distance: Tensor, visible: Tensor | None = None
) -> Tensor:
    """Compute the normalised mean error of each image: ``mean_k |pred_k - target_k| / distance``.

    Args:
        pred: predicted points ``(B, K, 2)`` in pixels.
        target: true points ``(B, K, 2)`` in the same pixels; ignored where points do not count.
        distance: normalising distances ``(B,)`` in the same pixels, greater than 0.
        visible: bool ``(B, K)``, points that the mean is over; ``None`` takes all.

    Returns:
        ``(B,)`` fractions of the distance.

    Raises:
        ValueError: if shapes disagree, a distance is 0, negative, infinite or NaN, or no point of
            an image counts.
    """
    lengths = _counted_distances(pred, target, visible)
    distance = _checked(distance, pred)
    if visible is None:
        return lengths.mean(-1) / distance
    counted = visible.sum(-1)
    if not counted.all():
        raise ValueError(
            f"{int((counted == 0).sum())} of {len(counted)} images have no point that counts and "
            "so no error; leave them out of the evaluation."
        )
    return lengths.sum(-1) / counted / distance


def _counted_distances(pred: Tensor, target: Tensor, visible: Tensor | None) -> Tensor:
    """Distances in pixels ``(B, K)``, 0 where points do not count, whatever their coordinates."""
    if (
        pred.ndim != 3
        or pred.shape != target.shape
        or (visible is not None and visible.shape != pred.shape[:2])
    ):
        raise ValueError(
            f"Shapes disagree: pred {tuple(pred.shape)}, target {tuple(target.shape)}, visible "
            f"{None if visible is None else tuple(visible.shape)}; expected (B, K, 2), (B, K, 2) "
            "and (B, K) or None."
        )
    difference = pred - target
    if visible is not None:
        difference = difference.masked_fill(~visible[..., None], 0)
    return difference.norm(dim=-1)


def _checked(distance: Tensor, pred: Tensor) -> Tensor:
    if distance.shape != pred.shape[:1]:
        raise ValueError(
            f"Shapes disagree: {tuple(distance.shape)} normalising distances for pred "
            f"{tuple(pred.shape)}; expected (B,) for (B, K, 2)."
        )
    usable = torch.isfinite(distance) & (distance > 0)
    if not usable.all():
        raise ValueError(
            f"{int((~usable).sum())} of {distance.numel()} normalising distances are not positive "
            "numbers; normalise by another distance, such as the box's size, where points are "
            "absent or coincide."
        )
    return distance


def failure_rate(nme: Tensor, threshold: float) -> Tensor:
    """Compute the fraction of images whose error exceeds the threshold or is NaN.

    Args:
        nme: errors ``(N,)``, fractions of the normalising distance.
        threshold: fraction of the normalising distance, such as 0.10 or 0.08.

    Returns:
        Scalar in [0, 1].
    """
    return (~(nme <= threshold)).to(nme.dtype).mean()


def error_auc(
    nme: Tensor, threshold: float, step: float = AUC_STEP, rule: Rule = "simpson"
) -> Tensor:
    """Compute the area under the cumulative error curve up to a threshold, divided by it.

    Published areas are Simpson sums over the curve's values on a grid of 1e-4, hence the default.
    The curve is a step function, so its integral is also known exactly. For each image the two
    differ by at most 2/3 of a grid step (``step / threshold``, 0.001 at a threshold of 0.10), in
    either direction, and on average not at all.

    Args:
        nme: errors ``(N,)``, fractions of the normalising distance.
        threshold: fraction of the normalising distance, greater than 0.
        step: step of Simpson's grid, a fraction greater than 0; it is made a little smaller if the
            threshold is not an even number of steps.
        rule: ``simpson``, or ``exact`` for the integral of the step function.

    Returns:
        Scalar in [0, 1]; 1 if every error is 0.

    Raises:
        ValueError: for a threshold or step that is not greater than 0, or an unknown rule.
    """
    return auc_share(nme, threshold, step, rule).mean()


def auc_share(
    nme: Tensor, threshold: float, step: float = AUC_STEP, rule: Rule = "simpson"
) -> Tensor:
    """Compute the contribution of each image to :func:`error_auc`, which is their mean.

    Image i of N adds 1/N to the curve from its error e_i on. Both rules are linear in the curve:
    the image's exact contribution is ``max(0, 1 - e_i / t)``, Simpson's is the sum of the weights
    of all grid points from e_i to t. So areas may be averaged over batches of any size.

    Args:
        nme: errors ``(N,)``, fractions of the normalising distance; NaN contributes nothing.
        threshold: fraction of the normalising distance, greater than 0.
        step: step of Simpson's grid, see :func:`error_auc`.
        rule: ``simpson``, or ``exact`` for the integral of the step function.

    Returns:
        ``(N,)`` in [0, 1], of the type of ``nme``.

    Raises:
        ValueError: for a threshold or step that is not greater than 0, or an unknown rule.
    """
    if not (threshold > 0 and step > 0):
        raise ValueError(
            f"A threshold and a step must be greater than 0, found {threshold} and {step}."
        )
    if rule == "exact":
        return torch.where(nme < threshold, 1 - nme / threshold, 0)
    if rule != "simpson":
        raise ValueError(f"There is no rule {rule!r} for areas; known are simpson, exact.")
    dtype = sum_dtype(nme.device)
    # 1e-9: a threshold of 1000 steps is 1000 steps also where floats make it 1000.0000000000001.
    intervals = 2 * max(math.ceil(threshold / step / 2 - 1e-9), 1)
    index = torch.arange(intervals + 1, device=nme.device, dtype=dtype)
    grid = threshold * (index / intervals)
    weights = 2 + 2 * (index % 2)  # 2, 4, 2, ..., 4, 2
    weights[0] = weights[-1] = 1
    # Sums of integers: exact in either type. Errors beyond the grid get the zero at the end.
    from_index_on = weights.flip(0).cumsum(0).flip(0) / (3 * intervals)
    from_index_on = torch.cat([from_index_on, from_index_on.new_zeros(1)])
    first = torch.searchsorted(grid, nme.to(dtype).contiguous())
    return from_index_on[first].masked_fill(nme.isnan(), 0).to(nme.dtype)


def cumulative_error_curve(nme: Tensor, grid: Tensor) -> Tensor:
    """Compute the fraction of images whose error is at most each value of a grid.

    Args:
        nme: errors ``(N,)``, fractions of the normalising distance.
        grid: grid ``(G,)`` of such fractions in any order.

    Returns:
        Fractions of the images ``(G,)``, in [0, 1].
    """
    ordered = nme.sort().values
    counts = torch.searchsorted(ordered, grid.to(ordered).contiguous(), right=True)
    return counts.to(ordered.dtype) / max(nme.numel(), 1)
