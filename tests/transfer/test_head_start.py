"""Heads that start from a linear probe of the backbone's features."""

import lightning.pytorch as pl
import pytest
import torch
import torch.nn.functional as F

from zoo_lightning import DrawnFaces, ImageFolders, ImageNumbers
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.tasks import ClassificationTask, LandmarkTask, RegressionTask
from zoo_lightning.transfer.head_start import linear_head, logistic, solve_head
from zoo_lightning.transfer.ranking import Targets, join_targets, score

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def faces():
    """Drawn faces, set up."""
    data = DrawnFaces(train_size=200, val_size=8, image_size=64, batch_size=32, num_workers=0)
    data.setup("fit")
    return data


def trainer_for(folder, **options):
    """A quiet Trainer that measures nothing before the first step."""
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=str(folder),
        **options,
    )


def zoo(mode="lite"):
    """Two shipped sources."""
    sources = ["builtin:faces5", "builtin:rotation"]
    return ZooBackbone("test_resnet", sources, mode, gate_init=[0.9, 0.1], norm_weights="gates")


def test_a_linear_relation_is_recovered():
    generator = torch.Generator().manual_seed(0)
    features = 3 + 2 * torch.randn(300, 5, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    values = features @ weight.T + torch.tensor([1.0, -2.0, 0.5, 0.0], dtype=torch.float64)
    counted = torch.ones_like(values, dtype=torch.bool)
    found, bias = linear_head(features, Targets("points", values, counted), 4)
    assert torch.allclose(features @ found.T + bias, values, atol=1e-2)


def test_points_that_nobody_sees_stay_in_the_middle_and_do_not_matter():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(100, 3, generator=generator, dtype=torch.float64)
    values = torch.rand(100, 2, generator=generator, dtype=torch.float64)
    hidden = torch.zeros(100, 1, dtype=torch.bool)
    counted = torch.cat([~hidden, hidden], dim=1)
    results = []
    for nonsense in (7.0, float("nan")):
        values[:, 1] = nonsense
        results.append(linear_head(features, Targets("points", values.clone(), counted), 2))
    assert torch.equal(results[0][0], results[1][0])
    weight, bias = results[0]
    assert torch.allclose(features @ weight[1] + bias[1], torch.tensor(0.5, dtype=torch.float64))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_logistic_regression_ends_where_the_gradient_vanishes(smoothing):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    labels = (features[:, :3] + torch.randn(200, 3, generator=generator)).argmax(1)
    weight, bias = logistic(features, labels, 4, 1e-2, smoothing)
    weight.requires_grad_()
    loss = F.cross_entropy(features @ weight + bias, labels, label_smoothing=smoothing)
    (loss + 1e-2 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-4
    assert float(((features @ weight + bias).argmax(1) == labels).double().mean()) > 0.6
    assert bias[3] < bias[:3].min()  # a class that does not occur


@pytest.mark.parametrize("mode", ["lite", "full"])
def test_a_solved_head_knows_the_training_faces_before_the_first_step(tmp_path, faces, mode):
    errors = {}
    for how in ("random", "probe"):
        torch.manual_seed(0)
        task = LandmarkTask(zoo(mode), 68, lr=0.0, head_init=how)
        trainer_for(tmp_path, max_steps=1).fit(task, faces)
        task.eval()
        batch = next(iter(faces.val_dataloader()))
        images = faces.on_after_batch_transfer(batch, 0)["image"]
        with torch.no_grad():
            errors[how] = float((task.points(images) - batch["points"] / 64).norm(dim=-1).mean())
    assert errors["probe"] < 0.8 * errors["random"]


def test_the_solution_is_the_heads_and_leaves_modes_and_generators_alone(tmp_path, faces):
    backbone = zoo().train()
    state = torch.get_rng_state()
    weight, bias = solve_head(backbone, faces, 136, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.training
    assert all(module.training for module in backbone.modules())
    task = LandmarkTask(zoo(), 68, lr=0.0, head_init="probe", weight_decay=0.0)
    trainer_for(tmp_path, max_steps=1).fit(task, faces)
    assert torch.allclose(task.head.weight, weight, atol=1e-5)
    assert torch.allclose(task.head.bias, bias, atol=1e-5)


def test_classes_have_a_solution_too(tmp_path, class_root):
    data = ImageFolders(str(class_root), image_size=32, batch_size=4, num_workers=0)
    task = ClassificationTask(
        PlainBackbone("test_resnet"), data.num_classes, lr=0.0, head_init="probe"
    )
    before = task.head.weight.clone()
    trainer_for(tmp_path, max_steps=1).fit(task, data)
    assert not torch.equal(task.head.weight, before)


def test_going_on_does_not_solve_again(tmp_path, faces, monkeypatch):
    task = LandmarkTask(zoo(), 68, head_init="probe", schedule="constant")
    trainer = trainer_for(tmp_path, max_steps=1)
    trainer.fit(task, faces)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    monkeypatch.setattr("zoo_lightning.callbacks.head_probe.solve_head", None)
    again = LandmarkTask(zoo(), 68, head_init="probe", schedule="constant")
    longer = trainer_for(tmp_path, max_steps=2)
    longer.fit(again, faces, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert longer.global_step == 2


def test_heads_that_cannot_be_solved_for_are_refused(tmp_path, faces):
    heatmaps = LandmarkTask(
        PlainBackbone("test_resnet", output="stages"), 68, head="heatmaps", head_init="probe"
    )
    with pytest.raises(ConfigError, match=r"linear head on pooled features.*HeatmapHead"):
        trainer_for(tmp_path, max_steps=1).fit(heatmaps, faces)
    bare = LandmarkTask(zoo(), 68, head_init="probe")
    with pytest.raises(ConfigError, match="needs a data module"):
        trainer_for(tmp_path, max_steps=1).fit(bare, [])
    with pytest.raises(ConfigError, match="head_init"):
        LandmarkTask(zoo(), 68, head_init="linear")


def test_numbers_of_any_unit_are_solved_by_the_same_penalty_and_put_into_their_head(
    number_root, tmp_path
):
    data = ImageNumbers(
        str(number_root), image_size=32, batch_size=6, num_workers=0, crop_scale=1.0, jitter=0.0
    )
    data.setup("fit")
    learner = RegressionTask(
        PlainBackbone("test_resnet"), ["bright", "red"], head_init="probe", lr=0.0
    )
    fit = trainer_for(tmp_path, max_steps=1, max_epochs=-1, enable_checkpointing=False)
    fit.fit(learner, data)
    learner.eval()
    images = torch.stack([each["image"] for each in (data.train_set[0, i] for i in range(10))])
    wanted = torch.stack([label for _, label in data.train_set.samples][:10])
    with torch.no_grad():
        found = learner(data.on_after_batch_transfer({"image": images}, 0)["image"])
    away = (found - wanted).abs() / learner.head.target_std
    assert (away.mean(0) < 0.5).all()  # always saying the mean has 0.8
    assert learner.head.weight.abs().max() < 10  # of standardised targets, not of a thousand


def test_unknown_numbers_do_not_matter_and_units_change_nothing():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    weight = torch.randn(2, 4, generator=generator, dtype=torch.float64)
    values = features @ weight.T * torch.tensor([1.0, 1e4]) + torch.tensor([5.0, -3e4])
    torn = values.clone()
    torn[:50, 1] = float("nan")
    targets = join_targets([{"numbers": torn[:120]}, {"numbers": torn[120:]}])
    assert targets.kind == "numbers"
    assert targets.counted.sum(0).tolist() == [200, 150]
    known = torch.where(targets.counted, targets.values, 0)
    assert torch.allclose(known.sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-9)
    found, bias = linear_head(features, targets, 2)
    predicted = features @ found.T + bias
    assert torch.allclose(predicted[:, 0], values[:, 0], rtol=0.02, atol=0.05)
    # Unknown numbers count as the mean in fitting, which draws towards it.
    assert torch.corrcoef(torch.stack([predicted[:, 1], values[:, 1]]))[0, 1] > 0.99
    scores = score(features, targets)
    scaled = join_targets([{"numbers": torn * torch.tensor([1e3, 1e-3])}])
    assert score(features, scaled) == pytest.approx(scores, rel=1e-4)
    noise = torch.randn(200, 4, generator=generator, dtype=torch.float64)
    assert score(noise, targets)["logme"] < scores["logme"]
