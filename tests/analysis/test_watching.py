"""Gates of single samples, by group and over a game."""

import pytest
import torch

from zoo_lightning import AtariData, PPOTask, ZooBackbone
from zoo_lightning.analysis.plots import plot_gates_of_images, plot_mean_gates, plot_watched_gates
from zoo_lightning.analysis.watching import WatchedGates, watch_game, watch_images, watched

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
    with pytest.raises(ValueError, match="must run inside the block"):
        seen()


def test_means_are_taken_group_by_group():
    values = torch.arange(4.0)[:, None, None].expand(4, 2, 3)
    found = WatchedGates(values, ["a", "b"], ["x", "y", "z"])
    grouped = found.mean_by(torch.tensor([0, 1, 0, 1]), 3)
    assert grouped.values[:2, 0, 0].tolist() == [1.0, 2.0]
    assert grouped.values[2].isnan().all()


def test_means_are_taken_over_bands_of_a_quantity():
    values = torch.arange(6.0)[:, None, None].expand(6, 2, 3)
    found = WatchedGates(values, ["a", "b"], ["x", "y", "z"])
    yaw = [-30.0, -10.0, 0.0, 9.9, 10.0, float("nan")]
    banded, names = found.mean_by_band(yaw, [-10, 10], "°")
    assert names == ["below -10° (1)", "-10 to 10° (3)", "from 10° (1)"]
    assert banded.values[:, 0, 0].tolist() == [0.0, 2.0, 4.0]
    with pytest.raises(ValueError, match="edges must ascend"):
        found.mean_by_band(yaw, [10, 10])
    with pytest.raises(ValueError, match="quantity must have one number for each of 6"):
        found.mean_by_band(yaw[:5], [0])


def test_differences_are_from_the_mean_of_what_is_known():
    values = torch.tensor([0.2, 0.6, float("nan")])[:, None, None].expand(3, 2, 3)
    less = WatchedGates(values, ["a", "b"], ["x", "y", "z"]).without_mean()
    assert less.values[:2, 0, 0].tolist() == pytest.approx([-0.2, 0.2])
    assert less.values[2].isnan().all()


def test_differences_are_drawn_with_the_mean_in_the_middle_of_the_greys():
    found = WatchedGates(torch.rand(4, 6, 3), [f"layer{k}" for k in range(6)], list("xyz"))
    less = found.without_mean()
    figure = plot_watched_gates(less)
    image = figure.axes[0].images[0]
    largest = float(less.values.abs().max())
    assert (image.norm.vmin, image.norm.vmax) == pytest.approx((-largest, largest))
    assert image.norm(0.0) == 0.5
    assert figure.axes[-1].get_ylabel() == "gate, less its mean"
    assert plot_watched_gates(found).axes[-1].get_ylabel() == "gate"


def test_mean_gates_of_networks_stand_side_by_side():
    layers, sources = ["a", "b"], ["x", "y", "z"]
    full = WatchedGates(torch.full((4, 2, 3), 0.25), layers, sources)
    lite = WatchedGates(torch.full((5, 2, 3), 0.75), layers, sources)
    figure = plot_mean_gates({"full": full, "lite": lite})
    assert [axes.get_title() for axes in figure.axes] == ["full", "lite"]
    written = [{text.get_text() for text in axes.texts} for axes in figure.axes]
    assert written == [{"0.25"}, {"0.75"}]
    with pytest.raises(ValueError, match="same layers and sources, got 2"):
        plot_mean_gates({"full": full, "other": WatchedGates(lite.values, ["a", "c"], sources)})


def test_images_have_one_layers_gates_below_them():
    found = WatchedGates(torch.rand(2, 3, 2), ["a", "b", "c"], ["x", "y"])
    figure = plot_gates_of_images(torch.rand(2, 3, 8, 8), found, "b")
    bars = [[bar.get_width() for bar in axes.patches] for axes in figure.axes[2:]]
    assert bars == [pytest.approx(row.tolist()) for row in found.values[:, 1]]
    assert [label.get_text() for label in figure.axes[2].get_yticklabels()] == ["x", "y"]
    with pytest.raises(ValueError, match="layer must be one of a, b, c"):
        plot_gates_of_images(torch.rand(2, 3, 8, 8), found, "d")
    with pytest.raises(ValueError, match="images must be as many as the gates, 2, got 3"):
        plot_gates_of_images(torch.rand(3, 3, 8, 8), found, "b")


def test_there_is_a_heat_map_for_each_source():
    found = WatchedGates(torch.rand(4, 6, 3), [f"layer{k}" for k in range(6)], list("xyz"))
    figure = plot_watched_gates(found, ["ant", "bee", "cat", "dog"], "class")
    figure.canvas.draw()
    maps = [axes for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in maps] == ["x", "y", "z"]
    assert [label.get_text() for label in maps[0].get_xticklabels()] == ["ant", "bee", "cat", "dog"]
    with pytest.raises(ValueError, match="names must have one name for each of 4 columns, got 2"):
        plot_watched_gates(found, ["ant", "bee"])


def test_a_policys_gates_are_seen_at_every_decision_of_a_game():
    pytest.importorskip("ale_py")
    data = AtariData("pong", max_frames=200)
    task = PPOTask(ZooBackbone("nature_cnn", SOURCES), num_actions=data.num_actions).eval()
    found, score = watch_game(task, data.eval_envs(1))
    assert found.values.shape[1:] == (4, 3)
    assert 20 < len(found.values) <= 50
    assert score <= 0
