"""A whole zoo read for one architecture."""

import pytest
import torch

from zoo_lightning.errors import ArchitectureError, SourceError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.sources.adapting import Adapted, MatchReport
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.sources.zoo import (
    check_preprocessing,
    load_sources,
    unknown_preprocessing,
    weights_wanted,
    without_weights,
)


def loaded(name, mean, weights="a.pth", problem=""):
    own = Normalisation(mean, (0.2,) * len(mean)) if mean else None
    source = Source(name, weights)
    return Adapted({}, MatchReport(0, 0, "", [], []), source, own, expected=own, problem=problem)


def test_a_zoo_comes_in_order(small, small_reference, tmp_path, assert_same):
    torch.save({"model": {f"m.{key}": value for key, value in small.items()}}, tmp_path / "a.pth")
    sources = parse_sources(["random:5", str(tmp_path / "a.pth"), "random:5"])
    zoo = load_sources(sources, "test_resnet", small_reference)
    assert [each.source.name for each in zoo] == ["random-5", "a", "random-5-2"]
    assert_same(zoo[1].state, small)
    assert_same(zoo[0].state, zoo[2].state)


@pytest.mark.parametrize("channels", [1, 4])
def test_a_zoo_is_fitted_to_other_channels(channels, plain_state):
    reference = plain_state("test_resnet", in_chans=channels)
    (each,) = load_sources([Source("r", "random:1")], "test_resnet", reference)
    assert each.state["conv1.0.weight"].shape[1] == channels
    assert each.report.adapted_input


def test_a_sources_own_declaration_replaces_what_is_known(small, small_reference, tmp_path):
    (tmp_path / "summary.json").write_text(
        '{"checkpoint": "w.pt", "preprocessing": {"mean": [0.1, 0.2, 0.6], "std": [1, 2, 3]}}'
    )
    torch.save(small, tmp_path / "w.pt")
    caffe = {"mean": [104, 117, 123], "range": "0..255", "channels": "bgr"}
    sources = [str(tmp_path), {"weights": str(tmp_path), **caffe}]
    known, declared = load_sources(parse_sources(sources), "test_resnet", small_reference)
    assert known.own == Normalisation((0.1, 0.2, 0.6), (1, 2, 3))
    assert declared.own == Normalisation((104, 117, 123), (1, 1, 1), "0..255", "bgr")


def test_an_error_names_the_source(small_reference, tmp_path):
    (tmp_path / "a.pth").touch()
    with pytest.raises(SourceError, match=r"Source 'bad': .*a\.pth is empty"):
        load_sources([Source("bad", str(tmp_path / "a.pth"))], "test_resnet", small_reference)


def test_an_unknown_architecture_is_refused_even_without_sources():
    with pytest.raises(ArchitectureError, match="Did you mean 'test_resnet'"):
        load_sources([], "test_resnett", {})


def test_an_architecture_that_is_not_timms_needs_no_name(tmp_path):
    def build():
        return torch.nn.Sequential(torch.nn.Conv2d(4, 8, 3), torch.nn.ReLU())

    torch.save({"policy": build().state_dict()}, tmp_path / "p.pt")
    sources = parse_sources([str(tmp_path / "p.pt"), "random:1"])
    zoo = load_sources(sources, None, build().state_dict(), build)
    assert [each.report.prefix for each in zoo] == ["policy.", ""]
    assert not any(each.report.adapted_input for each in zoo)


def test_sources_that_expect_different_input_are_named():
    zoo = [loaded("a", (0.5, 0.5, 0.5)), loaded("b", (0.4, 0.5, 0.5)), loaded("c", None)]
    text = check_preprocessing(zoo)
    assert "a: RGB in 0..1, mean 0.5, std 0.2; b: RGB in 0..1, mean (0.4, 0.5, 0.5)" in text
    assert "c:" not in text


def test_sources_that_expect_one_input_give_no_warning():
    assert check_preprocessing([loaded("a", (0.5,)), loaded("b", (0.50001,))]) is None
    assert check_preprocessing([loaded("a", (0.5,)), loaded("b", (0.5, 0.5, 0.5))]) is None
    assert check_preprocessing([loaded("a", (0.5,)), loaded("b", None)]) is None
    assert check_preprocessing([]) is None


def test_a_first_layer_that_could_not_be_transformed_gives_its_reason():
    zoo = [loaded("a", (0.5,), problem="no bias"), loaded("b", (0.5,))]
    assert "a: no bias" in check_preprocessing(zoo)


def test_sources_of_unknown_preprocessing_are_named_but_not_random_ones():
    zoo = [loaded("a", (0.5,)), loaded("b", None), loaded("c", None, weights="random:1")]
    assert "preprocessing of b is unknown" in unknown_preprocessing(zoo)
    assert unknown_preprocessing([zoo[0], zoo[2]]) is None


def test_weights_are_unwanted_only_within_the_context():
    assert weights_wanted()
    with without_weights():
        assert not weights_wanted()
        with without_weights():
            pass
        assert not weights_wanted()
    assert weights_wanted()


def test_weights_are_wanted_again_after_an_error():
    def fail():
        with without_weights():
            raise ValueError("in the context")

    with pytest.raises(ValueError, match="in the context"):
        fail()
    assert weights_wanted()


@pytest.mark.parametrize("architecture", ["test_resnet", "convnext_atto", "hrnet_w18_small"])
def test_stages_and_pooled_features_serve_each_other(tmp_path, architecture):
    # HRNet's and ConvNeXt's stages lack layers before the classifier; ConvNeXt's are flattened.
    pooled = PlainBackbone(architecture)
    torch.save({"state_dict": pooled.net.state_dict()}, tmp_path / "pooled.pth")
    stages = PlainBackbone(architecture, [str(tmp_path / "pooled.pth")], output="stages")
    torch.save({"state_dict": stages.net.state_dict()}, tmp_path / "stages.pth")
    again = PlainBackbone(architecture, [str(tmp_path / "stages.pth")], output="stages")
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(stages.eval()(images), again.eval()(images), strict=True):
            assert torch.equal(ours, theirs)
        if architecture == "test_resnet":
            back = PlainBackbone(architecture, [str(tmp_path / "stages.pth")])
            torch.testing.assert_close(back.eval()(images), pooled.eval()(images))
        else:
            with pytest.raises(SourceError, match=r"incre_modules|head\.norm"):
                PlainBackbone(architecture, [str(tmp_path / "stages.pth")])


def test_a_file_with_several_networks_weights_says_which_were_taken(
    small, small_reference, tmp_path
):
    content = {"student": dict(small), "teacher": dict(small), "epoch": 3}
    torch.save(content, tmp_path / "dino.pth")
    torch.save({"state_dict": small, "epoch": 3}, tmp_path / "plain.pth")
    for container, line in {
        None: "90 of 90 tensors matched of container 'teacher', beside 'student' (container: KEY",
        "student": "90 of 90 tensors matched",
    }.items():
        source = {"weights": str(tmp_path / "dino.pth"), "container": container}
        network = ZooBackbone("test_resnet", [source, str(tmp_path / "plain.pth")])
        lines = network.describe().splitlines()
        (dino,) = (each for each in lines if "dino.pth" in each)
        assert line in dino
        assert ("container" in dino) == (container is None)
        (plain,) = (each for each in lines if "plain.pth" in each)
        assert plain.endswith(": 90 of 90 tensors matched")
