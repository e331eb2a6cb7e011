"""The loss of every task on a batch made by hand, with every term, against numbers by hand."""

import math
from types import SimpleNamespace

import pytest
import torch

from zoo_lightning.methods import PlainBackbone
from zoo_lightning.rl.rollout import Samples
from zoo_lightning.tasks import (
    ClassificationTask,
    LandmarkTask,
    PPOTask,
    SegmentationTask,
)

IMAGES = torch.zeros(2, 3, 32, 32)


def knowing(task, raw):
    """A task whose output is known; gives what it logs as its loss."""
    task.forward = lambda images: raw
    logged = {}
    task.log = lambda name, value, **options: logged.update({name: value})
    return logged


def classification(**options):
    """Two classes, one image right by odds of 3 to 1 and one wrong by as much."""
    task = ClassificationTask(PlainBackbone("test_resnet"), 2, **options)
    raw = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]])
    batch = {"image": IMAGES, "label": torch.tensor([0, 1]), "index": torch.tensor([0, 1])}
    return task, raw, batch, (-math.log(0.75) - math.log(0.25)) / 2


def landmarks():
    """Two points, one of them 0.1 of the image's side beside its place, under the L1 loss."""
    task = LandmarkTask(PlainBackbone("test_resnet"), 2, loss="l1")
    raw = torch.tensor([[0.5, 0.5, 0.5, 0.6]] * 2)
    visible = torch.ones(2, 2, dtype=torch.bool)
    batch = {"image": IMAGES, "points": torch.full((2, 2, 2), 16.0), "visible": visible}
    return task, raw, batch, 0.1 / 4 * 256  # in pixels of an image of 256


def segmentation():
    """Two classes by odds of 3 to 1, half of the cells right."""
    task = SegmentationTask(PlainBackbone("test_resnet", output="stages"), 2)
    raw = torch.zeros(2, 2, 8, 8)
    raw[:, 0] = math.log(3.0)
    labels = torch.zeros(2, 8, 8, dtype=torch.long)
    labels[1] = 1
    return task, raw, {"image": IMAGES, "labels": labels}, (-math.log(0.75) - math.log(0.25)) / 2


@pytest.mark.parametrize("made", [classification, landmarks, segmentation])
def test_what_is_logged_and_learned_from_is_the_loss_with_all_that_is_added(made):
    task, raw, batch, expected = made()
    logged = knowing(task, raw)
    assert task.training_step(batch, 0).item() == pytest.approx(expected, rel=1e-5)
    task.backbone.penalty = lambda: torch.tensor(0.25)
    task.teacher = lambda student, loss, images, output: 0.5 * loss + 3.0
    whole = 0.5 * expected + 3.0 + 0.25
    assert task.training_step(batch, 0).item() == pytest.approx(whole, rel=1e-5)
    assert logged["train/loss"].item() == pytest.approx(whole, rel=1e-5)


def test_mixed_images_have_the_loss_of_mixed_labels_and_what_is_added():
    task, raw, batch, _ = classification(mixup=1.0)
    knowing(task, raw)
    targets = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    task.mixing = lambda images, labels, seed: (images, targets)
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(seed=0), global_step=0)
    task.backbone.penalty = lambda: torch.tensor(0.25)
    by_hand = -(0.75 * math.log(0.75) + 1.25 * math.log(0.25)) / 2 + 0.25
    assert task.training_step(batch, 0).item() == pytest.approx(by_hand, rel=1e-5)


def test_the_loss_of_a_policy_rewards_entropy():
    values = torch.tensor([1.0, 2.0])
    samples = Samples(
        observations=torch.zeros(2, 4, 84, 84),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([math.log(0.75), math.log(0.25)]),  # as it acts now
        values=values,
        advantages=torch.tensor([2.0, -1.0]),
        returns=torch.tensor([2.0, 5.0]),
    )

    class Policy:
        clip, clip_values, normalisation = 0.1, True, "none"
        value_weight, entropy_weight = 0.5, 0.01
        _normalised = PPOTask._normalised

        def __call__(self, observations):
            return torch.tensor([[math.log(3.0), 0.0]] * 2), values

    loss, noted = PPOTask.losses(Policy(), samples)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert noted["policy_loss"].item() == pytest.approx(-(2.0 - 1.0) / 2)
    assert noted["value_loss"].item() == pytest.approx((1.0 + 9.0) / 2 / 2)
    assert noted["entropy"].item() == pytest.approx(entropy)
    assert loss.item() == pytest.approx(-0.5 + 0.5 * 2.5 - 0.01 * entropy)
