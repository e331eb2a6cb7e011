"""``MultiLabelTask``: losses, thresholds in checkpoints, ensembles, what is refused."""

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F
from timm.loss import AsymmetricLossMultiLabel

from zoo_lightning import (
    MultiLabelImages,
    MultiLabelTask,
    PlainBackbone,
    informed_start,
    load_task,
    save_ensemble,
)
from zoo_lightning.analysis.measuring import judge, measure_of, validation_scores
from zoo_lightning.analysis.report import gate_report
from zoo_lightning.callbacks import AveragedWeights
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.ensembles import average_tasks, joint_task
from zoo_lightning.metrics import best_thresholds
from zoo_lightning.nn.heads.losses import label_cross_entropy, label_distillation_loss
from zoo_lightning.tasks import ClassificationTask
from zoo_lightning.transfer.head_start import label_logistic


def task(labels=3, **options) -> MultiLabelTask:
    torch.manual_seed(0)
    return MultiLabelTask(PlainBackbone("test_resnet"), labels, **options)


def data(root, **options):
    return MultiLabelImages(str(root), image_size=16, batch_size=4, num_workers=0, **options)


def trainer(**options):
    return pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        num_sanity_val_steps=0, **options,
    )  # fmt: skip


def batch(labels, images=2, size=16):
    return {
        "image": torch.randn(images, 3, size, size),
        "label": torch.tensor(labels, dtype=torch.int8),
        "index": torch.arange(images),
    }


def test_the_loss_is_binary_cross_entropy_over_what_is_known():
    logits = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    labels = torch.tensor([[1, 0], [0, -1]], dtype=torch.int8)
    wanted = F.binary_cross_entropy_with_logits(
        torch.tensor([1.0, -2.0, 0.5]), torch.tensor([1.0, 0.0, 0.0])
    )
    assert label_cross_entropy(logits, labels) == pytest.approx(float(wanted))
    nothing = logits.clone().requires_grad_()
    label_cross_entropy(nothing, torch.full((2, 2), -1)).backward()
    assert nothing.grad.eq(0).all()


def test_the_asymmetric_loss_is_timms():
    made = task(2, loss="asymmetric", label_smoothing=0.1, gamma_neg=3.0, clip=0.1)
    logits, labels = torch.tensor([[1.0, -2.0], [0.5, 3.0]]), torch.tensor([[1, 0], [0, 1]])
    timms = AsymmetricLossMultiLabel(3.0, 1.0, 0.1, smoothing=0.1, reduction="mean")
    assert made._loss(logits, labels) == pytest.approx(float(timms(logits, labels)))
    each = AsymmetricLossMultiLabel(3.0, 1.0, 0.1, smoothing=0.1, reduction="none")(logits, labels)
    labels[1, 1] = -1
    assert made._loss(logits, labels) == pytest.approx(float(each.flatten()[:3].mean()))


def test_distillation_is_zero_for_equal_outputs_and_hintons_for_two_classes():
    student, teacher = torch.tensor([[0.3, -1.0]]), torch.tensor([[2.0, 0.5]])
    assert label_distillation_loss(teacher, teacher, 2.0) == pytest.approx(0)
    two = [torch.stack([each / 2, torch.zeros(1, 2)], dim=-1) for each in (student, teacher)]
    wanted = F.kl_div(two[0].log_softmax(-1), two[1].log_softmax(-1), log_target=True,
                      reduction="sum") / 2 * 4  # fmt: skip
    assert label_distillation_loss(student, teacher, 2.0) == pytest.approx(float(wanted))
    assert task().imitation(student, teacher).isfinite()


def test_an_ensembles_probabilities_are_the_members_mean_and_so_are_its_thresholds():
    members = []
    for seed in range(3):
        torch.manual_seed(seed)
        each = MultiLabelTask(PlainBackbone("test_resnet"), 3).eval()
        torch.nn.init.normal_(each.head.weight, std=1.0)
        each.thresholds.fill_(0.1 * (seed + 1))
        members.append(each)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = torch.stack([each(images).sigmoid() for each in members]).mean(0)
        joint = joint_task(members)
        assert torch.allclose(joint(images).sigmoid(), wanted, atol=1e-6)
        assert torch.allclose(joint.fold()(images).sigmoid(), wanted, atol=1e-6)
    assert joint.thresholds.tolist() == pytest.approx([0.2] * 3)
    assert average_tasks(members).thresholds.tolist() == pytest.approx([0.2] * 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "focal"}, "loss must be one of bce, asymmetric"),
        ({"pos_weight": "many"}, "pos_weight must be one of none, auto"),
        ({"pos_weight": [1.0, 2.0]}, "for each of the 3 labels"),
        ({"pos_weight": [1.0, 2.0, 0.0]}, "above 0"),
        ({"label_smoothing": 1.0}, "label_smoothing"),
        ({"gamma_neg": -1.0}, "gamma_neg"),
        ({"gamma_pos": -1.0}, "gamma_pos"),
        ({"clip": 1.0}, "clip"),
        ({"labels": 0}, "num_classes"),
    ],
)
def test_options_out_of_range_are_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        task(**options)


def test_weights_of_rare_labels_come_from_the_training_labels(label_root):
    module = data(label_root)
    made = task(pos_weight="auto")
    trainer(max_steps=1, limit_val_batches=0, enable_checkpointing=False).fit(made, module)
    labels = module.label_states()
    wanted = (labels == 0).sum(0) / (labels == 1).sum(0)
    assert made.positive_weight.tolist() == pytest.approx(wanted.tolist())
    logits = torch.zeros(1, 3)
    there, absent = torch.ones(1, 3), torch.zeros(1, 3)
    ratio = made._loss(logits, there) / made._loss(logits, absent)
    assert ratio == pytest.approx(wanted.mean())


@pytest.mark.parametrize("averaged", [False, True])
def test_a_checkpoint_has_the_thresholds_that_its_own_validation_chose(
    label_root, tmp_path, averaged
):
    module = data(label_root, val_fraction=0.4, crop_scale=1.0)
    keeper = pl.callbacks.ModelCheckpoint(tmp_path, "best", monitor="step", mode="max")
    callbacks = [keeper, *([AveragedWeights()] if averaged else [])]
    made = task(lr=0.02, schedule="constant")
    fitting = trainer(max_steps=8, val_check_interval=4, max_epochs=-1, callbacks=callbacks,
                      check_val_every_n_epoch=None)  # fmt: skip
    fitting.fit(made, module)
    saved = load_task(tmp_path / "best.ckpt")
    assert saved.thresholds.tolist() == made.thresholds.tolist()
    assert saved.thresholds.tolist() != [0.5] * 3
    assert made.facts()["thresholds"] == pytest.approx(made.thresholds.tolist(), abs=1e-6)
    # Chosen again from the same weights they are the same, and no validation outside training does.
    scores = validation_scores(saved, module)
    again = best_thresholds(scores.outputs, torch.full((3,), 0.5, dtype=torch.float64))
    assert saved.thresholds.tolist() == pytest.approx(again.tolist(), abs=1e-4)
    saved.thresholds.fill_(0.123)
    [validated] = trainer().validate(saved, module, verbose=False)
    assert saved.thresholds.tolist() == pytest.approx([0.123] * 3)
    assert 100 * validated["val/map"] == pytest.approx(judge(saved, module), abs=1e-3)
    assert measure_of(saved).name == "map"
    assert scores.error.shape == scores.loss.shape == (len(module.val_set),)


def test_an_ensemble_that_was_saved_tests_with_the_mean_thresholds(label_root, tmp_path):
    module = data(label_root)
    for seed in range(2):
        made = task()
        one = trainer(max_steps=1, limit_val_batches=0, enable_checkpointing=False)
        one.fit(made, module)
        made.thresholds.fill_(0.2 + 0.2 * seed)
        one.save_checkpoint(tmp_path / str(seed) / "checkpoints" / "best.ckpt")
    path = save_ensemble([tmp_path / "0", tmp_path / "1"], tmp_path / "both")
    assert load_task(path).thresholds.tolist() == pytest.approx([0.3] * 3)
    tested = task()
    trainer().test(tested, module, ckpt_path=str(path), verbose=False, weights_only=False)
    assert tested.thresholds.tolist() == pytest.approx([0.3] * 3)


def test_a_head_is_solved_for_each_label():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    labels = (features[:, :2] > 0).double()
    labels[::3, 1] = -1
    weight, bias = label_logistic(features, labels, 1e-3)
    found = features @ weight + bias > 0
    assert (found == (features[:, :2] > 0)).double().mean() > 0.97
    assert weight[:, 0].abs().argmax() == 0


def test_the_informed_start_and_the_solved_head_take_labels(label_root):
    module = data(label_root, crop_scale=1.0, flip=0.0, jitter=0.0)
    sources = ["random:1", "random:2"]
    weights = informed_start("test_resnet", sources, module, "greedy")
    assert sum(weights) == pytest.approx(1, abs=1e-3)
    backbone = PlainBackbone("test_resnet", sources, weights=weights)
    made = MultiLabelTask(backbone, 3, head_init="probe", lr=0.0, label_smoothing=0.1)
    trainer(max_steps=1, limit_val_batches=0, enable_checkpointing=False).fit(made, module)
    [found] = trainer().validate(made, module, verbose=False)
    assert found["val/map"] > 0.9


def test_gates_are_not_reported_for_labels(label_root):
    with pytest.raises(ConfigError, match="not for MultiLabelTask"):
        gate_report(task(), data(label_root))


def test_other_labels_than_the_heads_are_refused(label_root):
    with pytest.raises(ConfigError, match="the head has 4 classes, the data have 3"):
        trainer().validate(task(4), data(label_root))
    classifier = ClassificationTask(PlainBackbone("test_resnet"), 3)
    with pytest.raises(ConfigError, match="alike"):
        joint_task([task(), classifier])
