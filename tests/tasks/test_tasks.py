"""Tasks: losses, the head's start, what heads give, and that they learn."""

from dataclasses import replace
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from zoo_lightning.callbacks.gates import GateEMA
from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.data.landmarks.schemes import FACES5
from zoo_lightning.data.synthetic.drawn_faces import DrawnFaces
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import ClassificationTask, LandmarkTask


def zoo(**options) -> ZooBackbone:
    """A small lite zoo of two random sources."""
    return ZooBackbone("test_resnet", ["random:1", "random:2"], **{"mode": "lite", **options})


def landmarks(backbone=None, **options) -> LandmarkTask:
    """A task of five points."""
    return LandmarkTask(backbone or PlainBackbone("test_resnet"), 5, **options)


def trainer_for(folder, **options) -> pl.Trainer:
    """A quiet Trainer that keeps nothing."""
    quiet = {
        "accelerator": "cpu",
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": str(folder),
    }
    return pl.Trainer(**(quiet | options))


# Landmarks


def test_a_new_head_starts_from_the_training_sets_mean_shape(tmp_path):
    task = landmarks(lr=0.0, schedule="constant")
    data = DrawnFaces(30, 4, 4, 32, 5, 4, num_workers=0)
    trainer_for(tmp_path, max_steps=1, limit_val_batches=0).fit(task, datamodule=data)
    points = torch.stack([data.train_set[0, index]["points"] for index in range(30)])
    torch.testing.assert_close(task.head.bias.view(5, 2), points.mean(dim=0) / 32)


def test_the_mean_shape_is_of_the_images_in_which_a_point_is_annotated():
    task = landmarks()
    points = torch.full((2, 5, 2), 8.0)
    points[1, 0], points[1, 1] = torch.nan, torch.tensor([24.0, 16.0])
    visible = torch.ones(2, 5, dtype=torch.bool)
    visible[1, 0] = visible[0, 2] = visible[1, 2] = False
    samples = {
        (0, i): {"image": torch.zeros(3, 32, 32), "points": points[i], "visible": visible[i]}
        for i in range(2)
    }
    data = SimpleNamespace(train_set=samples)
    task._trainer = SimpleNamespace(ckpt_path=None, datamodule=data)
    task.on_fit_start()
    # Known in one image, in both, and in none: there the image's middle.
    assert task.head.bias.view(5, 2)[:3].tolist() == [[0.25, 0.25], [0.5, 0.375], [0.5, 0.5]]


def test_given_weights_keep_their_head(tmp_path):
    task = landmarks(lr=0.0, schedule="constant")
    task.weights_given = True
    data = DrawnFaces(8, 4, 4, 32, 5, 4, num_workers=0)
    trainer_for(tmp_path, max_steps=1, limit_val_batches=0).fit(task, datamodule=data)
    assert (task.head.bias == 0.5).all()


def test_outputs_are_fractions_and_predictions_pixels():
    task = landmarks().eval()
    data = DrawnFaces(4, 4, 4, 32, 5, 4, num_workers=0)
    data.setup("test")
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    with torch.no_grad():
        fractions, found = task.points(batch["image"]), task.predict_step(batch)
    assert fractions.shape == (4, 5, 2)
    torch.testing.assert_close(found["input"], 32 * fractions)
    torch.testing.assert_close(found["original"], found["input"])  # drawn at the input's size


def test_a_head_for_other_points_than_the_data_have_is_refused(tmp_path):
    task = landmarks()
    with pytest.raises(ConfigError, match=r"5 points, the data have 68.*num_points"):
        trainer_for(tmp_path, max_steps=1).fit(task, datamodule=DrawnFaces(8, 4, 4, 32, 68, 4, 0))


def test_coordinates_need_pooled_features():
    with pytest.raises(ConfigError, match="pooled"):
        LandmarkTask(PlainBackbone("test_resnet", output="map"))


def test_heat_maps_need_feature_maps():
    with pytest.raises(ConfigError, match="stages"):
        landmarks(head="heatmaps")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "adaptive_wing"}, "head: heatmaps"),
        ({"head": "heatmaps", "decode": "argmax"}, "soft_argmax"),
        ({"head": "heatmaps", "heatmap_stride": 3}, "power of two"),
        ({"head": "heatmaps", "sigma": 0.0}, "sigma"),
        ({"head": "heatmaps", "heatmap_weight": -1.0}, "heatmap_weight"),
        ({"head": "heatmaps", "head_width": 0}, "head_width"),
        ({"thresholds": (0.1, 0.0)}, "thresholds"),
    ],
)
def test_options_of_heads_that_make_no_sense_are_refused(options, words):
    output = "stages" if "head" in options else "pooled"
    with pytest.raises(ConfigError, match=words):
        landmarks(PlainBackbone("test_resnet", output=output), **options)


def heat_maps(**options) -> LandmarkTask:
    """A task of five points with heat maps from a network's stages."""
    return landmarks(PlainBackbone("test_resnet", output="stages"), head="heatmaps", **options)


def test_mirroring_a_network_that_sees_no_sides_changes_nothing(tmp_path):
    # A network whose output for a mirrored image is the mirrored output averages two equal ones.
    task = heat_maps(flip_test=True).eval()
    task.flip.copy_(torch.tensor(FACES5.flip))
    with torch.no_grad():
        for parameter in task.head.final.parameters():
            parameter.normal_()
        images = torch.randn(2, 3, 64, 64)
        found = task.points(images)
        mirrored = task.points(images.flip(-1))[:, list(FACES5.flip)]
    expected = torch.stack([1 - mirrored[..., 0], mirrored[..., 1]], dim=-1)
    torch.testing.assert_close(found, expected)
    task.flip_test = False
    assert not torch.allclose(task.points(images), found, atol=1e-4)


def test_a_checkpoint_remembers_what_swaps_in_a_mirror_image(tmp_path):
    task = landmarks(flip_test=True)
    trainer = trainer_for(tmp_path, max_steps=1, limit_val_batches=0)
    trainer.fit(task, datamodule=DrawnFaces(8, 4, 4, 32, 5, 4, 0))
    again = landmarks(flip_test=True)
    again.load_state_dict(task.state_dict())
    assert again.flip.tolist() == list(FACES5.flip)


def test_averaging_with_the_mirror_image_needs_to_know_what_swaps(tmp_path):
    task = landmarks(flip_test=True)
    data = DrawnFaces(8, 4, 4, 32, 5, 4, 0)
    data.scheme = replace(data.scheme, flip=None)
    with pytest.raises(ConfigError, match="flip_pairs"):
        trainer_for(tmp_path, max_steps=1).fit(task, datamodule=data)


def test_points_that_do_not_count_do_not_move_the_weights():
    task = landmarks()
    batch = {
        "image": torch.randn(2, 3, 32, 32),
        "points": torch.rand(2, 5, 2) * 32,
        "visible": torch.ones(2, 5, dtype=torch.bool),
    }
    batch["visible"][:, 3:] = False
    gradients = []
    for value in (0.0, float("nan")):
        batch["points"][:, 3:] = value
        task.zero_grad()
        task.log = lambda *args, **kwargs: None
        task.training_step(batch, 0).backward()
        gradients.append(task.head.bias.grad.clone())
    assert torch.equal(*gradients)
    assert (gradients[0].view(5, 2)[3:] == 0).all()
    assert (gradients[0].view(5, 2)[:3] != 0).any()


@pytest.mark.parametrize(
    "options",
    [
        {"loss": "wing", "heatmap_weight": 1.0},
        {"loss": "heatmap_mse", "decode": "argmax"},
        {"loss": "adaptive_wing", "decode": "taylor"},
    ],
    ids=lambda options: options["loss"],
)
def test_a_heat_map_task_learns(tmp_path, options):
    torch.manual_seed(0)
    data = DrawnFaces(64, 16, 4, 32, 5, 16, num_workers=0)
    task = heat_maps(heatmap_stride=2, lr=8e-3, **options)
    trainer = trainer_for(
        tmp_path, max_steps=40, max_epochs=-1, check_val_every_n_epoch=None, val_check_interval=40
    )
    before = trainer.validate(task, datamodule=data, verbose=False)[0]["val/nme"]
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["val/nme"] < 0.6 * before


def test_zoos_alone_get_the_gates_average():
    assert any(isinstance(each, GateEMA) for each in landmarks(zoo()).configure_callbacks())
    assert landmarks().configure_callbacks() == []


def test_folding_a_task_gives_its_own_output():
    task = landmarks(zoo()).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = task(images)
        torch.testing.assert_close(task.fold()(images), expected, rtol=1e-4, atol=1e-5)


def test_an_hrnet_zoo_with_heat_maps_trains_folds_and_exports(tmp_path):
    torch.manual_seed(0)
    sources = ["random:1", "random:2"]
    backbone = ZooBackbone("hrnet_w18_small", sources, mode="lite", output="stages")
    task = landmarks(backbone, head="heatmaps", loss="heatmap_mse", decode="argmax")
    data = DrawnFaces(4, 2, 2, 64, 5, 2, num_workers=0)
    trainer = trainer_for(tmp_path, max_steps=2, max_epochs=-1, limit_val_batches=0)
    trainer.fit(task, datamodule=data)
    images = torch.randn(2, 3, 64, 64)
    folded = task.eval().fold()
    with torch.no_grad():
        expected = task(images)
        torch.testing.assert_close(folded(images), expected, rtol=1e-4, atol=1e-5)
        exported = torch.export.export(folded, (images,)).module()
        torch.testing.assert_close(exported(images), expected, rtol=1e-4, atol=1e-5)
    assert expected.shape == (2, 5, 16, 16)
    assert sum(p.numel() for p in folded.net.parameters()) == 1_477_920  # timm's, one network


@pytest.mark.parametrize("mode", ["lite", pytest.param("full", marks=pytest.mark.slow)])
def test_a_landmark_task_learns_more_than_the_mean_shape(tmp_path, mode):
    torch.manual_seed(0)
    data = DrawnFaces(256, 64, 4, 64, 68, 16, num_workers=0)
    start = {"gate_init": [0.9, 0.1], "norm_weights": "gates"}
    sources = ["builtin:faces5", "builtin:rotation"]
    task = LandmarkTask(ZooBackbone("test_resnet", sources, mode=mode, **start), 68)
    data.setup("fit")
    nn.init.zeros_(task.head.weight)
    shapes = torch.stack([data.train_set[0, index]["points"] for index in range(256)]) / 64
    with torch.no_grad():
        task.head.bias.copy_(shapes.mean(dim=0).flatten())
    trainer = trainer_for(
        tmp_path, max_steps=80, max_epochs=-1, check_val_every_n_epoch=None, val_check_interval=80
    )
    mean_shape = trainer.validate(task, datamodule=data, verbose=False)[0]["val/nme"]
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["val/nme"] < 0.7 * mean_shape


# Classification


def test_a_classification_task_learns_colours_and_logs_its_metrics(tmp_path, class_root):
    torch.manual_seed(0)
    data = ImageFolders(str(class_root), 32, 6, num_workers=0, jitter=0.0, val_fraction=0.2)
    task = ClassificationTask(zoo(), 3, lr=3e-3)
    trainer = trainer_for(tmp_path, max_steps=25, limit_val_batches=0)
    trainer.fit(task, datamodule=data)
    found = trainer.test(task, datamodule=data, verbose=False)[0]
    assert set(found) == {"test/acc", "test/acc5", "test/acc_class", "test/loss"}
    assert found["test/acc"] == 1
    assert found["test/acc5"] == 1
    batch = {"image": torch.randn(2, 3, 32, 32)}
    torch.testing.assert_close(task.predict_step(batch).sum(dim=1), torch.ones(2))


def test_crops_of_an_image_get_the_mean_of_their_logits():
    task = ClassificationTask(PlainBackbone("test_resnet"), 3).eval()
    crops = torch.randn(2, 10, 3, 32, 32)
    mean = torch.stack([task(crops[:, k]) for k in range(10)]).mean(dim=0)
    found = task.predict_step({"image": crops})
    torch.testing.assert_close(found, mean.softmax(dim=1))


def test_a_head_for_other_classes_than_the_data_have_is_refused(tmp_path, class_root):
    task = ClassificationTask(PlainBackbone("test_resnet"), 10)
    data = ImageFolders(str(class_root), 32, 6, num_workers=0)
    with pytest.raises(ConfigError, match=r"10 classes, the data have 3.*num_classes"):
        trainer_for(tmp_path, max_steps=1).fit(task, datamodule=data)
