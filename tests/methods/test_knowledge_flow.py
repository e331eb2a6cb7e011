"""Knowledge Flow: what flows, what it costs, and that the student stands alone in the end."""

import copy

import pytest
import torch

from zoo_lightning import load_task
from zoo_lightning.errors import ArchitectureError, ConfigError
from zoo_lightning.methods import KnowledgeFlow
from zoo_lightning.models.knowledge_flow import Junction

TEACHERS = ["random:1", "random:2"]


def test_a_junction_mixes_features_by_shares_that_sum_to_one():
    junction = Junction(4, 2, own=0.5)
    own, first, second = (torch.randn(3, 4, 5, 5) for _ in range(3))
    torch.testing.assert_close(junction.shares(), torch.tensor([0.5, 0.25, 0.25]))
    wanted = 0.5 * own + 0.25 * first + 0.25 * second
    torch.testing.assert_close(junction(own, [first, second]), wanted)


def test_evaluation_is_that_of_the_student_alone():
    flow = KnowledgeFlow("test_resnet", TEACHERS, start=1).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        alone = flow.architecture.build(flow.net.state_dict()).eval()
        torch.testing.assert_close(flow(images), flow.architecture.features(alone, images))
        # It starts as its teacher.
        teacher = flow._teachers[1]
        torch.testing.assert_close(flow(images), flow.architecture.features(teacher, images))


def test_teachers_flow_in_while_training_and_do_not_learn():
    flow = KnowledgeFlow("test_resnet", TEACHERS, own=0.5)
    for module in flow.net.modules():  # batch statistics would hide what is compared
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.0
    images = torch.randn(4, 3, 32, 32)
    before = copy.deepcopy(flow._teachers[0].state_dict())
    joined = flow.train()(images)
    joined.square().sum().backward()
    assert all(j.weights.grad.abs().sum() > 0 for j in flow.junctions)
    assert all(j.maps[0].weight.grad.abs().sum() > 0 for j in flow.junctions)
    after = flow._teachers[0].state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    assert not any("teacher" in key for key in flow.state_dict())
    with torch.no_grad():
        for junction in flow.junctions:
            junction.weights.copy_(torch.tensor([100.0, 0.0, 0.0]))
        independent = flow(images)
        flow._teachers = []
        torch.testing.assert_close(independent, flow(images), rtol=1e-4, atol=1e-4)


def test_dependence_costs_more_and_more():
    flow = KnowledgeFlow("test_resnet", TEACHERS, own=0.5, dependence=2.0)
    assert float(flow.penalty()) == 0
    flow.progress = 0.25
    own = torch.tensor(0.75)  # half of the way from 0.5 to independence
    wanted = -2.0 * 0.25 * len(flow.stages) * own.log()
    torch.testing.assert_close(flow.penalty().detach(), wanted)


def test_the_student_stands_alone_after_its_share_of_the_training():
    flow = KnowledgeFlow("test_resnet", TEACHERS, own=0.1, alone=0.6).train()
    images = torch.randn(4, 3, 32, 32)
    shares = []
    for progress in (0.0, 0.3, 0.6, 0.9):
        flow.progress = progress
        shares.append(float(flow.junctions[0].shares(flow.independence)[0]))
    assert shares == pytest.approx([0.1, 0.55, 1.0, 1.0])
    with torch.no_grad():
        joined = flow(images)
        flow._teachers = []
        torch.testing.assert_close(joined, flow(images))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": 2}, "below 2, got 2"),
        ({"own": 1.0}, r"own must lie in \(0, 1\)"),
        ({"dependence": -1.0}, "at least 0"),
        ({"alone": 0.0}, r"alone must lie in \(0, 1\]"),
        ({"output": "stages"}, "pooled or map"),
    ],
)
def test_options_outside_their_range_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        KnowledgeFlow("test_resnet", TEACHERS, **options)


def test_networks_without_stages_are_refused():
    with pytest.raises(ArchitectureError, match="must be a timm network with stages"):
        KnowledgeFlow("nature_cnn", TEACHERS, in_chans=4)


def test_a_run_goes_on_with_its_teachers_and_its_checkpoint_needs_none(tiny, command):
    backbone = {
        "class_path": "KnowledgeFlow",
        "init_args": {"architecture": "test_resnet", "sources": TEACHERS, "start": 0},
    }
    keeper = {
        "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
        "init_args": {"dirpath": "kept", "every_n_train_steps": 2, "save_top_k": -1},
    }
    changes = {"model.init_args.backbone": backbone, "trainer.callbacks": [keeper]}
    tiny(**changes, **{"trainer.max_steps": 4, "trainer.val_check_interval": 4})
    fit = ("fit", "--experiment", "tiny", "--run_dir")
    done = command(*fit, "whole")
    assert done.status == 0, done.err
    again = command(*fit, "again", "--ckpt_path", "kept/epoch=0-step=2.ckpt")
    assert again.status == 0, again.err
    whole, again = (load_task(f"{name}/checkpoints/last.ckpt") for name in ("whole", "again"))
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in whole.state_dict().items())
    assert whole.backbone._teachers == []
