"""The report finds what was planted, and leaves the task as it was."""

from dataclasses import replace

import lightning.pytorch as pl
import pytest
import torch

from zoo_lightning.analysis.measuring import Scores, measure_of, removal_study
from zoo_lightning.analysis.report import gate_report, saturated
from zoo_lightning.data.synthetic.drawn_faces import DrawnFaces
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import ClassificationTask, LandmarkTask, SegmentationTask

MODES = ("full", "lite")
CHANCE_OF_THREE = pytest.approx(100 / 3)


@pytest.fixture(scope="module")
def faces():
    data = DrawnFaces(
        train_size=16, val_size=6, test_size=7, image_size=32, batch_size=4, num_workers=0
    )
    data.setup("fit")
    data.setup("test")
    return data


@pytest.mark.parametrize("mode", MODES)
def test_the_source_that_sees_is_found_whatever_the_gates_say(mode, seeing_and_blind, colours):
    found = gate_report(seeing_and_blind(mode), colours)
    assert (found.samples, found.calibration, found.layer_samples) == (6, 12, 6)
    assert found.metric == 100
    seeing, blind, dark = found.sources
    assert [row.source for row in found.sources] == ["seeing", "blind", "dark"]
    assert seeing.metric == CHANCE_OF_THREE
    assert seeing.effect == pytest.approx(200 / 3)
    assert seeing.metric_alone == 100
    for row in (blind, dark):
        assert (row.metric, row.effect, row.effect_as_is) == (100, 0, 0)
        assert row.metric_alone == CHANCE_OF_THREE
        assert row.gate_share == row.start_share == pytest.approx(1 / 3, abs=1e-3)
        assert row.kernel_share == 0
    assert seeing.kernel_share == 1
    # By layer too, where there is one layer; its gates are even and cannot say so.
    effects = [row.effect for row in found.layers]
    assert effects[0] > 0.1
    assert effects[1:] == pytest.approx([0, 0], abs=1e-5)
    assert found.agreement.kernel_correlation > 0.8
    assert not found.agreement.trusted
    assert found.verdict.startswith("Do not read the gates as worth")


def test_an_empty_source_is_found_in_many_layers(tmp_path, faces):
    parent = ZooBackbone("test_resnet", ["builtin:faces5"]).loaded[0].state
    torch.save({k: torch.zeros_like(v) for k, v in parent.items()}, tmp_path / "empty.pth")
    sources = ["builtin:faces5", str(tmp_path / "empty.pth")]
    backbone = ZooBackbone("test_resnet", sources, "lite", gate_init=[0.9, 0.1])
    task = LandmarkTask(backbone, 68)
    torch.nn.init.normal_(task.head.weight, std=0.05)
    found = gate_report(task, faces, samples=7, calibration=8, layer_samples=4)
    shares = torch.tensor([row.gate_share for row in found.layers])
    assert shares.tolist() == pytest.approx([0.9, 0.1] * (len(shares) // 2))
    assert found.sources[1].metric == pytest.approx(found.metric, rel=1e-3)
    assert found.sources[0].metric != pytest.approx(found.metric, rel=1e-3)
    assert found.sources[0].metric_alone == found.sources[1].metric
    assert found.agreement.values == len(shares)
    assert any("unequal" in line for line in found.remarks)


@pytest.mark.parametrize("mode", MODES)
def test_the_metric_as_trained_is_that_of_a_test(mode, faces, tmp_path):
    backbone = ZooBackbone("test_resnet", ["random:1", "builtin:faces5"], mode)
    task = LandmarkTask(backbone, 68)
    torch.nn.init.normal_(task.head.weight, std=0.01)
    before = {key: value.clone() for key, value in task.state_dict().items()}
    found = gate_report(task, faces, layer_samples=0)
    after = task.state_dict()
    changed = [key for key, value in before.items() if not torch.equal(after[key], value)]
    assert set(changed) <= {"flip"}
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=str(tmp_path),
    )
    tested = trainer.test(task, datamodule=faces, verbose=False)[0]
    assert found.metric_as_is == pytest.approx(tested["test/nme"], rel=1e-5)
    assert found.metric != pytest.approx(found.metric_as_is, rel=1e-3)
    deviations = [row.gate_deviation for row in found.layers]
    assert all((each is None) == (mode == "lite") for each in deviations)
    assert all(row.effect is None for row in found.layers)
    assert found.agreement.values == 0


def test_samples_are_some_of_the_splits_and_the_same_every_time(faces):
    task = LandmarkTask(ZooBackbone("test_resnet", ["random:1", "random:2"]), 68)
    task.check_data(faces)
    first, second = (removal_study(task, faces, "val", 5, 8) for _ in range(2))
    assert sum(len(batch["image"]) for batch in first.batches) == 5
    assert sum(map(len, first.images)) == 8
    assert torch.equal(first.scores().error, second.scores().error)
    assert len(first.scores(batches=1).error) == 4


def test_a_network_without_batch_norms_needs_no_images(task_of, colours):
    task = task_of("lite", seeing=torch.eye(3), blind=torch.zeros(3, 3))
    task.backbone.net[1] = torch.nn.Identity()
    found = gate_report(task, colours)
    assert found.metric == found.metric_as_is
    assert any("no batch norms" in line for line in found.remarks)


@pytest.mark.parametrize("mode", MODES)
def test_gates_that_hardly_learn_any_more_are_named(mode, seeing_and_blind, colours):
    task = seeing_and_blind(mode)
    assert not any("hardly learn" in line for line in gate_report(task, colours).remarks)
    (name, layer), *_ = task.backbone.aggregated_layers().items()
    with torch.no_grad():
        layer.gate.expand.weight.zero_()
        layer.gate.expand.bias.copy_(torch.tensor([20.0, 20.0, -20.0]))
        layer.gate_ema.copy_(layer.gate.initial())
    found = gate_report(task, colours)
    assert [line for line in found.remarks if line.startswith(f"all gates of {name} are within")]
    assert saturated(["a", "b", "c"], torch.tensor([[1.0, 0.0], [0.9999, 0.98], [0.5, 0.5]])) == [
        "a"
    ]


def test_accuracy_and_error_are_two_sides_of_one(seeing_and_blind):
    measure = measure_of(seeing_and_blind("lite"))
    scores = Scores(torch.tensor([0.0, 100.0, 0.0, 0.0]), torch.zeros(4))
    assert measure.of(scores) == 75
    assert replace(measure, rises=False).of(scores) == 25


def test_what_has_no_report_is_refused(faces, colours, seeing_and_blind):
    plain = ClassificationTask(PlainBackbone("test_resnet"), 3)
    with pytest.raises(ConfigError, match="a PlainBackbone, which has no gates"):
        gate_report(plain, colours)
    single = ClassificationTask(ZooBackbone("test_resnet", ["random:1"]), 3)
    with pytest.raises(ConfigError, match="one source, which cannot be removed"):
        gate_report(single, colours)
    stages = ZooBackbone("test_resnet", ["random:1", "random:2"], output="stages")
    with pytest.raises(ConfigError, match="not for SegmentationTask"):
        gate_report(SegmentationTask(stages), colours)
    task = seeing_and_blind("lite")
    for options, words in (
        ({"split": "train"}, "split must be val or test"),
        ({"samples": 1}, "samples must be at least 2"),
        ({"calibration": 0}, "calibration must be at least 2"),
        ({"layer_samples": -1}, "layer_samples must be at least 0"),
    ):
        with pytest.raises(ConfigError, match=words):
            gate_report(task, colours, **options)
    with pytest.raises(ConfigError, match="the data have"):
        gate_report(LandmarkTask(stages, 5, head="heatmaps"), faces)


def test_data_whose_classes_changed_places_are_refused(colours, seeing_and_blind):
    colours.setup("fit")
    turned = colours.class_names[::-1]
    with pytest.raises(ConfigError, match="the same names in another order"):
        gate_report(seeing_and_blind("lite"), colours, classes=turned)
