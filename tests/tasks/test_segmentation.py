"""Segmentation: the loss and metrics of every cell, that it learns, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torchmetrics import Metric

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.nn.heads.losses import cell_cross_entropy, dice_loss
from zoo_lightning.tasks import ClassificationTask, SegmentationTask
from zoo_lightning.tasks.segmentation import balanced_weights


def task(classes=3, output="stages", **options) -> SegmentationTask:
    torch.manual_seed(0)
    return SegmentationTask(PlainBackbone("test_resnet", output=output), classes, **options)


def test_scores_have_the_labels_size_whatever_the_stride():
    batch = {"image": torch.randn(2, 3, 64, 64), "labels": torch.randint(3, (2, 16, 16))}
    for stride in (4, 8):
        assert task(stride=stride)._scores(batch).shape == (2, 3, 16, 16)


def test_the_loss_is_the_mean_over_all_cells():
    segmenter = task()
    segmenter.log = lambda *args, **options: None
    batch = {"image": torch.randn(2, 3, 64, 64), "labels": torch.randint(3, (2, 16, 16))}
    scores = segmenter._scores(batch).permute(0, 2, 3, 1).reshape(-1, 3)
    expected = F.cross_entropy(scores, batch["labels"].flatten())
    torch.testing.assert_close(segmenter.training_step(batch, 0), expected)


@pytest.mark.parametrize("kind", [SegmentationTask, ClassificationTask])
def test_losses_are_logged_as_metrics_which_all_processes_join(kind):
    output = "stages" if kind is SegmentationTask else "pooled"
    judged = kind(PlainBackbone("test_resnet", output=output), 3).eval()
    logged = {}
    judged.log = lambda name, value, **options: logged.update({name: value})
    judged.log_dict = lambda *args, **options: None
    images, labels = torch.randn(5, 3, 32, 32), torch.randint(3, (5, 8, 8))
    with torch.no_grad():
        for part in (slice(3), slice(3, 5)):
            given = {"labels": labels[part], "label": labels[part, 0, 0]}
            judged.validation_step({"image": images[part], **given}, 0)
            judged.test_step({"image": images[part], **given}, 0)
        batch = {"image": images, "labels": labels, "label": labels[:, 0, 0]}
        if kind is SegmentationTask:
            expected = F.cross_entropy(judged._scores(batch), labels)
        else:
            expected = F.cross_entropy(judged(images), batch["label"])
    assert set(logged) == {"val/loss", "test/loss"}
    for metric in logged.values():
        assert isinstance(metric, Metric)
        torch.testing.assert_close(metric.compute(), expected)
    assert not any("losses" in key for key in judged.state_dict())


def test_halves_of_two_colours_are_learned():
    segmenter = task(2)
    segmenter.log = lambda *args, **options: None
    images, labels = torch.zeros(8, 3, 32, 32), torch.zeros(8, 8, 8, dtype=torch.long)
    for index in range(8):
        edge = 4 * (1 + index % 6)
        images[index, 0, :, edge:], labels[index, :, edge // 4 :] = 2.0, 1
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=1e-2)
    for _ in range(30):
        optimizer.zero_grad()
        segmenter.training_step({"image": images, "labels": labels}, 0).backward()
        optimizer.step()
    found = segmenter.predict_step({"image": images, "labels": labels}).argmax(dim=1)
    assert (found == labels).float().mean() > 0.9


def test_cells_that_do_not_count_change_neither_loss_nor_metrics():
    torch.manual_seed(0)
    scores, labels = torch.randn(2, 3, 8, 8), torch.randint(3, (2, 8, 8))
    partly = labels.clone()
    partly[:, :4] = 255
    for loss in (cell_cross_entropy, dice_loss):
        found = loss(scores, partly, 255)
        torch.testing.assert_close(found, loss(scores[:, :, 4:], labels[:, 4:], 255))
    judged = task()
    for name, metric in judged.val_metrics.items():
        wanted = metric(scores[:, :, 4:].argmax(1), labels[:, 4:])
        metric.reset()
        assert metric(scores.argmax(1), partly) == wanted, name


@pytest.mark.parametrize("loss", [cell_cross_entropy, dice_loss])
def test_a_batch_without_cells_that_count_has_a_loss_and_gradient_of_zero(loss):
    scores = torch.randn(2, 3, 8, 8, requires_grad=True)
    found = loss(scores, torch.full((2, 8, 8), 255), 255)
    found.backward()
    assert found == 0
    assert (scores.grad == 0).all()


def test_the_dice_loss_is_one_minus_the_dice_coefficient_of_sure_scores():
    labels = torch.zeros(1, 4, 4, dtype=torch.long)
    labels[:, :2] = 1
    predicted = torch.zeros_like(labels)
    predicted[:, 1:3] = 1
    scores = 100.0 * F.one_hot(predicted, 3).movedim(-1, 1)
    # Both classes share half of their cells; the third one does not occur and does not count.
    assert dice_loss(scores, labels, 255) == pytest.approx(0.5)
    assert dice_loss(100.0 * F.one_hot(labels, 3).movedim(-1, 1), labels, 255) < 1e-6


def test_both_losses_are_added_and_cells_are_weighted():
    batch = {"image": torch.randn(2, 3, 64, 64), "labels": torch.randint(3, (2, 16, 16))}
    weights = [1.0, 2.0, 5.0]
    segmenter = task(loss="both", class_weights=weights)
    segmenter.log = lambda *args, **options: None
    scores = segmenter._scores(batch)
    expected = F.cross_entropy(scores, batch["labels"], torch.tensor(weights))
    expected = expected + dice_loss(scores, batch["labels"], 255)
    torch.testing.assert_close(segmenter.training_step(batch, 0), expected)
    assert not any("weights" in key for key in segmenter.state_dict())


def test_balanced_weights_have_a_mean_of_one_over_the_cells():
    counts = torch.tensor([900, 100, 0, 0])
    weights = balanced_weights(counts)
    assert (weights * counts).sum() / counts.sum() == pytest.approx(1)
    assert weights[1] / weights[0] == pytest.approx(3)
    assert weights[2] == weights[1]


def test_imitation_is_the_divergence_of_each_cell_whatever_the_teachers_stride():
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    segmenter = task(temperature=2.0)
    log_p, log_q = ((each / 2).log_softmax(1) for each in (teacher, student))
    expected = 4 * (log_p.exp() * (log_p - log_q)).sum(1).mean()
    torch.testing.assert_close(segmenter.imitation(student, teacher), expected)
    assert segmenter.imitation(student, student) == 0
    assert torch.isfinite(segmenter.imitation(student, torch.randn(2, 3, 2, 2)))


def test_what_cannot_be_segmented_is_refused():
    with pytest.raises(ConfigError, match=r"backbone\.output to stages"):
        task(output="pooled")
    with pytest.raises(ConfigError, match="power of two, got 3"):
        task(stride=3)
    with pytest.raises(ConfigError, match="loss must be one of"):
        task(loss="focal")
    for weights in ([1.0, 2.0], [1.0, 0.0, 1.0], "balanced"):
        with pytest.raises(ConfigError, match="class_weights must be auto, or 3 numbers"):
            task(class_weights=weights)
    with pytest.raises(ConfigError, match="ignore_index is 0, and the data mark"):
        task(ignore_index=0).check_data(SimpleNamespace(num_classes=3, ignored_label=255))
    segmenter = task(3)
    segmenter._trainer = SimpleNamespace(datamodule=SimpleNamespace(num_classes=4))
    with pytest.raises(ConfigError, match="has 3 classes, the data have 4"):
        segmenter.setup("fit")
