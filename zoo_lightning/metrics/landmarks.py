"""Landmark metrics as torchmetrics, with sums as states, so that they are exact under DDP.

All take predicted and true points in pixels of the original image and the normalising distance of
each image in the same pixels; the mathematics is in ``metrics.functional``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics import Metric
from typing_extensions import override

from zoo_lightning.metrics.functional import (
    AUC_STEP,
    Rule,
    auc_share,
    failure_rate,
    per_image_nme,
    per_point_error,
    sum_dtype,
)


class _Sums(Metric):
    """Metric whose states are sums over batches and processes, in float64 if possible."""

    is_differentiable = False
    full_state_update = False

    def _add_sum(self, name: str, *shape: int, dtype: torch.dtype = torch.float64) -> None:
        self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    @override
    def _apply(self, fn: Callable, exclude_state: Sequence[str] = "") -> nn.Module:
        """Follow a model to its device, but not to its precision: half floats cannot add up.

        torch has no public hook for this; without it, ``module.half()`` would convert the sums.
        """

        def moved(state: Tensor) -> Tensor:
            device = fn(torch.empty(0, device=state.device)).device
            if not state.is_floating_point():
                return state.to(device)
            if state.device.type == "mps":
                return state.to(device).to(sum_dtype(device))
            return state.to(sum_dtype(device)).to(device)  # in this order: MPS takes no float64

        return super()._apply(moved, exclude_state)


class _ImageMean(_Sums):
    """Mean over all images of a number computed from each image's normalised error."""

    total: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._add_sum("total")
        self._add_sum("images", dtype=torch.int64)

    def _batch_mean(self, nme: Tensor) -> Tensor:
        """Mean of the number over the images of a batch, from their errors ``(B,)``."""
        raise NotImplementedError

    def update(
        self, pred: Tensor, target: Tensor, distance: Tensor, visible: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            pred: predicted points ``(B, K, 2)`` in pixels.
            target: true points ``(B, K, 2)`` in pixels.
            distance: normalising distances ``(B,)`` in pixels, greater than 0.
            visible: bool ``(B, K)``, points that count; ``None`` counts all.

        Raises:
            ValueError: if shapes disagree, a distance is not positive or no point of an image
                counts.
        """
        pred, target, distance = _precise(pred, target, distance)
        nme = per_image_nme(pred, target, distance, visible)
        if nme.numel():
            # Not in place: a validation before a fit leaves tensors that may not be written to.
            self.total = self.total + self._batch_mean(nme) * nme.numel()
            self.images = self.images + nme.numel()

    def compute(self) -> Tensor:
        """Compute the mean over all images so far, over all processes."""
        return (self.total / self.images).float()


class NormalizedMeanError(_ImageMean):
    """Normalised mean error (NME): mean point error over images, in percent of ``distance``."""

    higher_is_better = False

    def _batch_mean(self, nme: Tensor) -> Tensor:
        return 100 * nme.mean()


class FailureRate(_ImageMean):
    """Percentage of images whose normalised mean error exceeds a threshold.

    Args:
        threshold: fraction of the normalising distance, greater than 0.
        kwargs: options of ``torchmetrics.Metric``.
    """

    higher_is_better = False

    def __init__(self, threshold: float = 0.10, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = _positive(threshold)

    def _batch_mean(self, nme: Tensor) -> Tensor:
        return 100 * failure_rate(nme, self.threshold)


class ErrorAUC(_ImageMean):
    """Area under the cumulative error curve (AUC) up to a threshold, in [0, 1].

    Args:
        threshold: fraction of the normalising distance, greater than 0.
        rule: ``simpson`` as in publications, or ``exact``; see
            :func:`~zoo_lightning.metrics.functional.error_auc`.
        kwargs: options of ``torchmetrics.Metric``.
    """

    higher_is_better = True

    def __init__(self, threshold: float = 0.10, rule: Rule = "simpson", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.threshold = _positive(threshold)
        self.rule = rule

    def _batch_mean(self, nme: Tensor) -> Tensor:
        return auc_share(nme, self.threshold, AUC_STEP, self.rule).mean()


class LandmarkErrors(_Sums):
    """All metrics of a landmark evaluation, from one pass over the images.

    ``compute`` returns a dictionary of

    - ``nme`` in percent, ``failure_rate`` in percent and ``auc`` in [0, 1] at the first threshold;
    - ``failure_rate@0.08``, ``auc@0.08`` for each further threshold;
    - ``nme_NAME`` in percent for each other normalisation;
    - ``nme/SUBSET``, ``failure_rate/SUBSET``, ``auc/SUBSET`` (at the first threshold) for each
      subset that has images.

    A face whose distance is NaN, because it lacks points, is left out of metrics that use that
    distance. Areas follow Simpson's rule on the usual grid, and equal
    :func:`~zoo_lightning.metrics.functional.error_auc` on all images at once.

    Args:
        num_points: number ``K`` of points.
        normalization: name of the distance that errors are divided by.
        thresholds: thresholds of failure rate and AUC, fractions of that distance, above 0.
        also: names of further distances to report the NME with; the main one is skipped.
        subsets: names of subsets of the images, which may overlap.
        kwargs: options of ``torchmetrics.Metric``.

    Raises:
        ValueError: no or repeated thresholds, one that is not greater than 0, repeated subsets, or
            no points.
    """

    higher_is_better = None
    sums: Tensor
    images: Tensor
    point_sums: Tensor
    point_images: Tensor

    def __init__(
        self,
        num_points: int,
        normalization: str,
        thresholds: Sequence[float] = (0.10,),
        also: Sequence[str] = (),
        subsets: Sequence[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for option, names in (("thresholds", thresholds), ("subsets", subsets)):
            if len(set(names)) != len(names):
                raise ValueError(f"`{option}` must differ from each other, found {list(names)}.")
        if not thresholds or num_points < 1:
            raise ValueError(
                f"At least one threshold and one point are needed, found {list(thresholds)} and "
                f"num_points={num_points}."
            )
        self.num_points = num_points
        self.thresholds = tuple(_positive(threshold) for threshold in thresholds)
        self.normalizations = tuple(dict.fromkeys((normalization, *also)))
        self.subsets = tuple(subsets)
        # Rows: all images, then each subset. Columns: as `_columns` names them.
        groups = 1 + len(self.subsets)
        self._add_sum("sums", groups, len(self.normalizations) + 2 * len(self.thresholds))
        self._add_sum("images", *self.sums.shape, dtype=torch.int64)
        self._add_sum("point_sums", num_points)
        self._add_sum("point_images", num_points, dtype=torch.int64)

    @property
    def _columns(self) -> list[str]:
        others = self.normalizations[1:]
        ends = ["", *(f"@{threshold:g}" for threshold in self.thresholds[1:])]
        return [
            "nme",
            *(f"nme_{name}" for name in others),
            *(f"{what}{end}" for end in ends for what in ("failure_rate", "auc")),
        ]

    def update(
        self,
        pred: Tensor,
        target: Tensor,
        distances: Mapping[str, Tensor],
        visible: Tensor | None = None,
        subsets: Tensor | None = None,
    ) -> None:
        """Add a batch.

        Args:
            pred: predicted points ``(B, K, 2)`` in pixels of the original images.
            target: true points ``(B, K, 2)`` in the same pixels.
            distances: distances ``(B,)`` by name, in the same pixels, NaN where unknown; names of
                other distances are ignored.
            visible: bool ``(B, K)``, points that count; ``None`` counts all.
            subsets: bool ``(B, S)``, subsets that each image is in; needed if there are subsets.

        Raises:
            ValueError: a distance of the metric is absent or not positive, shapes disagree, or no
                point of an image counts.
        """
        member = self._members(pred, subsets)
        chosen = [self._distance(distances, name) for name in self.normalizations]
        pred, target, *chosen = _precise(pred, target, *chosen)
        if not len(pred):
            return
        errors, known = [], []
        for name, distance in zip(self.normalizations, chosen, strict=True):
            known.append(~distance.isnan())
            try:
                whole = distance.nan_to_num(nan=1.0, posinf=torch.inf, neginf=-torch.inf)
                errors.append(per_image_nme(pred, target, whole, visible))
            except ValueError as error:
                raise ValueError(f"Errors normalised by {name!r}: {error}") from error
        columns = [100 * error for error in errors]
        for threshold in self.thresholds:
            columns.append(100 * (~(errors[0] <= threshold)).to(errors[0]))
            columns.append(auc_share(errors[0], threshold))
        known += [known[0]] * (len(columns) - len(known))
        member = member[:, :, None] & torch.stack(known, dim=1)[:, None]
        # Not a matrix product: an image's NaN times zero would spoil the subsets it is not in.
        values = torch.where(member, torch.stack(columns, dim=1)[:, None], 0).sum(dim=0)
        points = 100 * per_point_error(pred, target, chosen[0].nan_to_num(nan=1.0), visible)
        counted = torch.ones_like(points, dtype=torch.bool) if visible is None else visible
        counted = counted & known[0][:, None]
        # Not in place: a validation before a fit leaves tensors that may not be written to.
        self.sums = self.sums + values
        self.images = self.images + member.sum(dim=0)
        self.point_sums = self.point_sums + torch.where(counted, points, 0).sum(dim=0)
        self.point_images = self.point_images + counted.sum(dim=0)

    def _members(self, pred: Tensor, subsets: Tensor | None) -> Tensor:
        """``(B, 1 + S)`` bool: all images, then each subset."""
        found = (len(pred), 0) if subsets is None else tuple(subsets.shape)
        if pred.ndim != 3 or pred.shape[1] != self.num_points:
            raise ValueError(f"Expected pred (B, {self.num_points}, 2), found {tuple(pred.shape)}.")
        if found != (len(pred), len(self.subsets)):
            raise ValueError(
                f"Expected subsets ({len(pred)}, {len(self.subsets)}) for {list(self.subsets)}, "
                f"found {found}."
            )
        everything = torch.ones(len(pred), 1, dtype=torch.bool, device=pred.device)
        return everything if subsets is None else torch.cat([everything, subsets.bool()], dim=1)

    @staticmethod
    def _distance(distances: Mapping[str, Tensor], name: str) -> Tensor:
        if name not in distances:
            raise ValueError(
                f"The data give no distance {name!r} to normalise errors by; present are "
                f"{', '.join(distances) or 'none'}."
            )
        return distances[name]

    def compute(self) -> dict[str, Tensor]:
        """Compute all metrics over the images of all processes, by name; NaN without images."""
        means = (self.sums / self.images).float()
        result = dict(zip(self._columns, means[0], strict=True))
        for row, subset in enumerate(self.subsets, start=1):
            if self.images[row, 0]:
                for name in ("nme", "failure_rate", "auc"):
                    result[f"{name}/{subset}"] = means[row, self._columns.index(name)]
        return result

    def point_nme(self) -> Tensor:
        """Compute the NME of each point over the images in which it counts.

        All processes must call it.

        Returns:
            Errors ``(K,)``, percent of the main distance; NaN for a point that never counted.
        """
        with self.sync_context(dist_sync_fn=self.dist_sync_fn):
            return (self.point_sums / self.point_images).float()


def _precise(*tensors: Tensor) -> list[Tensor]:
    """Convert to the type of the sums: at 160 pixels, half floats resolve 1/8 pixel."""
    return [tensor.to(sum_dtype(tensor.device)) for tensor in tensors]


def _positive(threshold: float) -> float:
    if not threshold > 0:
        raise ValueError(f"A threshold must be greater than 0, found {threshold}.")
    return threshold
