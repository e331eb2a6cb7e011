"""``sources relate``: what sources have in common and what each knows that the others do not."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from zoo_lightning import DrawnFaces, ImageFolders
from zoo_lightning.analysis.relation_report import plot_relations
from zoo_lightning.errors import ConfigError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.rebasin.channels import channel_groups, permute, random_permutation
from zoo_lightning.sources.spec import parse_sources
from zoo_lightning.transfer.kinship import relation_of
from zoo_lightning.transfer.probing import Probe, block_folds, linear_probe
from zoo_lightning.transfer.relations import (
    BestPair,
    Joint,
    PairRow,
    RelatedSource,
    ScoreDifference,
    Together,
    conclude,
    difference,
    join,
    relate,
)

ARCHITECTURE = Architecture("test_resnet")
RELATE = ["sources", "relate", "--experiment", "tiny"]


def loaded(*references):
    return load_architecture(ARCHITECTURE, parse_sources(list(references)))


def renamed(source, name, state):
    return replace(source, state=state, source=replace(source.source, name=name))


@pytest.fixture(scope="module")
def faces():
    data = DrawnFaces(train_size=80, val_size=4, image_size=32, batch_size=40, num_workers=0)
    data.setup("fit")
    return data


class Samples:
    """Stands for the samples: features explain a target of two numbers, one half each."""

    def __init__(self, samples=400):
        generator = torch.Generator().manual_seed(0)
        self.values = torch.randn(samples, 2, generator=generator)
        self.noise = torch.randn(samples, 30, generator=generator)

    def probe_features(self, features, scales=None):
        """As of the samples of a data set."""
        counted = torch.ones(len(features), 1, dtype=torch.bool)
        return linear_probe(features, self.values, counted, block_folds(len(features)), scales)


# what is computed


def test_a_copy_and_a_permuted_copy_know_the_same_and_only_the_copy_is_a_relative(faces):
    [source] = loaded("builtin:faces5")
    graph = channel_groups(ARCHITECTURE)
    order = random_permutation(graph, torch.Generator().manual_seed(0))
    copy = renamed(source, "copy", source.state)
    permuted = renamed(source, "permuted", permute(graph, source.state, order))
    numbers = torch.get_rng_state()
    found = relate(ARCHITECTURE, [source, copy, permuted], faces, 60)
    assert torch.equal(torch.get_rng_state(), numbers)
    assert found.samples == 60
    same, other, _ = found.pairs
    assert (same.first, same.second, same.relation) == ("faces5", "copy", "relatives")
    assert same.cosine == pytest.approx(1)
    assert same.barrier.value == pytest.approx(0, abs=1e-5)
    assert same.kept == pytest.approx(1, abs=1e-4)
    assert other.relation != "relatives"
    assert other.cosine < 0.3
    assert other.barrier.value < -0.1
    for pair in found.pairs:
        assert pair.complementarity.value == pytest.approx(0, abs=1e-4)
    assert found.together.complementarity.value == pytest.approx(0, abs=1e-4)
    assert "faces5 and copy are relatives" in found.conclusion[0]
    assert "too little" in found.conclusion[1]


def test_two_sources_that_see_one_half_each_complement_each_other(class_root):
    data = ImageFolders(str(class_root), image_size=32, batch_size=6, num_workers=0)
    data.setup("fit")
    halves = []
    for channel, (name, source) in enumerate(
        zip(("red", "green"), loaded("random:1", "random:2"), strict=True)
    ):
        stem = next(key for key, value in source.state.items() if value.dim() == 4)
        kernel = torch.zeros_like(source.state[stem])
        kernel[:, channel] = source.state[stem][:, channel]
        halves.append(renamed(source, name, {**source.state, stem: kernel}))
    [pair] = relate(ARCHITECTURE, halves, data, 100).pairs
    assert pair.relation == "strangers"
    assert pair.complementarity.value > 0.1
    assert pair.complementarity.value > 2 * pair.complementarity.error


def test_a_difference_of_scores_has_the_standard_error_of_the_samples_differences():
    ours, first, second = (
        Probe(1 - sum(missed), 1.0, torch.tensor(missed, dtype=torch.float64))
        for missed in ([0.1, 0.2], [0.3, 0.1], [0.3, 0.3])
    )
    found = difference(ours, first, second)
    # The mean of both misses 0.2 more on the first sample and as much on the second.
    assert found.value == pytest.approx(0.2)
    assert found.error == pytest.approx(0.2)  # deviation √0.02, times √2 for a sum of two
    one = difference(ours, first)
    assert one.value == pytest.approx(0.1)
    assert one.error == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("value", "error", "gain"),
    [(0.03, 0.01, True), (0.03, 0.02, False), (0.01, 0.001, False), (-0.1, 0.01, False)],
)
def test_a_gain_is_worth_something_and_beyond_noise(value, error, gain):
    assert ScoreDifference(value, error).is_gain() is gain


def test_a_half_that_lacks_is_joined_and_noise_and_copies_are_not():
    seen = Samples()
    features = [seen.values[:, :1], seen.values[:, 1:], seen.noise, seen.values[:, :1] * 3 + 1]
    alone = Joint(seen.probe_features(features[0]), {0: 1.0})
    assert alone.probe.explained == pytest.approx(0.5, abs=0.1)
    assert set(join(seen, features, alone, [2, 3]).shares) == {0}
    both = join(seen, features, alone, [2, 1])
    assert both.probe.explained > 0.99
    assert set(both.shares) == {0, 1}
    assert sum(both.shares.values()) == 1


def test_shares_scale_the_features_as_the_ridge_sees_them():
    seen = Samples()
    features = torch.cat([seen.values, seen.noise], dim=1)
    plain = seen.probe_features(features)
    assert seen.probe_features(features, torch.ones(32)) == plain
    only = torch.cat([torch.ones(2), torch.zeros(30)])
    expected = seen.probe_features(seen.values)
    assert seen.probe_features(features, only).explained == pytest.approx(expected.explained)
    assert float(plain.missed.sum()) == pytest.approx(1 - plain.explained)


@pytest.mark.parametrize(
    ("cosine", "relation"),
    [(0.95, "relatives"), (0.77, "relatives"), (0.5, "distant"), (0.2, "distant"), (0.01, None)],
)
def test_relations_by_the_cosine(cosine, relation):
    assert relation_of(cosine) == (relation or "strangers")


# what is concluded


NOTHING = ScoreDifference(0.001, 0.002)
MUCH = ScoreDifference(0.05, 0.005)


def conclusion(cosine=0.0, midpoint=0.2, gain=NOTHING, over_random=NOTHING, above=MUCH, more=1):
    """Lines for sources A, of the score 0.5, and B, where random weights have 0.1."""
    names = ["A", "B", "C"][: 2 + more]
    sources = [
        RelatedSource(name, "", 0.5 - 0.1 * i, above, NOTHING) for i, name in enumerate(names)
    ]
    pair = PairRow(
        "A", "B", cosine, relation_of(cosine), midpoint, NOTHING, None, 0.5, gain, over_random
    )
    together = Together(0.5, gain, dict.fromkeys(names, 0.3), NOTHING, NOTHING)
    best = BestPair("A", "B", 0.5, gain, over_random)
    return "\n".join(conclude(sources, [pair], best, together, 0.1))


def test_relatives_may_be_averaged_if_the_average_keeps_what_the_best_one_knows():
    assert "A and B are relatives: averaging them costs little, 98 %" in conclusion(0.9, 0.49)
    assert "averaging them costs nothing" in conclusion(0.9, midpoint=0.51)
    assert "in a long one the average may catch up" in conclusion(0.9, midpoint=0.3)
    assert "no two are relatives" in conclusion(0.2)
    assert "averaging destroys them" in conclusion(0.2)
    assert "loses little here" in conclusion(0.2, midpoint=0.49)
    found = conclusion(above=NOTHING)
    assert "no source's features explain more than random" in found
    assert "by two standard errors" in found


def test_sources_complement_each_other_if_they_add_what_random_weights_do_not():
    found = conclusion(gain=MUCH, over_random=MUCH)
    assert "A and B complement each other (D = +0.050 ± 0.005)" in found
    assert "the others add too little" in found
    assert "others" not in conclusion(gain=MUCH, over_random=MUCH, more=0)
    assert "no sign that they have learned different things" in conclusion(gain=MUCH)
    assert "the others add too little to A" in conclusion(over_random=MUCH)
    assert "the others add too little to A" in conclusion(gain=ScoreDifference(0.05, 0.03))
    assert "A, B, C explain less than random" in conclusion(above=ScoreDifference(-0.1, 0.01))


# the command


def test_the_command_prints_writes_and_repeats_itself(tiny, command):
    tiny()
    found = command(*RELATE, "--sources", "random:1,random:2,builtin:faces5", "--output", "found")
    assert found.status == 0, found.err
    assert found.out.startswith("tiny: 24 training samples, test_resnet, 96 features")
    assert found.out.splitlines()[-1] == "wrote relations.json, relations.png to found"
    content = json.loads(Path("found/relations.json").read_text())
    assert content["experiment"] == "tiny"
    assert [row["name"] for row in content["sources"]] == ["random-1", "random-2", "faces5"]
    assert len(content["pairs"]) == 3
    assert {pair["relation"] for pair in content["pairs"]} <= {"strangers", "distant"}
    for line in content["conclusion"]:
        assert line in found.out
    with Image.open("found/relations.png") as image:
        assert min(image.size) > 300
    words = ["--sources", "random:1,random:2,builtin:faces5", "--json"]
    again = command(*RELATE, *words)
    assert json.loads(again.out) == content
    command(*RELATE, "--output", "found").refused("--output found is not empty")


def test_heat_maps_stages_are_related_too(tiny, command):
    tiny(
        **{
            "model.init_args.backbone.init_args.output": "stages",
            "model.init_args.head": "heatmaps",
        }
    )
    found = command(*RELATE, "--samples=10", "--json")
    assert found.status == 0, found.err
    content = json.loads(found.out)
    assert content["num_features"] > 96
    assert content["samples"] == 10
    assert abs(content["pairs"][0]["cosine"]) < 0.1


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--sources=random:1"], ["two sources or more", "random-1"]),
        (["--samples=3"], ["--samples", "at least 8", "got 3"]),
        (["--sources=random:1,a.pth"], ["1 of 2 sources do not fit"]),
        (["--outptu=x"], ["--outptu", "--output"]),
        (["--data=ImageFolders", "--data.root=nowhere"], ["folder nowhere"]),
    ],
)
def test_a_mistake_is_named_in_one_line(tiny, command, words, found):
    tiny()
    command(*RELATE, *words).refused(*found)


def test_policies_and_fewer_than_two_sources_are_refused(command, faces):
    command(
        "sources", "relate", "--experiment", "rl", "--sources=builtin:breakout,builtin:demon-attack"
    ).refused("policy", "landmarks")
    with pytest.raises(ConfigError, match=r"sources must be two or more .*got random-1"):
        relate(ARCHITECTURE, loaded("random:1"), faces, 20)


def test_the_help_is_short(command):
    found = command("sources", "relate", "--help")
    assert found.status == 0
    assert found.out.startswith(
        "usage: python -m zoo_lightning sources relate [FOLDER] --experiment NAME"
    )


def test_the_picture_has_both_tables_and_their_numbers(faces):
    figure = plot_relations(relate(ARCHITECTURE, loaded("random:1", "random:2"), faces, 20))
    cosine, gain = figure.axes
    assert [text.get_text() for text in cosine.texts][::3] == ["1.00", "1.00"]
    assert [label.get_text() for label in cosine.get_yticklabels()] == ["random-1", "random-2"]
    assert len(gain.texts) == 4
