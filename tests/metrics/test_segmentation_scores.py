"""Scores of masks: against their definitions and torchmetrics."""

import torch
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_jaccard_index

from zoo_lightning.metrics import class_scores, per_image_iou


def test_scores_of_classes_are_those_of_torchmetrics():
    torch.manual_seed(0)
    true, pred = torch.randint(4, (2, 500))
    confusion = torch.zeros(4, 4)
    for t, p in zip(true, pred, strict=True):
        confusion[t, p] += 1
    found = class_scores(confusion)
    iou = multiclass_jaccard_index(pred, true, 4, average=None)
    torch.testing.assert_close(found.iou.float(), iou)
    torch.testing.assert_close(found.dice.float(), multiclass_f1_score(pred, true, 4, average=None))
    torch.testing.assert_close(
        2 * found.precision * found.recall / (found.precision + found.recall), found.dice
    )


def test_an_absent_class_has_no_scores():
    found = class_scores(torch.tensor([[3, 1, 0], [0, 2, 0], [0, 0, 0]]))
    assert found.iou[2].isnan()
    assert found.recall[2].isnan()
    assert found.iou[0] == 0.75
    assert found.recall[0] == 0.75
    assert found.precision[0] == 1


def test_an_images_score_averages_over_its_own_classes():
    labels = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 255]], [[255] * 4]])
    pred = torch.tensor([[[0, 0, 1, 0]], [[0, 0, 0, 2]], [[1, 1, 1, 1]]])
    found = per_image_iou(pred, labels, 3, 255)
    assert found[0] == (2 / 3 + 1 / 2) / 2
    assert found[1] == 1  # what does not count is not compared
    assert found[2].isnan()
