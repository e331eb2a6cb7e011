"""Declared and noted normalisation of sources' images."""

import pytest

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.normalisation import Normalisation, declared, known
from zoo_lightning.sources.spec import Source, parse_source


def test_what_is_not_declared_has_the_usual_value():
    assert declared("a", {}) is None
    assert declared("a", {"channels": "bgr"}) == Normalisation((0.0,), (1.0,), "0..1", "bgr")
    found = declared("a", {"mean": [104, 117, 123], "range": "0..255"})
    assert found == Normalisation((104, 117, 123), (1, 1, 1), "0..255", "rgb")


def test_a_source_keeps_its_declaration_and_can_be_hashed():
    source = parse_source({"weights": "a.pth", "mean": [0.5, 0.4, 0.3], "std": 0.2})
    assert source.mean == (0.5, 0.4, 0.3)
    assert source.normalisation == Normalisation((0.5, 0.4, 0.3), (0.2,) * 3, "0..1", "rgb")
    assert hash(source) == hash(Source("a", "a.pth", mean=(0.5, 0.4, 0.3), std=(0.2,)))
    assert parse_source("a.pth").normalisation is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mean": [104, 117, 123]}, r"mean of source 'a' .*range: 0\.\.255"),
        ({"mean": [-0.1, 0, 0]}, "mean of source 'a'"),
        ({"mean": 300, "range": "0..255"}, "mean of source 'a'"),
        ({"mean": 0.5, "std": [58, 57, 57]}, r"std of source 'a'.*range: 0\.\.255"),
        ({"mean": 0.485, "std": 0.229, "range": "0..255"}, "times 255"),
        ({"mean": 0, "std": 0.2, "range": "0..255"}, "times 255"),
        ({"mean": "0.5"}, "mean of source 'a'"),
        ({"mean": [0.5, 0.5]}, "number or three"),
        ({"mean": True}, "number or three"),
        ({"mean": [0.1, float("nan"), 0.2]}, "number or three"),
        ({"std": 0}, "std of source 'a' must be above 0"),
        ({"range": 255}, r"range of source 'a' must be one of 0\.\.1, 0\.\.255"),
        ({"channels": ""}, "channels of source 'a'"),
        ({"channels": "brg"}, "channels of source 'a' must be one of rgb, bgr, grey"),
    ],
)
def test_a_declaration_that_cannot_be_meant_is_refused(given, words):
    with pytest.raises(SourceError, match=words):
        parse_source({"weights": "a.pth", **given})


def test_what_a_library_notes_is_taken_only_if_complete_and_valid():
    assert known([0.5], [0.2]) == Normalisation((0.5,), (0.2,))
    for mean, std in [
        (None, [1]),
        ([0.5], None),
        ([1, 2], [1]),
        ("0.5", [1]),
        ([0.5], [0]),
        ({}, {}),
    ]:
        assert known(mean, std) is None
    assert known([0.5], [0.2], "0..2") is None
    assert known([0.5], [0.2], channels="yuv") is None


def test_normalisations_are_alike_up_to_rounding_and_units():
    half = Normalisation((0.498,) * 3, (0.502,) * 3)
    assert half.is_like(Normalisation((127 / 255,), (128 / 255,)))
    assert half.is_like(Normalisation((127.0,), (128.0,), "0..255", "rgb"))
    assert not half.is_like(Normalisation((0.5,) * 3, (0.502,) * 3))
    assert not half.is_like(Normalisation((0.498,) * 3, (0.502,) * 3, channels="bgr"))
    assert not half.is_like(Normalisation((0.498,) * 4, (0.502,) * 4))


def test_a_normalisation_is_described_and_noted_as_it_is_declared():
    found = Normalisation((104, 117, 123), (1, 1, 1), "0..255", "bgr")
    assert str(found) == "BGR in 0..255, mean (104, 117, 123), std 1"
    assert parse_source({"weights": "a.pth", **found.as_dict()}).normalisation == found
