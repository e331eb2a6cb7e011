"""Starts of a zoo from scores of its sources: which share it, and how much each gets."""

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from zoo_lightning import DrawnFaces, ImageFolders, ZooBackbone, informed_start
from zoo_lightning.data.augmentation import Augmentation
from zoo_lightning.errors import ConfigError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.models.initialization import INFORMED
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.transfer import starts
from zoo_lightning.transfer.starts import (
    SampleScores,
    find_start,
    greedy,
    half_for_last,
    initial_gates,
)

THREE = ["random:1", "builtin:faces5", "random:2"]


@pytest.fixture(scope="module")
def faces():
    """Drawn faces, set up; each is drawn once."""
    data = DrawnFaces(train_size=100, val_size=4, image_size=64, batch_size=32, num_workers=0)
    data.setup("fit")
    return data


def zoo(sources, output="pooled"):
    """An architecture and its sources."""
    return Architecture("test_resnet", output), parse_sources(sources)


@pytest.mark.parametrize(
    ("chosen", "num_sources", "expected"),
    [
        ([1], 3, [0.05, 0.9, 0.05]),
        ([2, 0], 3, [0.45, 0.1, 0.45]),
        ([0, 2, 1], 3, [0.3333] * 3),
        ([0], 1, [0.9999]),
        ([1], 4, [0.03333, 0.9, 0.03333, 0.03333]),
    ],
)
def test_the_chosen_sources_share_most_of_the_start(chosen, num_sources, expected):
    assert initial_gates(chosen, num_sources) == expected


@given(st.integers(1, 12).flatmap(lambda m: st.tuples(st.just(m), st.integers(1, m))))
def test_any_start_is_valid_and_sums_to_about_one(sizes):
    num_sources, chosen = sizes
    numbers = initial_gates(list(range(chosen)), num_sources)
    assert all(0 < number < 1 for number in numbers)
    assert sum(numbers) == pytest.approx(1, abs=1e-3)


def test_greedy_tries_sources_in_order_and_keeps_those_that_do_no_harm():
    asked = []

    def score_of(indices):
        asked.append(indices)
        return {(1, 3): 0.79, (1, 3, 0): 0.85, (1, 3, 0, 2): 0.70}[tuple(indices)]

    chosen, tried = greedy([0.5, 0.8, 0.1, 0.6], score_of)
    assert asked == [[1, 3], [1, 3, 0], [1, 3, 0, 2]]
    assert chosen == [1, 3, 0]
    assert tried == {3: 0.79, 0: 0.85, 2: 0.70}
    assert greedy([0.5, 0.8, 0.1, 0.6], score_of, tolerance=1)[0] == [1, 3, 0, 2]
    assert greedy([0.3], score_of) == ([0], {})


def test_greedy_compares_with_what_random_weights_know():
    assert greedy([0.5, 0.4], lambda indices: 0.48)[0] == [0, 1]
    assert greedy([0.5, 0.4], lambda indices: 0.48, untrained=0.4)[0] == [0]
    assert greedy([0.5, 0.4], lambda indices: 0.49, untrained=0.4)[0] == [0, 1]


def test_where_no_source_is_better_than_random_weights_the_best_one_is_alone():
    assert greedy([0.3, 0.2], lambda indices: 0.29, untrained=0.31)[0] == [0]


def test_greedy_does_not_drift_away_from_the_best_score():
    falling = {2: 0.95, 3: 0.87, 4: 0.95}
    chosen, _ = greedy([1.0, 0.9, 0.8, 0.7], lambda indices: falling[len(indices)])
    assert len(chosen) == 2


def test_a_source_is_tried_at_half_the_weight():
    assert half_for_last(2).tolist() == [0.5, 0.5]
    assert half_for_last(4).tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 0.5])


def test_greedy_joins_descendants_of_one_network_and_leaves_out_a_stranger(tmp_path, faces):
    parent = ZooBackbone("test_resnet", ["builtin:faces5"]).loaded[0].state
    torch.manual_seed(0)
    for name in ("first", "second"):
        child = {
            key: value + 0.05 * value.std() * torch.randn_like(value) if value.dim() > 1 else value
            for key, value in parent.items()
        }
        torch.save(child, tmp_path / f"{name}.pth")
    first, second = (str(tmp_path / f"{name}.pth") for name in ("first", "second"))
    sources = [first, "builtin:rotation", second]
    start = find_start(*zoo(sources), faces, "greedy")
    assert set(start.chosen) == {0, 2}
    assert start.gate_init == [0.45, 0.1, 0.45]
    said = "\n".join(start.lines())
    assert "not rotation" in said
    assert "start         [0.45, 0.1, 0.45]" in said


@pytest.mark.parametrize("how", INFORMED)
@pytest.mark.parametrize("output", ["pooled", pytest.param("stages", marks=pytest.mark.slow)])
def test_every_way_finds_the_source_that_knows_faces(faces, how, output):
    start = find_start(*zoo(THREE, output), faces, how)
    assert start.gate_init == [0.05, 0.9, 0.05]
    assert start.samples == 100


def test_a_start_repeats_itself_and_leaves_data_and_generators_alone(faces):
    numbers = torch.get_rng_state()
    varied = DrawnFaces(
        train_size=100, val_size=4, image_size=64, batch_size=32, num_workers=0, augment=True
    )
    found = informed_start("test_resnet", THREE, varied, "probe")
    assert found == find_start(*zoo(THREE), faces, "probe").gate_init
    assert torch.equal(torch.get_rng_state(), numbers)
    assert varied.train_set.options == Augmentation()
    networks = [starts.SampleScores(zoo(THREE)[0], each) for each in (faces, varied)]
    assert torch.equal(*(torch.cat(each.images) for each in networks))


def test_classes_are_told_apart_by_a_source_that_sees_colours(class_root):
    data = ImageFolders(str(class_root), image_size=32, batch_size=4, num_workers=0)
    state = timm.create_model("test_resnet", num_classes=0).state_dict()
    blind = {key: torch.zeros_like(value) for key, value in state.items()}
    torch.save(blind, class_root / "blind.pth")
    sources = [str(class_root / "blind.pth"), "random:1"]
    assert informed_start("test_resnet", sources, data, "probe") == [0.1, 0.9]
    assert data.train_set.transform is not data.val_set.transform
    assert informed_start("test_resnet", ["random:1"], data) == [0.9999]


def test_a_source_without_norm_statistics_is_measured_with_those_of_the_samples(tmp_path, faces):
    state = load_architecture(*zoo(["builtin:faces5"]))[0].state
    bare = {key: value for key, value in state.items() if "running_" not in key}
    torch.save(bare, tmp_path / "bare.pth")
    architecture, sources = zoo(["builtin:faces5", str(tmp_path / "bare.pth")])
    loaded = load_architecture(architecture, sources)
    scores = SampleScores(architecture, faces)
    found = [scores.probe(architecture.build(each.state)).explained for each in loaded]
    assert found[0] == pytest.approx(found[1])


def test_what_cannot_be_scored_is_named(faces):
    architecture, sources = zoo(THREE)
    with pytest.raises(ConfigError, match="gate_init must be one of rank, probe, greedy"):
        find_start(architecture, sources, faces, "released")
    one = DrawnFaces(train_size=1, val_size=4, image_size=64, num_workers=0)
    with pytest.raises(ConfigError, match="at least 2 training samples, got 1"):
        informed_start("test_resnet", THREE, one)


@pytest.mark.parametrize("how", INFORMED)
def test_a_backbone_without_data_says_what_gives_it_numbers(how):
    with pytest.raises(ConfigError, match=f"informed_start.*{how}"):
        ZooBackbone("test_resnet", ["random:1", "random:2"], gate_init=how)
