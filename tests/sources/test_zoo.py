"""A whole zoo read for one architecture."""

import pytest
import torch

from zoo_lightning.errors import ArchitectureError, SourceError
from zoo_lightning.methods import PlainBackbone
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.sources.adapting import Adapted, MatchReport
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.sources.zoo import (
    check_normalisation,
    check_preprocessing,
    load_sources,
    weights_wanted,
    without_weights,
)


def loaded(name, mean, std=(0.2, 0.2, 0.2)):
    return Adapted({}, MatchReport(0, 0, "", [], []), Source(name, "random:0"), mean, std)


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
    (each,) = load_sources([Source("r", "random:1")], "test_resnet", reference, channels)
    assert each.state["conv1.0.weight"].shape[1] == channels
    assert each.report.adapted_input


def test_preprocessing_is_fitted_to_other_channels(small, plain_state, monkeypatch, tmp_path):
    (tmp_path / "summary.json").write_text(
        '{"checkpoint": "w.pt", "preprocessing": {"mean": [0.1, 0.2, 0.6], "std": [1, 2, 3]}}'
    )
    torch.save(small, tmp_path / "w.pt")
    sources = [Source("r", str(tmp_path))]
    for channels, std in {1: (2.0,), 3: (1.0, 2.0, 3.0), 4: (1.0, 2.0, 3.0, 1.0)}.items():
        reference = plain_state("test_resnet", in_chans=channels)
        (each,) = load_sources(sources, "test_resnet", reference, channels)
        assert each.std == std
        assert len(each.mean) == channels


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
    zoo = load_sources(sources, None, build().state_dict(), 4, build)
    assert [each.report.prefix for each in zoo] == ["policy.", ""]
    assert not any(each.report.adapted_input for each in zoo)


def test_sources_that_disagree_on_preprocessing_are_named():
    zoo = [loaded("a", (0.5, 0.5, 0.5)), loaded("b", (0.4, 0.5, 0.5)), loaded("c", None)]
    text = check_preprocessing(zoo)
    assert "a: mean (0.500, 0.500, 0.500), std (0.200, 0.200, 0.200); b: mean (0.400" in text
    assert "c:" not in text


def test_sources_that_agree_give_no_warning():
    assert check_preprocessing([loaded("a", (0.5,)), loaded("b", (0.50001,))]) is None
    assert check_preprocessing([loaded("a", (0.5,)), loaded("b", None)]) is None
    assert check_preprocessing([]) is None


def test_data_that_are_normalised_unlike_the_sources_are_told_what_to_set():
    zoo = [loaded("a", (0.5, 0.5, 0.5)), loaded("b", None)]
    text = check_normalisation(zoo, (0.485, 0.456, 0.406), (0.2, 0.2, 0.2))
    assert "but the data are by mean (0.485, 0.456, 0.406)" in text
    assert "--data.mean '[0.500, 0.500, 0.500]' --data.std '[0.200, 0.200, 0.200]'" in text
    assert check_normalisation(zoo, (0.498, 0.5, 0.502), (0.2, 0.2, 0.2)) is None


def test_sources_that_differ_or_are_unknown_say_nothing_of_the_data():
    data = (0.1,), (0.2,)
    assert check_normalisation([loaded("a", (0.5,)), loaded("b", (0.4,))], *data) is None
    assert check_normalisation([loaded("a", None)], *data) is None
    assert check_normalisation([], *data) is None


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
