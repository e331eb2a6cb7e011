"""Rows of predicted labels: those above their thresholds, and the probability of each label."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def chosen_labels(
    probabilities: Iterable[float], thresholds: Iterable[float], classes: Sequence[str]
) -> list[str]:
    """Names of the labels whose probability reaches their threshold, in the outputs' order.

    Args:
        probabilities: probability of each label.
        thresholds: threshold of each label.
        classes: names of the labels.
    """
    rows = zip(classes, probabilities, thresholds, strict=True)
    return [name for name, probability, threshold in rows if probability >= threshold]


def label_header(classes: Sequence[str]) -> list[str]:
    """Columns of a table of predicted labels: ``image,labels,probability_NAME,...``."""
    return ["image", "labels", *(f"probability_{name}" for name in classes)]


def label_cells(
    probabilities: Iterable[float], thresholds: Iterable[float], classes: Sequence[str]
) -> list[str]:
    """Cells of an image behind its name: the labels, separated by ``;``, and all probabilities."""
    probabilities = list(probabilities)
    chosen = chosen_labels(probabilities, thresholds, classes)
    return [";".join(chosen), *(f"{value:.6f}" for value in probabilities)]
