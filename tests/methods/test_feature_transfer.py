"""Following the features of frozen networks of any architecture."""

import csv
import json
from pathlib import Path

import pytest
import timm
import torch

from zoo_lightning import load_task
from zoo_lightning.data import DrawnFaces
from zoo_lightning.errors import ConfigError, SourceError
from zoo_lightning.methods.feature_transfer import FeatureTransfer, fill_cache, is_cacheable
from zoo_lightning.methods.teachers import TaskInput, load_feature_teacher
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.sources.teachers import parse_teachers
from zoo_lightning.tasks import (
    BaseTask,
    ClassificationTask,
    LandmarkTask,
    PPOTask,
    SegmentationTask,
)

FIT = ("fit", "--experiment", "tiny", "--run_dir")
STUDENT = Architecture("test_resnet")
SEEN = TaskInput(((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)), 32, None)
VIT = {"weights": "random:3", "name": "vit", "architecture": "test_vit"}
PLAIN = {"class_path": "PlainBackbone", "init_args": {"architecture": "test_resnet"}}
TEACHERS = [VIT, {"weights": "random:5", "name": "resnet"}]


def teacher(given, seen=SEEN):
    [spec] = parse_teachers([given])
    return load_feature_teacher(spec, STUDENT, seen)


def rows(run, name):
    with Path(run, "metrics.csv").open(newline="") as stream:
        return [float(row[name]) for row in csv.DictReader(stream) if row[name]]


def test_a_network_of_another_shape_gives_the_features_of_its_own_input():
    own = {"mean": [0.5] * 3, "std": [0.25] * 3, "channels": "bgr", "image_size": 160}
    found = teacher(VIT | own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = timm.create_model("test_vit", num_classes=0).eval()
    pixels = torch.rand(2, 3, 160, 160)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in SEEN.statistics)
    with torch.no_grad():
        wanted = network((pixels.flip(1) - 0.5) / 0.25)
    torch.testing.assert_close(found((pixels - mean) / std), wanted, rtol=1e-4, atol=1e-5)
    assert found.num_features == wanted.shape[1]
    # A transformer with a fixed input size gets it, whatever the task's images are.
    assert teacher(VIT)(torch.randn(2, 3, 32, 32)).shape == wanted.shape


def test_the_architecture_comes_from_the_reference_or_the_tensors(tmp_path):
    assert teacher("builtin:rotation").architecture.name == "test_resnet"
    network = timm.create_model("resnet18", num_classes=0)
    torch.save(network.state_dict(), tmp_path / "other.pth")
    found = teacher(str(tmp_path / "other.pth"))
    assert found.architecture.name == "resnet18"
    assert found.num_features == 512
    torch.save({"some.weight": torch.zeros(3, 3)}, tmp_path / "strange.pth")
    with pytest.raises(SourceError, match="architecture: NAME"):
        teacher(str(tmp_path / "strange.pth"))


def test_what_a_source_was_trained_on_is_what_it_is_given():
    found = teacher("builtin:faces5", TaskInput(((0.5,) * 3, (0.5,) * 3), 32, None))
    assert found.own_input is not None
    assert teacher("builtin:faces5").own_input is None  # ImageNet's statistics, as the task's
    with pytest.raises(ConfigError, match="data with mean and std"):
        teacher("builtin:faces5", TaskInput(None, None, None))


def test_a_run_follows_its_teachers_and_its_checkpoint_needs_them_no_more(tiny, command):
    options = {"teachers": TEACHERS, "feature_weight": 20.0, "lr": 3e-3, "backbone": PLAIN}
    length = {"max_steps": 12, "val_check_interval": 12, "log_every_n_steps": 1}
    tiny(
        **{f"model.init_args.{key}": value for key, value in options.items()},
        **{f"trainer.{key}": value for key, value in length.items()},
    )
    done = command(*FIT, "run")
    assert done.status == 0, done.err
    distances = rows("run", "train/feature_distance")
    assert len(distances) == 12
    assert sum(distances[-4:]) < sum(distances[:4])
    summary = json.loads(Path("run/summary.json").read_text())
    assert {*summary["feature_scales"]} == {"vit", "resnet"}
    assert all(value != 0.5 for value in summary["feature_scales"].values())
    task = load_task("run")
    plain = LandmarkTask(PlainBackbone("test_resnet"), task.num_points)
    assert {*task.state_dict()} == {*plain.state_dict()}
    assert task.transfer is None
    folded = task.backbone.fold().state_dict()
    assert {*folded} == {*timm.create_model("test_resnet", num_classes=0).state_dict()}


@pytest.mark.parametrize("view", ["same", "plain"])
def test_a_resumed_run_ends_with_the_same_weights(view, tiny, command):
    keeper = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": "kept", "every_n_train_steps": 2, "save_top_k": -1},
    }
    options = {"feature_kernels": "each", "teacher_drop": 0.5, "feature_view": view}
    tiny(
        **{f"model.init_args.{key}": value for key, value in options.items()},
        **{
            "model.init_args.teachers": ["random:1", "random:2"],
            "data.init_args.augment": True,
            "trainer.callbacks": [keeper],
            "trainer.max_steps": 4,
            "trainer.val_check_interval": 4,
        },
    )
    assert command(*FIT, "whole").status == 0
    again = command(*FIT, "again", "--ckpt_path", "kept/epoch=0-step=2.ckpt")
    assert again.status == 0, again.err
    whole, again = (
        torch.load(f"{name}/checkpoints/last.ckpt", weights_only=True)
        for name in ("whole", "again")
    )
    for key, value in whole["state_dict"].items():
        assert torch.equal(value, again["state_dict"][key]), key
    scales = [each["callbacks"]["FeatureScales"]["scales"] for each in (whole, again)]
    assert all(torch.equal(a, b) for a, b in zip(*scales, strict=True))


def test_features_are_computed_once_where_images_stay_the_same():
    data = DrawnFaces(10, 4, 4, 32, 5, 4, num_workers=0)
    data.setup("fit")
    networks = [teacher("random:1"), teacher("random:2")]
    transfer = FeatureTransfer(networks, 10.0, "joint", 0.0, "same")
    task = ClassificationTask(PlainBackbone("test_resnet"), 10)
    assert is_cacheable(transfer, data, task)
    fill_cache(transfer, data, torch.device("cpu"))
    assert [each.shape for each in transfer.cache] == [(10, each.num_features) for each in networks]
    for batch in data.train_dataloader():
        images = data.on_after_batch_transfer(batch, 0)["image"]
        for cached, network in zip(transfer.taught(images, batch["index"]), networks, strict=True):
            torch.testing.assert_close(cached, network(images))
    augmented = DrawnFaces(10, 4, 4, 32, 5, 4, augment=True, num_workers=0)
    augmented.setup("fit")
    assert not is_cacheable(transfer, augmented, task)
    plain = FeatureTransfer(networks, 10.0, "joint", 0.0, "plain")
    assert is_cacheable(plain, augmented, task)
    fill_cache(plain, augmented, torch.device("cpu"))
    torch.testing.assert_close(plain.cache, transfer.cache)
    mixing = ClassificationTask(PlainBackbone("test_resnet"), 10, mixup=0.2)
    assert not is_cacheable(transfer, data, mixing)


def test_the_teachers_forward_passes_are_part_of_the_cost(tiny, command):
    tiny(
        **{
            "model.init_args.backbone": PLAIN,
            "trainer.max_steps": 4,
            "trainer.val_check_interval": 4,
        }
    )
    words = ("--model.teachers", "[random:1, random:2]")
    assert command(*FIT, "alone").status == 0
    assert command(*FIT, "followed", *words, "--data.augment", "true").status == 0
    assert command(*FIT, "cached", *words).status == 0
    parts = {
        name: json.loads(Path(name, "summary.json").read_text())["compute"]["parts"]
        for name in ("alone", "followed", "cached")
    }
    # A step is a forward and a backward pass, of about twice its cost.
    more = parts["followed"]["training"] / parts["alone"]["training"]
    assert 1.5 < more < 1.9
    assert parts["cached"]["training"] < 1.05 * parts["alone"]["training"]
    assert parts["cached"]["preparation"] > 0
    # A budget pays for them.
    steps = {}
    for name, given in (("a", ()), ("f", (*words, "--data.augment", "true"))):
        assert command(*FIT, name, *given, "--budget", "4").status == 0
        steps[name] = json.loads(Path(name, "summary.json").read_text())["steps"]
    assert steps["a"] == 16
    assert 16 / 1.9 < steps["f"] < 16 / 1.5


def test_the_method_starts_informed_and_follows_all_sources(tiny, command):
    tiny(**{"trainer.max_steps": 2, "trainer.val_check_interval": 2})
    done = command(*FIT, "run", "--method", "feature-transfer")
    assert done.status == 0, done.err
    summary = json.loads(Path("run/summary.json").read_text())
    assert summary["pipeline"] == "feature-transfer"
    assert {*summary["feature_scales"]} == {"random-1", "random-2"}
    assert summary["compute"]["parts"]["start"] > 0


@pytest.mark.parametrize("head", ["coordinates", "heatmaps"])
def test_landmarks_follow_features_with_both_heads(head, tiny, command):
    changes = {"model.init_args.teachers": ["random:1"], "trainer.max_steps": 2}
    if head == "heatmaps":
        backbone = {**PLAIN, "init_args": {**PLAIN["init_args"], "output": "stages"}}
        changes |= {"model.init_args.head": "heatmaps", "model.init_args.backbone": backbone}
    tiny(**changes, **{"trainer.val_check_interval": 2, "trainer.log_every_n_steps": 1})
    done = command(*FIT, "run")
    assert done.status == 0, done.err
    assert all(0 < value < 2 for value in rows("run", "train/feature_distance"))


def test_outputs_and_features_are_taught_together_each_on_its_own_input(tiny, command):
    tiny(**{"trainer.max_steps": 1, "trainer.val_check_interval": 1})
    other = ("--data.mean", "[0.5, 0.5, 0.5]", "--data.std", "[0.5, 0.5, 0.5]")
    assert command(*FIT, "one", *other).status == 0
    done = command(*FIT, "two", "--model.teachers", "[one, builtin:rotation]")
    assert done.status == 0, done.err
    parts = json.loads(Path("two/summary.json").read_text())["compute"]["parts"]
    cost = json.loads(Path("one/summary.json").read_text())["compute"]["multiply_adds"]
    assert parts["teachers"] == cost  # the frozen source's own training is nobody's here
    task = load_task("two")
    data = DrawnFaces(8, 4, 4, 32, 5, 4, num_workers=0)
    task.load_teachers(data)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (data.mean, data.std))
    with torch.no_grad():
        found = task.teacher.model((pixels - mean) / std)
        torch.testing.assert_close(found, load_task("one")((pixels - 0.5) / 0.5))
    assert [each.name for each in task.transfer.teachers] == ["rotation"]


def test_heads_of_other_kinds_teach_their_points(tiny, command):
    tiny(**{"trainer.max_steps": 1, "trainer.val_check_interval": 1})
    assert command(*FIT, "one").status == 0
    student = LandmarkTask(
        PlainBackbone("test_resnet", output="stages"),
        load_task("one").num_points,
        head="heatmaps",
        teachers=["one"],
    )
    data = DrawnFaces(8, 4, 4, 32, 5, 4, num_workers=0)
    student.load_teachers(data)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        taught = student.teacher.model(images)
        torch.testing.assert_close(taught, load_task("one").points(images))
    raw = student(images)
    torch.testing.assert_close(student.imitation(raw, taught), student.head.loss(raw, taught))
    fewer = LandmarkTask(PlainBackbone("test_resnet"), 3, teachers=["one"])
    with pytest.raises(ConfigError, match="the task has 3"):
        fewer.load_teachers(data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"feature_weight": -1.0}, "feature_weight must be at least 0"),
        ({"feature_kernels": "all"}, "feature_kernels must be one of"),
        ({"feature_view": "clean"}, "feature_view must be one of"),
        ({"teacher_drop": 1.0, "feature_kernels": "each"}, r"teacher_drop must lie in \[0, 1\)"),
        ({"teacher_drop": 0.5}, "feature_kernels: each"),
    ],
)
def test_options_outside_their_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        ClassificationTask(PlainBackbone("test_resnet"), 10, **options)


def test_segmentation_follows_features_and_the_diagonal_learns():
    task = SegmentationTask(
        PlainBackbone("test_resnet", output="stages"), 2, teachers=["random:1", "random:2"]
    )
    data = DrawnFaces(8, 4, 4, 32, 5, 4, num_workers=0)
    task.load_teachers(data)
    logged = {}
    task.log = lambda name, value, **options: logged.update({name: float(value)})
    batch = {"image": torch.randn(4, 3, 32, 32), "labels": torch.zeros(4, 8, 8, dtype=torch.long)}
    task.train().training_step(batch, 0).backward()
    assert 0 < logged["train/feature_distance"] < 2
    task.transfer.step()
    assert all((each != 0).any() for each in task.transfer.scales)


def test_a_checkpoint_does_not_choose_what_code_its_teachers_run(tiny, command):
    tiny(**{"trainer.max_steps": 1, "trainer.val_check_interval": 1})
    assert command(*FIT, "run").status == 0
    path = Path("run/checkpoints/best.ckpt")
    content = torch.load(path, weights_only=True)
    evil = {"weights": "random:1", "architecture": "somebody.elses.function"}
    content["hyper_parameters"]["teachers"] = [evil]
    torch.save(content, path)
    with pytest.raises(ConfigError, match=r"somebody\.elses\.function"):
        load_task("run").load_teachers(None)


def test_tasks_say_what_they_cannot_learn(finished):
    games = PPOTask(PlainBackbone("nature_cnn", in_chans=4), 4, teachers=["random:1"])
    with pytest.raises(ConfigError, match="PPOTask cannot learn from teachers"):
        games.load_teachers(None)

    class Unlike(ClassificationTask):
        imitation = BaseTask.imitation

    own = Unlike(PlainBackbone("test_resnet"), 2, teachers=[str(finished)])
    with pytest.raises(ConfigError, match=r"Unlike .* teach: features"):
        own.load_teachers(None)
    maps = SegmentationTask(
        PlainBackbone("test_resnet", output="stages"), 2, teachers=[str(finished)]
    )
    with pytest.raises(ConfigError, match="LandmarkTask"):
        maps.load_teachers(None)
    mixed = ClassificationTask(
        PlainBackbone("test_resnet"), 2, mixup=0.2, teachers=["random:1"], feature_view="plain"
    )
    with pytest.raises(ConfigError, match="feature_view: same"):
        mixed.load_teachers(None)
