"""The shipped zoo's files and cards, in a folder of the tests' own."""

from dataclasses import replace

import pytest
import torch
import yaml

from zoo_lightning import PlainBackbone
from zoo_lightning.errors import SourceError
from zoo_lightning.sources import shipped
from zoo_lightning.sources.files import read_file
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.shipped import Card, Policy, Preprocessing, ReportedMetric
from zoo_lightning.sources.spec import Source

CARD = Card(
    name="keypoints",
    architecture="test_resnet",
    nature="keypoints",
    data="faces",
    recipe="sources/keypoints",
    preprocessing=Preprocessing((3, 64, 64), (0.5, 0.4, 0.3), (0.2, 0.2, 0.1)),
    metric=ReportedMetric("nme", 0.0512, "test"),
    steps=2000,
    seed=1,
    commit="abc1234",
    license="Apache-2.0",
)

OWN = Normalisation((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shipped, "FOLDER", tmp_path)
    return tmp_path


def test_the_packages_own_cards_are_readable_and_complete():
    for name in shipped.shipped_cards():
        assert shipped.shipped_path(name).is_file()


def test_what_is_shipped_is_read_again(folder, small, assert_same):
    path = shipped.ship(small, CARD, folder)
    assert path == shipped.shipped_path("keypoints")
    assert shipped.shipped_cards() == {"keypoints": CARD}
    assert sorted(p.name for p in folder.iterdir()) == ["keypoints.safetensors", "keypoints.yaml"]
    assert_same({key: read_file(path)[key] for key in small}, small)


def test_a_builtin_source_brings_its_preprocessing(folder, small):
    shipped.ship(small, CARD, folder)
    weights = read_weights(Source("k", "builtin:keypoints"), "test_resnet")
    assert weights.normalisation == OWN
    assert weights.origin == str(folder / "keypoints.safetensors")


def test_a_card_beside_a_file_is_heeded(tmp_path, small):
    path = shipped.ship(small, CARD, tmp_path)
    assert read_weights(Source("k", str(path)), "test_resnet").normalisation == OWN
    with pytest.raises(SourceError, match="architecture test_resnet"):
        read_weights(Source("k", str(path)), "resnet18")
    path.with_suffix(".yaml").write_text("some: other file")
    assert read_weights(Source("k", str(path)), "resnet18").normalisation is None


def test_an_unknown_builtin_names_the_nearest(folder, small):
    shipped.ship(small, CARD, folder)
    with pytest.raises(SourceError, match=r"'k'.*Did you mean 'keypoints'.*Known: keypoints"):
        read_weights(Source("k", "builtin:keypoint"), None)


def test_an_empty_zoo_says_so(folder):
    assert shipped.format_cards(shipped.shipped_cards()) == "No shipped sources."
    with pytest.raises(SourceError, match="shipped zoo is empty"):
        shipped.shipped_path("keypoints")


def test_a_builtin_of_another_architecture_is_refused(folder, small):
    shipped.ship(small, CARD, folder)
    with pytest.raises(SourceError, match="is of architecture test_resnet, but resnet50 is wanted"):
        read_weights(Source("k", "builtin:keypoints"), "resnet50")


def test_a_card_without_weights_is_refused(folder):
    shipped.write_card(CARD, folder)
    with pytest.raises(SourceError, match="has a card but"):
        shipped.shipped_path("keypoints")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nature": None}, "lacks nature"),
        ({"natur": "x"}, "Did you mean 'nature'"),
        ({"metric": 3}, "metric, must be a mapping"),
        ({"metric": {"name": "nme", "value": "low", "split": "test"}}, "wrong type"),
        ({"preprocessing": {"input_size": [3, 8], "mean": [0], "std": [1]}}, r"\[C, H, W\]"),
        ({"name": "../x"}, "cannot be called"),
    ],
)
def test_a_wrong_card_is_refused(change, words, folder):
    path = shipped.write_card(CARD, folder)
    content = yaml.safe_load(path.read_text()) | change
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    with pytest.raises(SourceError, match=words):
        shipped.shipped_cards()


def test_a_card_that_is_no_yaml_is_refused(folder):
    (folder / "x.yaml").write_text("a: [")
    with pytest.raises(SourceError, match="cannot be read"):
        shipped.shipped_cards()


def test_cards_are_printed_as_an_aligned_table():
    cards = {"keypoints": CARD, "seg": replace(CARD, name="seg", nature="segmentation")}
    head, first, second = shipped.format_cards(cards).splitlines()
    assert first.startswith("keypoints  test_resnet")
    assert "nme 0.0512 (test)" in first
    assert head.index("nature") == first.index("keypoints", 1) == second.index("segmentation")


def test_a_policys_card_has_its_game_and_comes_back_the_same(folder):
    policy = Policy("pong", 1_000_000, 30, 1.5, -20.4)
    card = replace(CARD, name="pong", policy=policy)
    shipped.write_card(card, folder)
    assert shipped.read_card(folder / "pong.yaml") == card
    shipped.write_card(CARD, folder)
    assert "policy" not in yaml.safe_load((folder / "keypoints.yaml").read_text())


def test_a_source_in_half_precision_takes_half_the_room_and_is_read_as_float32(folder):
    state = PlainBackbone("nature_cnn", ["random:1"]).net.state_dict()
    preprocessing = Preprocessing((4, 84, 84), (0.0,) * 4, (1.0,) * 4)
    card = replace(CARD, name="pong", architecture="nature_cnn", preprocessing=preprocessing)
    full = shipped.ship(state, card, folder).stat().st_size
    half = shipped.ship(state, card, folder, half=True).stat().st_size
    assert half < 0.51 * full
    backbone = PlainBackbone("nature_cnn", ["builtin:pong"])
    assert "cast from float16 to float32" in backbone.loaded[0].report.summary()
    for key, value in backbone.net.state_dict().items():
        torch.testing.assert_close(value, state[key].half().float(), rtol=0, atol=0)
