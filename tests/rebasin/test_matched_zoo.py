"""``sources match`` on the command line."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.sources.spec import parse_sources

MATCH = ["sources", "match", "--architecture", "test_resnet", "--output", "out"]
SOURCES = ["--sources", "builtin:tiny-imagenet50,builtin:faces5"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_matched_sources_are_ordinary_sources(command):
    found = command(*MATCH, *SOURCES, "--reference", "faces5")
    assert found.status == 0, found.err
    assert "matched to faces5 by weights, 672 channels in 11 groups" in found.out
    assert "tiny-imagenet50  kernels 0." in found.out
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "faces5.safetensors",
        "tiny-imagenet50.safetensors",
    ]
    architecture = Architecture("test_resnet")
    old = load_architecture(architecture, parse_sources(SOURCES[1].split(",")))
    paths = ["out/tiny-imagenet50.safetensors", "out/faces5.safetensors"]
    new = load_architecture(architecture, parse_sources(paths))
    assert all(torch.equal(new[1].state[key], value) for key, value in old[1].state.items())
    assert any(not torch.equal(new[0].state[key], value) for key, value in old[0].state.items())
    assert [each.own for each in new] == [each.own for each in old]
    image = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        features = [architecture.plain(each[0].state).eval()(image) for each in (old, new)]
    assert torch.allclose(features[0].sort().values, features[1].sort().values, atol=1e-4)
    with safe_open(paths[0], "pt") as file:
        assert file.metadata()["matched_to"] == "faces5"
        assert json.loads(file.metadata()["preprocessing"])["std"] == [0.229, 0.224, 0.225]


def test_activations_are_those_of_the_experiments_images(tiny, command):
    tiny()
    # The second experiment makes sense on top of the first one only.
    Path("experiments/head.yaml").write_text("model:\n  init_args:\n    head: coordinates\n")
    words = ["--experiment", "tiny", "--experiment", "head"]
    words += ["--how", "activations", "--samples", "16"]
    found = command(*MATCH, *SOURCES, *words)
    assert found.status == 0, found.err
    assert "matched to tiny-imagenet50 by activations" in found.out
    line = next(line for line in found.out.splitlines() if line.startswith("faces5"))
    before, after = line.split("activations ")[1].split(" -> ")
    assert float(before) < float(after)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--how", "activations", *SOURCES], "--experiment NAME"),
        ([], "give --architecture NAME and --sources A,B"),
        (["--sources", "builtin:faces5"], "two sources or more"),
        ([*SOURCES, "--reference", "face5"], "Did you mean 'faces5'?"),
        ([*SOURCES, "--data.root", "x"], "need --experiment NAME"),
        (["--sources", "builtin:nowhere,builtin:faces5"], "No shipped source 'nowhere'"),
    ],
)
def test_mistakes_are_named(command, words, message):
    found = command(*MATCH, *words)
    assert found.status == 2
    assert message in found.err
    assert not Path("out").exists()


def test_a_folder_with_files_is_refused(command):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    found = command(*MATCH, *SOURCES)
    assert found.status == 2
    assert "--output out is not empty" in found.err
    assert command(*MATCH, *SOURCES, "--overwrite").status == 0
    assert Path("out/notes.txt").read_text() == "mine"
    assert not list(Path("out").glob("*.part"))


def test_an_architecture_that_cannot_be_followed_is_refused(command):
    words = ["--architecture", "xcit_nano_12_p16_224", "--sources", "random:0,random:1"]
    found = command(*MATCH[:2], *words, "--output", "out")
    assert found.status == 2
    assert "'blocks.0.attn' (XCA) calls matmul" in found.err
    assert not Path("out").exists()
