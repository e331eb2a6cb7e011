"""Learning from trained models."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from zoo_lightning import load_task
from zoo_lightning.methods.distillation import Teacher
from zoo_lightning.nn.heads.losses import distillation_loss
from zoo_lightning.tasks.base import joint_output

FIT = ("fit", "--experiment", "tiny", "--run_dir")
TWO_STEPS = {"trainer.max_steps": 2, "trainer.val_check_interval": 2}


def test_the_loss_is_the_divergence_of_softened_shares_times_the_squared_temperature():
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    shares = [np.exp(z.numpy() / 2) for z in (student, teacher)]
    p, q = (each / each.sum(1, keepdims=True) for each in shares)
    wanted = 4 * (q * np.log(q / p)).sum(1).mean()
    assert float(distillation_loss(student, teacher, 2.0)) == pytest.approx(wanted, rel=1e-5)
    assert float(distillation_loss(student, student, 3.0)) == pytest.approx(0, abs=1e-6)


def test_a_run_learns_from_others_and_its_checkpoint_needs_them_no_more(tiny, command, caplog):
    tiny(**TWO_STEPS)
    assert command(*FIT, "one").status == 0
    assert command(*FIT, "two", "--seed_everything", 1).status == 0
    taught = (*FIT, "taught", "--model.teachers", "[one, two]", "--model.teacher_weight", 1.0)
    done = command(*taught)
    assert done.status == 0, done.err
    assert "teacher       one: outputs, weight 1\nteacher       two: outputs" in caplog.text
    with Path("taught/metrics.csv").open(newline="") as stream:
        losses = [float(row["train/loss"]) for row in csv.DictReader(stream) if row["train/loss"]]
    assert len(losses) == 2
    for name in ("one", "two"):
        Path(name).rename(f"{name}-gone")
    task = load_task("taught")
    assert not any("teacher" in key for key in task.state_dict())
    # Wholly taught, the first loss is that against the mean of the teachers' points.
    images = torch.randn(4, 3, 32, 32)
    members = [load_task("one-gone"), load_task("two-gone")]
    teacher = Teacher(joint_output(members), 1.0)
    with torch.no_grad():
        raw = task(images)
        mean = torch.stack([load_task(f"{n}-gone").points(images) for n in ("one", "two")]).mean(0)
        wanted = task.head.loss(raw, mean)
        found = teacher(torch.tensor(7.0), images, raw, task.imitation)
    assert float(found) == pytest.approx(float(wanted), rel=1e-5)


@torch.no_grad()
def test_a_teacher_gets_images_as_they_were_normalised_in_its_training(tiny, command):
    tiny(**TWO_STEPS)
    assert command(*FIT, "one", "--run_test", "false").status == 0
    teacher = load_task("one")
    own = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    other = {"mean": [0.1, 0.2, 0.3], "std": [0.5, 0.4, 0.3]}
    pixels = torch.rand(4, 3, 32, 32)

    def taught(images):
        student = load_task("one")
        student.hparams["teachers"] = ["one"]
        student.load_teachers(SimpleNamespace(**images))
        return student.teacher.model(normalised(pixels, images))

    expected = joint_output([teacher])(normalised(pixels, own))
    assert torch.equal(taught(own), expected)
    torch.testing.assert_close(taught(other), expected, rtol=1e-4, atol=1e-5)


def normalised(pixels, images):
    mean, std = (torch.tensor(images[key]).view(3, 1, 1) for key in ("mean", "std"))
    return (pixels - mean) / std


def test_teachers_that_are_not_there_are_refused_before_training(tiny, command):
    tiny(**TWO_STEPS)
    done = command(*FIT, "run", "--model.teachers", "[nowhere]")
    assert done.status == 2
    assert "nowhere" in done.err.strip().splitlines()[-1]
    assert "Traceback" not in done.err
    done = command(*FIT, "run", "--model.temperature", 0)
    assert done.status == 2
    assert "temperature must be above 0, got 0" in done.err
