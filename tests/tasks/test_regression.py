"""Regression: what is learned in the tables' units, what a checkpoint keeps, what is refused."""

from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch.utils.data import DataLoader

from zoo_lightning import (
    ClassificationTask,
    ImageNumbers,
    LandmarkTask,
    RegressionTask,
    load_task,
)
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.methods.ensembles import joint_task

NAMES = ["year", "dose"]


def task(names=NAMES, **options):
    torch.manual_seed(0)
    return RegressionTask(PlainBackbone("test_resnet"), names, **options)


def scaled(mean=(1990.0, 0.5), std=(10.0, 0.01), **options):
    made = task(**options).eval()
    made.head.set_scale(torch.tensor(mean), torch.tensor(std))
    return made


def trainer(folder, **options):
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(folder),
        **options,
    )


def test_numbers_of_very_different_sizes_are_learned_together(number_root, tmp_path):
    data = ImageNumbers(
        str(number_root), image_size=32, batch_size=12, num_workers=0, crop_scale=1.0, jitter=0.0,
        val_fraction=0.25,
    )  # fmt: skip
    learner = task(["bright", "red"], lr=1e-2, schedule="constant")
    fit = trainer(tmp_path, max_steps=60, max_epochs=-1, enable_checkpointing=False)
    fit.fit(learner, data)
    torch.testing.assert_close(learner.head.target_mean, torch.tensor(data.target_mean))
    data.setup("test")
    found = fit.predict(learner, data)
    wanted = torch.stack([label for _, label in data.test_set.samples])
    away = (torch.cat(found) - wanted).abs() / torch.tensor(data.target_std)
    assert away.mean() < 0.5  # always saying the mean has 0.8


def test_a_checkpoint_has_the_scale_and_is_tested_without_training_data(
    number_root, tmp_path, monkeypatch
):
    options = {"image_size": 32, "batch_size": 4, "num_workers": 0, "val_fraction": 0.25}
    fit = trainer(tmp_path, max_steps=2, max_epochs=-1)
    learner = task(["bright", "red"])
    fit.fit(learner, ImageNumbers(str(number_root), **options))
    path = tmp_path / "some.ckpt"
    fit.save_checkpoint(path)
    (number_root / "train.csv").unlink()
    loaded = load_task(path)
    assert loaded.target_names == ["bright", "red"]
    torch.testing.assert_close(loaded.head.target_std, learner.head.target_std)
    data = ImageNumbers(str(number_root), **options)
    [scores] = trainer(tmp_path).test(task(["bright", "red"]), data, ckpt_path=path, verbose=False,
                                      weights_only=True)  # fmt: skip
    [alone] = trainer(tmp_path).test(loaded, data, verbose=False)
    assert scores == pytest.approx(alone)
    assert scores["test/mae/red"] < 10  # in units, whose mean is near a thousand
    turned = ImageNumbers(str(number_root), targets=["red", "bright"], **options)
    with pytest.raises(ConfigError, match="predicts bright, red, the data have red, bright"):
        trainer(tmp_path).test(loaded, turned, verbose=False)


def test_trained_weights_keep_their_own_scale():
    data = SimpleNamespace(target_names=NAMES, target_mean=[0.0, 0.0], target_std=[1.0, 1.0])
    for given in (True, False):
        made = scaled()
        made._trainer = SimpleNamespace(datamodule=data, training=True)
        made.weights_given = given
        made.setup("fit")
        assert (made.head.target_mean[0] == 1990) == given
        made.setup("test")
        assert (made.head.target_mean[0] == 1990) == given


def test_loaders_alone_have_standardised_numbers(tmp_path):
    pairs = [{"image": torch.randn(3, 32, 32), "numbers": torch.randn(2)} for _ in range(8)]
    loader = DataLoader(pairs, batch_size=4)
    fit = trainer(tmp_path, max_steps=2, max_epochs=-1, enable_checkpointing=False)
    learner = task()
    fit.fit(learner, loader, loader)
    assert learner.head.target_std.tolist() == [1, 1]
    assert fit.callback_metrics["val/nmae"] > 0


def test_an_ensemble_averages_numbers_whatever_the_networks_scales():
    first, second = scaled(), scaled(mean=(1000.0, 0.2), std=(3.0, 5.0))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        wanted = (first(images) + second(images)) / 2
        joint = joint_task([first, second])
        torch.testing.assert_close(joint(images), wanted)
        torch.testing.assert_close(joint.fold()(images), wanted)
        torch.testing.assert_close(first.fold()(images), first(images))
    with pytest.raises(ConfigError, match="targets dose, year"):
        joint_task([first, task(["dose", "year"])])


def test_teachers_are_imitated_in_standard_deviations():
    student, teacher = scaled(), scaled(mean=(2000.0, 0.5))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        student.backbone.load_state_dict(teacher.backbone.state_dict())
        student.head.weight.copy_(teacher.head.weight)
        loss = student.imitation(student(images), teacher(images))
    assert float(loss) == pytest.approx(0.5, rel=1e-3)  # one target is away by one deviation
    with pytest.raises(ConfigError, match="predicts dose, year, the task year, dose"):
        student.lesson([task(["dose", "year"])], [[teacher]])


def test_crops_are_averaged():
    made = scaled()
    crops = torch.randn(2, 5, 3, 32, 32)
    with torch.no_grad():
        wanted = torch.stack([made(crops[:, k]) for k in range(5)]).mean(0)
        torch.testing.assert_close(made.predict_step({"image": crops}), wanted)


def test_what_cannot_be_learned_is_refused():
    with pytest.raises(ConfigError, match="loss"):
        task(loss="rmse")
    with pytest.raises(ConfigError, match="delta must be above 0"):
        task(delta=0.0)
    for names in ([], ["a", "a"]):
        with pytest.raises(ConfigError, match="target_names"):
            task(names)
    with pytest.raises(ConfigError, match=r"backbone\.output to pooled"):
        RegressionTask(PlainBackbone("test_resnet", output="stages"))
    with pytest.raises(ConfigError, match="needs numbers"):
        task().check_data(SimpleNamespace(num_classes=2))
    numbers = SimpleNamespace(target_names=NAMES)
    for kind in (ClassificationTask, LandmarkTask):
        with pytest.raises(ConfigError, match="has numbers; give model RegressionTask"):
            kind(PlainBackbone("test_resnet")).check_data(numbers)
    assert task(None).target_names == ["target"]
