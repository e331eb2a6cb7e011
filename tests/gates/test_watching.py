"""Gates of single samples, by group and over a game."""

import pytest
import torch

from zoo_lightning import AtariData, PPOTask, ZooBackbone
from zoo_lightning.gates.plots import plot_watched_gates
from zoo_lightning.gates.watching import WatchedGates, watch_game, watch_images, watched

SOURCES = ["random:1", "random:2", "random:3"]


def scattered(mode):
    """A zoo whose gates depend on what they see."""
    return ZooBackbone("test_resnet", SOURCES, mode=mode, gate_init="released").eval()


def test_full_layers_compute_with_the_gates_that_are_seen():
    backbone = scattered("full")
    images = torch.randn(5, 3, 32, 32)
    layers = backbone.aggregated_layers()
    used = []
    first = next(iter(layers.values()))
    first.gate.register_forward_hook(lambda module, inputs, gates: used.append(gates.detach()))
    found = watch_images(backbone, [images[:2], images[2:]])
    assert found.values.shape == (5, len(layers), 3)
    assert found.layers == list(layers)
    assert found.sources == ["random-1", "random-2", "random-3"]
    # Once asked by the layer, once by the watcher, for each of the two batches.
    assert torch.equal(found.values[:2, 0], used[1])


def test_gates_of_lite_zoos_are_asked_though_they_are_not_used():
    backbone = scattered("lite")
    images = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        before = backbone(images)
    found = watch_images(backbone, [images])
    assert found.values.std(dim=0).max() > 0
    with torch.no_grad():
        assert torch.equal(backbone(images), before)
    with watched(backbone) as seen:
        pass
    backbone(images)
    with pytest.raises(ValueError, match="while its gates were watched"):
        seen()


def test_means_are_taken_group_by_group():
    values = torch.arange(4.0)[:, None, None].expand(4, 2, 3)
    found = WatchedGates(values, ["a", "b"], ["x", "y", "z"])
    grouped = found.mean_by(torch.tensor([0, 1, 0, 1]), 3)
    assert grouped.values[:2, 0, 0].tolist() == [1.0, 2.0]
    assert grouped.values[2].isnan().all()


def test_there_is_a_heat_map_for_each_source():
    found = WatchedGates(torch.rand(4, 6, 3), [f"layer{k}" for k in range(6)], list("xyz"))
    figure = plot_watched_gates(found, ["ant", "bee", "cat", "dog"], "class")
    figure.canvas.draw()
    maps = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in maps] == ["x", "y", "z"]
    assert [label.get_text() for label in maps[0].get_xticklabels()] == ["ant", "bee", "cat", "dog"]
    with pytest.raises(ValueError, match="2 names for 4 columns"):
        plot_watched_gates(found, ["ant", "bee"])


def test_a_policys_gates_are_seen_at_every_decision_of_a_game():
    pytest.importorskip("ale_py")
    data = AtariData("pong", max_frames=200)
    task = PPOTask(ZooBackbone("nature_cnn", SOURCES), num_actions=data.num_actions).eval()
    found, score = watch_game(task, data.judging_envs(1))
    assert found.values.shape[1:] == (4, 3)
    assert 20 < len(found.values) <= 50
    assert score <= 0
