"""Landmark metrics for Lightning: sums and a count per process, so that DDP is exact.

Each takes predicted and true points in pixels of the original image and the normalising distance of
each image in the same pixels; the mathematics is in ``functional``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from zoo_lightning.metrics.functional import error_auc, failure_rate, per_image_nme


class _ImageMean(Metric):
    """Mean over all images of a number computed from each image's normalised error."""

    is_differentiable = False
    full_state_update = False
    total: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def _batch_mean(self, nme: Tensor) -> Tensor:
        raise NotImplementedError

    def update(self, pred: Tensor, target: Tensor, distance: Tensor) -> None:
        """Add a batch.

        Args:
            pred: ``(B, K, 2)`` in pixels.
            target: ``(B, K, 2)`` in pixels.
            distance: ``(B,)`` in pixels, greater than 0.

        Raises:
            ValueError: if shapes disagree or a distance is not positive.
        """
        # In float32 also under mixed precision: half floats resolve 1/8 pixel at 160 pixels.
        nme = per_image_nme(pred.float(), target.float(), distance.float())
        if nme.numel():
            # Not in place: a validation before a fit leaves tensors that may not be written to.
            self.total = self.total + self._batch_mean(nme) * nme.numel()
            self.images = self.images + nme.numel()

    def compute(self) -> Tensor:
        """The mean over all images so far, over all processes."""
        return self.total / self.images


class NormalizedMeanError(_ImageMean):
    """Mean over images of the mean distance of the points, in percent of ``distance``."""

    higher_is_better = False

    def _batch_mean(self, nme: Tensor) -> Tensor:
        return 100 * nme.mean()


class FailureRate(_ImageMean):
    """Percent of images whose error exceeds the threshold.

    Args:
        threshold: fraction of the normalising distance, greater than 0.
        kwargs: of ``torchmetrics.Metric``.
    """

    higher_is_better = False

    def __init__(self, threshold: float = 0.10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = _positive(threshold)

    def _batch_mean(self, nme: Tensor) -> Tensor:
        return 100 * failure_rate(nme, self.threshold)


class ErrorAUC(_ImageMean):
    """Area under the cumulative error curve up to the threshold, in [0, 1].

    Args:
        threshold: fraction of the normalising distance, greater than 0.
        kwargs: of ``torchmetrics.Metric``.
    """

    higher_is_better = True

    def __init__(self, threshold: float = 0.10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = _positive(threshold)

    def _batch_mean(self, nme: Tensor) -> Tensor:
        return error_auc(nme, self.threshold)


def _positive(threshold: float) -> float:
    if not threshold > 0:
        raise ValueError(f"A threshold must be greater than 0, found {threshold}.")
    return threshold
