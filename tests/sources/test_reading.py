"""Weights by their kinds, without a network."""

import json

import huggingface_hub
import pytest
import timm
import torch
from safetensors.torch import save_file

from zoo_lightning.errors import ArchitectureError, SourceError
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.spec import Source


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A hub cache of the test's own, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def read(weights, architecture="test_resnet", **options):
    return read_weights(Source("x", weights, **options), architecture)


def test_a_random_source_is_the_architectures_own_start(assert_same):
    torch.manual_seed(3)
    expected = timm.create_model("test_resnet", num_classes=0).state_dict()
    before = torch.get_rng_state()
    weights = read("random:3")
    assert torch.equal(torch.get_rng_state(), before)
    assert_same(weights.state, expected)
    assert not torch.equal(read("random:4").state["conv1.0.weight"], expected["conv1.0.weight"])


def test_a_random_source_serves_any_function_that_builds_a_network():
    source = Source("x", "random:3")
    state = read_weights(source, None, lambda: torch.nn.Linear(2, 3)).state
    assert list(state) == ["weight", "bias"]
    with pytest.raises(SourceError, match="function that builds one"):
        read_weights(source, None)


def test_weights_are_read_from_timms_cache(offline, small, assert_same):
    folder = offline / "models--timm--test_resnet.r160_in1k"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    network = timm.create_model("test_resnet").state_dict()
    save_file(
        {key: small.get(key, network[key]) for key in network}, snapshot / "model.safetensors"
    )
    weights = read("timm:test_resnet.r160_in1k")
    assert_same(weights.state, small)
    assert weights.normalisation == Normalisation((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize("weights", ["timm:test_resnet.r160_in1k", "hf-hub:timm/test_resnet.r160"])
def test_without_network_and_cache_the_mend_is_a_local_file(weights, offline):
    with pytest.raises(SourceError, match=r"neither the network nor the local cache.*file's path"):
        read(weights)


def test_timm_weights_of_another_architecture_are_refused_before_any_download():
    with pytest.raises(
        SourceError, match=r"architecture resnet18, .* shape from those of resnet50"
    ):
        read("timm:resnet18.a1_in1k", "resnet50")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("timm:tset_resnet", "Did you mean 'test_resnet'"),
        ("timm:resnet50.a1_in2k", r"Did you mean 'a1_in1k'.*Known for resnet50: .*a1_in1k"),
        ("builtin:nonsense", "No shipped source 'nonsense'"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(weights, words):
    with pytest.raises(SourceError, match=f"Source 'x': .*{words}"):
        read(weights, None)


def test_an_unknown_architecture_names_the_nearest():
    with pytest.raises(ArchitectureError, match=r"'resnett50'.*Did you mean 'resnet50'"):
        read("random:1", "resnett50")


def test_an_architecture_may_carry_a_tag(small):
    assert list(read("random:1", "test_resnet.r160_in1k").state) == list(small)


def test_a_run_folder_gives_its_best_checkpoint(small, tmp_path, assert_same):
    (tmp_path / "checkpoints").mkdir()
    state = {f"backbone.net.{key}": value for key, value in small.items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "checkpoints" / "best.ckpt")
    summary = {"checkpoint": "checkpoints/best.ckpt", "preprocessing": {"mean": [1], "std": [2]}}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    weights = read(str(tmp_path))
    assert_same(weights.state, state)
    assert weights.origin.endswith("best.ckpt")
    assert weights.normalisation == Normalisation((1.0,), (2.0,))


def test_a_container_is_taken_of_a_run_folder_too(small, tmp_path, assert_same):
    (tmp_path / "summary.json").write_text('{"checkpoint": "a.ckpt"}')
    other = {key: torch.zeros_like(value) for key, value in small.items()}
    torch.save({"state_dict": other, "current_model_state": small}, tmp_path / "a.ckpt")
    source = Source("a", str(tmp_path), container="current_model_state")
    assert_same(read_weights(source, "test_resnet").state, small)


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (None, "not a run"),
        ("{", "cannot be read"),
        ("[]", "names no checkpoint"),
        ('{"checkpoint": null}', "names no checkpoint"),
        ('{"checkpoint": "gone.ckpt"}', "does not exist"),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused(summary, words, tmp_path):
    if summary is not None:
        (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(SourceError, match=words):
        read(str(tmp_path))


def test_safetensors_cannot_be_matched_by_order(small, tmp_path):
    save_file(small, tmp_path / "w.safetensors")
    with pytest.raises(SourceError, match=r"sorted by name.*original \.pth"):
        read(str(tmp_path / "w.safetensors"), match="order")
