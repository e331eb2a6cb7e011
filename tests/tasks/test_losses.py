"""The loss of every task on a batch made by hand, with every term, against numbers by hand."""

import math
from itertools import chain
from types import SimpleNamespace

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from zoo_lightning import tasks
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.nn.heads.losses import focal_cross_entropy
from zoo_lightning.rl.rollout import Samples
from zoo_lightning.tasks import (
    ClassificationTask,
    LandmarkTask,
    MultiLabelTask,
    PPOTask,
    RegressionTask,
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


def regression():
    """Two targets, half and one standard deviation beside their numbers, one right, one unknown."""
    task = RegressionTask(PlainBackbone("test_resnet"), ["year", "dose"], loss="mse")
    task.head.set_scale(torch.tensor([1990.0, 0.5]), torch.tensor([10.0, 0.5]))
    raw = torch.tensor([[1995.0, 0.5], [1990.0, 0.5]])
    numbers = torch.tensor([[1990.0, 0.0], [float("nan"), 0.5]])
    return task, raw, {"image": IMAGES, "numbers": numbers}, (0.25 + 1.0) / 3


def multi_label():
    """Two labels by odds of 3 to 1 and 1 to 1, the first one twice as heavy, one unknown."""
    task = MultiLabelTask(PlainBackbone("test_resnet"), 2, pos_weight=[2.0, 1.0])
    raw = torch.tensor([[math.log(3.0), 0.0], [math.log(3.0), 0.0]])
    labels = torch.tensor([[1, 0], [0, -1]], dtype=torch.int8)
    expected = (-2 * math.log(0.75) - math.log(0.5) - math.log(0.25)) / 3
    return task, raw, {"image": IMAGES, "label": labels}, expected


MADE = [classification, landmarks, segmentation, regression, multi_label]


def test_every_task_has_a_batch_made_by_hand():
    tested = {type(made()[0]).__name__ for made in MADE} | {"PPOTask"}  # whose losses are below
    assert tested == {*tasks.__all__} - {"BaseTask"}


@pytest.mark.parametrize("made", MADE)
def test_what_is_logged_and_learned_from_is_the_loss_with_all_that_is_added(made):
    task, raw, batch, expected = made()
    logged = knowing(task, raw)
    assert task.training_step(batch, 0).item() == pytest.approx(expected, rel=1e-5)
    task.backbone.penalty = lambda: torch.tensor(0.25)
    task.teacher = lambda loss, images, output, imitation: 0.5 * loss + 3.0
    whole = 0.5 * expected + 3.0 + 0.25
    assert task.training_step(batch, 0).item() == pytest.approx(whole, rel=1e-5)
    assert logged["train/loss"].item() == pytest.approx(whole, rel=1e-5)


def test_smoothed_labels_give_every_class_a_share():
    task, raw, batch, _ = classification(label_smoothing=0.2)
    knowing(task, raw)
    batch["label"] = torch.tensor([0, 0])
    by_hand = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    assert task.training_step(batch, 0).item() == pytest.approx(by_hand, rel=1e-5)


def test_points_are_fractions_of_width_and_height_and_hidden_ones_do_not_count():
    task, raw, batch, _ = landmarks()
    knowing(task, raw)
    batch["image"] = torch.zeros(2, 3, 32, 64)
    batch["points"] = torch.tensor([[[32.0, 16.0], [40.0, 16.0]]] * 2)
    # The first point is right, the second one 8 of 64 pixels too far left and 0.1 too low.
    by_hand = 256 * (8 / 64 + 0.1) / 4
    assert task.training_step(batch, 0).item() == pytest.approx(by_hand, rel=1e-5)
    batch["visible"] = torch.tensor([[False, True]] * 2)
    assert task.training_step(batch, 0).item() == pytest.approx(2 * by_hand, rel=1e-5)


def test_mixed_images_have_the_loss_of_mixed_labels_and_what_is_added():
    task, raw, batch, _ = classification(mixup=1.0)
    knowing(task, raw)
    targets = torch.tensor([[0.25, 0.75], [0.5, 0.5]])
    task.mixing = lambda images, labels, seed: (images, targets)
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(seed=0), global_step=0)
    task.backbone.penalty = lambda: torch.tensor(0.25)
    by_hand = -(0.75 * math.log(0.75) + 1.25 * math.log(0.25)) / 2 + 0.25
    assert task.training_step(batch, 0).item() == pytest.approx(by_hand, rel=1e-5)


def test_samples_count_by_the_weights_of_their_classes():
    task, raw, batch, _ = classification(label_smoothing=0.2, class_weights=[0.5, 3.0])
    logged = knowing(task, raw)
    right, wrong = (
        -(0.9 * math.log(p) + 0.1 * math.log(1 - p)) for p in (0.75, 0.25)
    )  # the share that smoothing gives to the other class does not change a sample's weight
    by_hand = (0.5 * right + 3.0 * wrong) / 2
    assert task.training_step(batch, 0).item() == pytest.approx(by_hand, rel=1e-5)
    task.teacher = lambda loss, images, output, imitation: 0.5 * loss + 3.0
    assert task.training_step(batch, 0).item() == pytest.approx(0.5 * by_hand + 3.0, rel=1e-5)
    assert logged["train/loss"].item() == pytest.approx(0.5 * by_hand + 3.0, rel=1e-5)
    task._evaluate(batch, "val", task.val_metrics.clone(), task.val_loss)
    plain = -(math.log(0.75) + math.log(0.25)) / 2
    assert task.val_loss.compute().item() == pytest.approx(plain, rel=1e-5)


def test_mixed_samples_count_by_the_mixed_weights():
    task, raw, batch, _ = classification(mixup=1.0, label_smoothing=0.2, class_weights=[0.5, 3.0])
    knowing(task, raw)
    hard = torch.tensor([[0.25, 0.75], [1.0, 0.0]])
    task.mixing = lambda images, labels, seed: (images, 0.8 * hard + 0.1)
    task._trainer = SimpleNamespace(datamodule=SimpleNamespace(seed=0), global_step=0)
    p = (math.log(0.75), math.log(0.25))
    losses = [-(0.3 * p[0] + 0.7 * p[1]), -(0.9 * p[0] + 0.1 * p[1])]
    by_hand = ((0.25 * 0.5 + 0.75 * 3.0) * losses[0] + 0.5 * losses[1]) / 2
    assert task.training_step(batch, 0).item() == pytest.approx(by_hand, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_weighs_down_what_is_right_already(gamma):
    task, raw, batch, _ = classification(label_smoothing=0.0, loss="focal", focal_gamma=gamma)
    knowing(task, raw)
    by_hand = -(0.25**gamma * math.log(0.75) + 0.75**gamma * math.log(0.25)) / 2
    assert task.training_step(batch, 0).item() == pytest.approx(by_hand, rel=1e-5)


def test_the_focal_loss_of_a_sure_sample_has_a_finite_gradient():
    logits = torch.tensor([[100.0, 0.0]], requires_grad=True)
    focal_cross_entropy(logits, torch.tensor([[1.0, 0.0]]), 0.5).sum().backward()
    assert logits.grad.isfinite().all()


def test_the_focal_loss_is_that_of_torchvision_for_two_classes():
    raw = torch.randn(16, generator=torch.Generator().manual_seed(0))
    labels = (torch.arange(16) % 2).float()
    theirs = sigmoid_focal_loss(raw, labels, alpha=-1, gamma=2.0)
    logits = torch.stack([torch.zeros(16), raw], dim=1)
    ours = focal_cross_entropy(logits, torch.stack([1 - labels, labels], dim=1), 2.0)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"class_weights": [1.0, 2.0, 3.0]}, "class_weights has 3 weights, and there are 2"),
        ({"class_weights": [1.0, -2.0]}, "class_weights"),
        ({"class_weights": [0.0, 0.0]}, "class_weights"),
        ({"class_weights": [1.0, math.nan]}, "class_weights"),
        ({"class_weights": "balanced"}, "class_weights must be auto"),
        ({"loss": "hinge"}, "loss"),
        ({"focal_gamma": -1.0}, "focal_gamma"),
    ],
)
def test_weights_and_losses_that_make_no_sense_are_refused(options, named):
    with pytest.raises(ConfigError, match=named):
        classification(**options)


def weighed(labels, **data):
    task = ClassificationTask(PlainBackbone("test_resnet"), 3, class_weights="auto")
    data = SimpleNamespace(num_classes=3, training_labels=lambda: labels, **data)
    task._trainer = SimpleNamespace(datamodule=data)
    task.setup("fit")
    return task


def test_automatic_weights_are_inverse_to_the_training_labels_with_a_mean_of_one():
    labels = [0] * 6 + [1] * 3 + [2]
    weights = weighed(labels)._weights
    torch.testing.assert_close(weights, torch.tensor([10 / 18, 10 / 9, 10 / 3]))
    assert weights[torch.tensor(labels)].mean().item() == pytest.approx(1)
    assert "_weights" not in weighed(labels).state_dict()


def test_automatic_weights_are_refused_where_they_would_correct_twice_or_know_nothing():
    with pytest.raises(ConfigError, match="balanced"):
        weighed([0, 1, 2], balanced=True)
    task = ClassificationTask(PlainBackbone("test_resnet"), 3, class_weights="auto")
    with pytest.raises(ConfigError, match="training_labels"):
        task.setup("fit")


class Policy:
    """What the loss of a policy needs of its task: odds of 3 to 1, and values."""

    clip_coef, clip_vloss, norm_adv = 0.1, True, "none"
    vf_coef, ent_coef = 0.5, 0.01
    _normalised = PPOTask._normalised

    def __call__(self, observations):
        """Logits and values of two samples."""
        return torch.tensor([[math.log(3.0), 0.0]] * 2), torch.tensor([1.0, 2.0])


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

    loss, noted = PPOTask.losses(Policy(), samples)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert noted["policy_loss"].item() == pytest.approx(-(2.0 - 1.0) / 2)
    assert noted["value_loss"].item() == pytest.approx((1.0 + 9.0) / 2 / 2)
    assert noted["entropy"].item() == pytest.approx(entropy)
    assert loss.item() == pytest.approx(-0.5 + 0.5 * 2.5 - 0.01 * entropy)


def test_the_ratio_is_of_the_new_to_the_old_policy_and_values_go_as_far_as_the_clip():
    samples = Samples(
        observations=torch.zeros(2, 4, 84, 84),
        actions=torch.tensor([0, 1]),
        log_probs=torch.tensor([math.log(0.5), math.log(0.5)]),  # now 0.75 and 0.25
        values=torch.tensor([0.0, 2.0]),
        advantages=torch.tensor([2.0, 1.0]),
        returns=torch.tensor([2.0, 5.0]),
    )
    policy = Policy()
    _, noted = PPOTask.losses(policy, samples)
    # Ratios are 1.5, which is clipped to 1.1, and 0.5, which is not, for it makes less of a gain.
    assert noted["policy_loss"].item() == pytest.approx(-(1.1 * 2.0 + 0.5 * 1.0) / 2)
    # The first value may count as 0.1 only, and the greater error of both is taken.
    assert noted["value_loss"].item() == pytest.approx((1.9**2 + 3.0**2) / 2 / 2)
    policy.clip_vloss = False
    _, noted = PPOTask.losses(policy, samples)
    assert noted["value_loss"].item() == pytest.approx((1.0 + 9.0) / 2 / 2)


def test_advantages_of_a_minibatch_get_mean_zero_and_deviation_one():
    policy = Policy()
    policy.norm_adv = "rank"
    found = policy._normalised(torch.tensor([1.0, 4.0, 7.0]))
    assert found.tolist() == pytest.approx([-1.0, 0.0, 1.0])
    assert policy._normalised(torch.tensor([5.0])).tolist() == [5.0]


def test_every_pass_takes_all_samples_once_in_an_order_of_its_own():
    parts = []

    class Learner(Policy):
        update_epochs, num_minibatches, device = 3, 4, torch.device("cpu")
        trainer, _minibatches = SimpleNamespace(world_size=1), PPOTask._minibatches

        def optimizers(self):
            return SimpleNamespace(zero_grad=lambda: None, step=lambda: None)

        def _generator(self, purpose):
            return torch.Generator().manual_seed(purpose)

        def manual_backward(self, loss):
            pass

        def losses(self, part):
            parts.append(part.tolist())
            return None, {"policy_loss": torch.tensor(float(len(parts)))}

    rollout = SimpleNamespace(learnable=lambda: torch.arange(10, 20), samples=lambda part: part)
    noted = PPOTask.learn(Learner(), rollout)
    assert [len(part) for part in parts] == [3, 3, 2, 2] * 3
    passes = [list(chain(*parts[4 * k : 4 * k + 4])) for k in range(3)]
    assert all(sorted(order) == list(range(10, 20)) for order in passes)
    assert list(range(10, 20)) not in passes
    assert passes[0] != passes[1] != passes[2]
    assert noted["policy_loss"] == sum(range(1, 13)) / 12  # of all steps alike


def test_adam_of_a_policy_has_the_eps_of_the_reference():
    task = SimpleNamespace(trainer=SimpleNamespace(precision_plugin=SimpleNamespace()))
    assert PPOTask.optimizer_options(task, "adam") == {"eps": 1e-5, "fused": True}
    assert PPOTask.optimizer_options(task, "sgd") == {}


def test_the_loss_of_an_evaluation_is_the_mean_over_all_samples():
    task, raw, batch, _ = classification()
    task.log = task.log_dict = lambda *values, **options: None
    task.mean_output = lambda images: raw[: len(images)]
    for count, label in ((2, 0), (1, 1)):
        batch = {"image": IMAGES[:count], "label": torch.full((count,), label)}
        task.validation_step(batch, 0)
    by_hand = -(2 * math.log(0.75) + math.log(0.25)) / 3
    assert task.val_loss.compute().item() == pytest.approx(by_hand, rel=1e-5)
