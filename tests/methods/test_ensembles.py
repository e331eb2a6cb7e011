"""Several trained models as one: joint predictions and soups."""

import pytest
import torch

from zoo_lightning import ClassificationTask, LandmarkTask, PlainBackbone, SegmentationTask
from zoo_lightning.errors import ConfigError
from zoo_lightning.methods.ensembles import average_tasks, greedy_soup, joint_task
from zoo_lightning.tasks.base import joint_output


def classifier(seed, num_classes=3):
    torch.manual_seed(seed)
    task = ClassificationTask(PlainBackbone("test_resnet"), num_classes=num_classes)
    torch.nn.init.normal_(task.head.weight)
    return task.eval()


def pointer(seed, decode="soft_argmax"):
    torch.manual_seed(seed)
    loss = "wing" if decode == "soft_argmax" else "heatmap_mse"
    backbone = PlainBackbone("test_resnet", output="stages")
    task = LandmarkTask(backbone, num_points=5, head="heatmaps", loss=loss, decode=decode)
    torch.nn.init.normal_(task.head.final.weight)
    return task.eval()


@torch.no_grad()
def test_class_probabilities_are_averaged():
    tasks = [classifier(seed) for seed in range(3)]
    images = torch.randn(4, 3, 32, 32)
    wanted = torch.stack([task(images).softmax(-1) for task in tasks]).mean(0)
    assert torch.allclose(joint_output(tasks)(images).softmax(-1), wanted, atol=1e-6)
    joint = joint_task(tasks)
    assert torch.allclose(joint.predict_step({"image": images}), wanted, atol=1e-6)


def segmenter(seed, stride=4):
    torch.manual_seed(seed)
    task = SegmentationTask(PlainBackbone("test_resnet", output="stages"), 3, stride=stride)
    torch.nn.init.normal_(task.head.final.weight)
    return task.eval()


@torch.no_grad()
def test_probabilities_of_cells_are_averaged_over_the_classes():
    tasks = [segmenter(seed) for seed in range(3)]
    images = torch.randn(4, 3, 32, 32)
    wanted = torch.stack([task(images).softmax(dim=1) for task in tasks]).mean(0)
    assert torch.allclose(joint_output(tasks)(images).softmax(dim=1), wanted, atol=1e-6)
    joint = joint_task(tasks)
    assert torch.allclose(joint.predict_step({"image": images}).softmax(dim=1), wanted, atol=1e-6)
    assert torch.allclose(joint.fold()(images).softmax(dim=1), wanted, atol=1e-5)
    with pytest.raises(ConfigError, match="stride: 8"):
        joint_task([segmenter(0), segmenter(1, stride=8)])


@torch.no_grad()
def test_shares_of_heat_maps_are_averaged_so_that_points_are_too():
    tasks = [pointer(seed) for seed in range(2)]
    images = torch.randn(4, 3, 32, 32)
    wanted = torch.stack([task.points(images) for task in tasks]).mean(0)
    assert torch.allclose(joint_task(tasks).points(images), wanted, atol=1e-5)


@torch.no_grad()
def test_learned_heat_maps_are_averaged_themselves():
    tasks = [pointer(seed, "argmax") for seed in range(2)]
    images = torch.randn(4, 3, 32, 32)
    wanted = torch.stack([task(images) for task in tasks]).mean(0)
    assert torch.allclose(joint_output(tasks)(images), wanted, atol=1e-6)


@torch.no_grad()
def test_coordinates_are_averaged():
    tasks = [LandmarkTask(PlainBackbone("test_resnet"), num_points=5).eval() for _ in range(2)]
    images = torch.randn(4, 3, 32, 32)
    wanted = torch.stack([task.points(images) for task in tasks]).mean(0)
    assert torch.allclose(joint_task(tasks).points(images), wanted, atol=1e-6)


def test_a_soup_has_the_mean_of_the_weights():
    tasks = [classifier(seed) for seed in range(2)]
    soup = average_tasks(tasks)
    states = [task.state_dict() for task in tasks]
    for key, value in soup.state_dict().items():
        if value.is_floating_point():
            assert torch.allclose(value, (states[0][key] + states[1][key]) / 2), key


def test_a_greedy_soup_takes_what_does_not_harm():
    tasks = [classifier(seed) for seed in range(3)]
    keys = [id(task) for task in tasks]
    scores = {keys[0]: 0.5, keys[1]: 0.7, keys[2]: 0.6}
    mixtures = iter([0.7, 0.65])  # with the second best as good, with the worst as well less so

    def score(task):
        return scores[id(task)] if id(task) in scores else next(mixtures)

    soup, chosen = greedy_soup(tasks, score, higher_is_better=True)
    assert chosen == [1, 2]
    wanted = average_tasks([tasks[1], tasks[2]]).state_dict()
    assert all(torch.equal(wanted[key], value) for key, value in soup.state_dict().items())


def test_a_greedy_soup_of_errors_may_be_the_best_alone():
    tasks = [classifier(seed) for seed in range(2)]
    scores = {id(tasks[0]): 4.0, id(tasks[1]): 3.0}
    soup, chosen = greedy_soup(tasks, lambda task: scores.get(id(task), 9.0), False)
    assert chosen == [1]
    assert soup is tasks[1]


def test_models_that_are_not_alike_are_refused():
    with pytest.raises(ConfigError, match="must be alike"):
        joint_output([classifier(0), classifier(1, num_classes=4)])
    with pytest.raises(ConfigError, match="at least one"):
        joint_output([])
