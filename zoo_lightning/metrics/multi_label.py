"""Scores of images with several labels each, where some labels may be unknown."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_average_precision, binary_f1_score
from torchmetrics.utilities import dim_zero_cat


class LabelOutputs(NamedTuple):
    """Probabilities and true states of the labels of ``N`` images.

    Attributes:
        probabilities: probabilities of the labels, ``(N, L)``, each in [0, 1].
        labels: 1 for a label that is there, 0 for one that is not, -1 for one that is unknown,
            integers ``(N, L)``.
    """

    probabilities: Tensor
    labels: Tensor


class LabelPredictions(Metric):
    """All probabilities and labels of an evaluation, over all processes.

    Average precision and thresholds need all of them at once, ``5 L`` bytes an image.
    """

    is_differentiable = False
    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("probabilities", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            probabilities: probabilities of the labels, ``(B, L)``.
            labels: 1, 0 or -1 (unknown), ``(B, L)``.
        """
        self.probabilities.append(probabilities.detach())
        self.labels.append(labels)

    def compute(self) -> LabelOutputs:
        """Concatenate what all processes have added."""
        return LabelOutputs(dim_zero_cat(self.probabilities), dim_zero_cat(self.labels))


def average_precisions(outputs: LabelOutputs) -> Tensor:
    """Average precision of each label over the images of which it is known.

    Returns:
        ``(L,)`` in [0, 1]; NaN for a label that no image has.
    """
    found = []
    for probabilities, labels in _by_label(outputs):
        known = labels >= 0
        if not (labels == 1).any():
            found.append(torch.full((), torch.nan, device=labels.device))
            continue
        found.append(binary_average_precision(probabilities[known], labels[known].long()))
    return torch.stack(found)


def label_f1(outputs: LabelOutputs, thresholds: Tensor) -> Tensor:
    """F1 of each label over the images of which it is known.

    Args:
        outputs: probabilities and labels.
        thresholds: probability ``(L,)`` from which on a label is predicted.

    Returns:
        ``(L,)`` in [0, 1]; NaN for a label that no image has.
    """
    found = []
    for (probabilities, labels), threshold in zip(_by_label(outputs), thresholds, strict=True):
        known, decided = labels >= 0, (probabilities >= threshold).long()
        if not (labels == 1).any():
            found.append(torch.full((), torch.nan, device=labels.device))
            continue
        found.append(binary_f1_score(decided[known], labels[known].long()))
    return torch.stack(found)


def label_scores(outputs: LabelOutputs, thresholds: Tensor) -> dict[str, Tensor]:
    """Compute the scores of all labels together.

    Args:
        outputs: probabilities and labels.
        thresholds: probability ``(L,)`` from which on a label is predicted.

    Returns:
        Scalars in [0, 1]: ``map`` (average precision, averaged over the labels that some image
        has), ``f1_macro`` (F1, averaged over the same labels), ``f1_micro`` (F1 over all known
        labels of all images) and ``exact_match`` (share of images all of whose known labels are
        predicted rightly). NaN where there is nothing to average.
    """
    probabilities, labels = outputs
    decided, known = (probabilities >= thresholds).long(), labels >= 0
    right = ((decided == labels) | ~known).all(1)[known.any(1)]
    return {
        "map": average_precisions(outputs).nanmean(),
        "f1_macro": label_f1(outputs, thresholds).nanmean(),
        "f1_micro": binary_f1_score(decided[known], labels[known].long()),
        "exact_match": right.float().mean(),
    }


def best_thresholds(outputs: LabelOutputs, default: Tensor) -> Tensor:
    """Find the threshold of each label that has the highest F1 on some images.

    A threshold lies midway between the lowest probability that it lets through and the next one.

    Args:
        outputs: probabilities and labels.
        default: thresholds ``(L,)`` of labels that no image has.

    Returns:
        ``(L,)``; a label is predicted from its threshold on. Of thresholds with the same F1 the
        highest one is taken.
    """
    found = []
    for (probabilities, labels), before in zip(_by_label(outputs), default, strict=True):
        known = labels >= 0
        values, order = probabilities[known].double().sort(descending=True)
        hits = (labels[known][order] == 1).long().cumsum(0)
        if not len(hits) or not hits[-1]:
            found.append(before.double())
            continue
        counts = torch.arange(1, len(values) + 1, device=values.device)
        f1 = 2 * hits / (counts + hits[-1])
        below = torch.cat([values[1:], values.new_zeros(1)])
        # Between equal probabilities there is no threshold.
        separable = values > below
        best = int(torch.where(separable | (counts == len(values)), f1, -1.0).argmax())
        found.append((values[best] + below[best]) / 2)
    return torch.stack(found).to(default)


def _by_label(outputs: LabelOutputs) -> list[tuple[Tensor, Tensor]]:
    return list(zip(outputs.probabilities.unbind(1), outputs.labels.unbind(1), strict=True))
