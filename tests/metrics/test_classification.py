"""Accuracy of each class: against a sum by hand, and over several batches."""

import pytest
import torch

from zoo_lightning.metrics.classification import ClassAccuracy


def scores(*classes):
    return torch.nn.functional.one_hot(torch.tensor(classes), 4).float()


def test_classes_count_alike_whatever_their_size():
    metric = ClassAccuracy(4)
    metric.update(scores(0, 0, 0, 1), torch.tensor([0, 0, 0, 0]))
    metric.update(scores(1, 0), torch.tensor([1, 1]))
    assert metric.compute() == pytest.approx((0.75 + 0.5) / 2)


def test_a_class_without_images_does_not_count_even_if_predicted():
    metric = ClassAccuracy(4)
    metric.update(scores(0, 3), torch.tensor([0, 0]))
    assert metric.compute() == 0.5


def test_no_images_are_not_a_number():
    metric = ClassAccuracy(4)
    metric._update_count = 1  # torchmetrics would warn
    assert metric.compute().isnan()
