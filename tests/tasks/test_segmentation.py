"""Segmentation: the loss and metrics of every cell, that it learns, and what is refused."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torchmetrics import Metric

from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.tasks import ClassificationTask, SegmentationTask


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


def test_what_cannot_be_segmented_is_refused():
    with pytest.raises(ConfigError, match=r"backbone\.output to stages"):
        task(output="pooled")
    with pytest.raises(ConfigError, match="power of two, got 3"):
        task(stride=3)
    segmenter = task(3)
    segmenter._trainer = SimpleNamespace(datamodule=SimpleNamespace(num_classes=4))
    with pytest.raises(ConfigError, match="has 3 classes, the data have 4"):
        segmenter.setup("fit")
