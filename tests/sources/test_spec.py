"""What a source is: parsing of configurations."""

import subprocess
import sys
from pathlib import Path

import pytest

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.spec import (
    Source,
    parse_source,
    parse_sources,
    split_address,
    split_weights,
)


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ("builtin:keypoints", "keypoints"),
        ("timm:resnet50.a1_in1k", "a1_in1k"),
        ("timm:resnet50", "resnet50"),
        ("hf-hub:timm/resnet50.a1_in1k@main", "resnet50_a1_in1k"),
        ("torchvision:MaskRCNN_ResNet50_FPN_Weights.COCO_V1", "maskrcnn_resnet50_fpn_coco_v1"),
        ("https://example.org/a/moco%20v1.pth.tar?x=1", "moco_v1"),
        ("random:7", "random-7"),
        ("some/folder/moco_v1.pth.tar", "moco_v1"),
        ("some/run-3/", "run-3"),
        ("C:\\weights.pt", "C_weights"),
    ],
)
def test_a_text_gives_a_short_readable_name(weights, name):
    assert parse_source(weights) == Source(name, weights)


def test_a_mapping_gives_every_field():
    spec = {"name": "moco", "weights": "m.pth", "prefix": "module.encoder_q.", "match": "order"}
    assert parse_source(spec) == Source("moco", "m.pth", "module.encoder_q.", "order")
    assert parse_source(vars(parse_source(spec))) == parse_source(spec)
    assert parse_source({"weights": Path("m.pth")}).name == "m"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"weight": "m.pth"}, "Did you mean 'weights'"),
        ({"name": "moco"}, "no weights"),
        ({"weights": "m.pth", "match": "ordr"}, "Did you mean 'order'"),
        ({"weights": "m.pth", "prefix": 3}, "prefix"),
        ({"weights": "m.pth", "name": 3}, "name must be text"),
        ("", "no weights"),
        (3, "text or a mapping"),
        ("biultin:keypoints", "Did you mean 'builtin'"),
        ("timmm:resnet50", "Known: builtin:NAME"),
        ("timm:", "incomplete"),
        ("random:x", "incomplete"),
        ("random:-1", "incomplete"),
        ("https://", "names no server"),
        ("https://example.org/m.pth#sha256=12", "64 hexadecimal"),
        ("http://example.org/m.pth", "use https"),
    ],
)
def test_what_cannot_be_a_source_is_refused_with_the_mend(spec, words):
    with pytest.raises(SourceError, match=words):
        parse_source(spec)


def test_names_are_made_unique():
    names = [s.name for s in parse_sources(["a.pth", "b/a.pth", "a-2.pth", Source("a", "c.pth")])]
    assert names == ["a", "a-3", "a-2", "a-4"]


@pytest.mark.parametrize("specs", ["a.pth", {"weights": "a.pth"}, None])
def test_sources_are_a_list(specs):
    with pytest.raises(SourceError, match="list"):
        parse_sources(specs)


def test_a_file_whose_name_has_a_colon_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("run:1.pth").touch()
    assert split_weights("run:1.pth") == ("path", "run:1.pth")


def test_a_digest_is_split_off_in_lower_case():
    assert split_address("https://e.org/m.pth") == ("https://e.org/m.pth", None)
    url, digest = split_address("https://e.org/m.pth#sha256=" + "AB" * 32)
    assert (url, digest) == ("https://e.org/m.pth", "ab" * 32)


def test_specs_and_cards_need_no_torch():
    code = (
        "import sys, zoo_lightning.sources.spec, zoo_lightning.sources.shipped as shipped;"
        "shipped.shipped_cards(); assert not {'torch', 'timm', 'lightning'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
