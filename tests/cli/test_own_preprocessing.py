"""``fit`` with sources that declare their preprocessing, and what the run hands on."""

import pytest
import timm
import torch
import yaml

from zoo_lightning.runs.run_folder import find_checkpoint, read_checkpoint

CAFFE = {"mean": [104, 117, 123], "range": "0..255", "channels": "bgr"}
MEAN = [0.485, 0.456, 0.406]


@pytest.fixture
def declared(tiny):
    """The experiment ``tiny`` with two sources, one of which declares its preprocessing."""
    tiny()
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), "a.pth")
    sources = [{"weights": "a.pth", **CAFFE}, "builtin:faces5"]
    init_args = {"backbone": {"init_args": {"sources": sources}}}
    with open("declared.yaml", "w") as file:
        yaml.safe_dump({"model": {"init_args": init_args}}, file)
    return ["--experiment", "tiny", "--config", "declared.yaml"]


def test_a_run_hands_on_the_datas_normalisation_not_its_sources(declared, command):
    found = command("fit", *declared, "--run_dir", "run")
    assert found.status == 0, found.err
    content = read_checkpoint(find_checkpoint("run", None, ""))
    options = content["hyper_parameters"]["backbone"]["init_args"]
    assert options["mean"] == MEAN
    assert options["sources"][0]["channels"] == "bgr"
    for given in ("run", "run/checkpoints/last.ckpt"):
        seen = command("sources", "inspect", given)
        assert "input         RGB in 0..1, mean (0.485, 0.456, 0.406)" in seen.out, seen.err
    checked = command("sources", "check", *declared)
    (line,) = (each for each in checked.out.splitlines() if each.startswith("fits          a "))
    assert line.endswith("first layer transformed from BGR in 0..255, mean (104, 117, 123), std 1")


def test_a_normalisation_of_the_backbone_that_is_not_the_datas_is_refused(declared, command):
    words = ["fit", *declared, "--model.backbone.mean", "[0.5, 0.5, 0.5]"]
    assert "leave it out" in command(*words).refused("model.backbone.mean", "data.mean")


def test_a_declaration_that_cannot_be_meant_is_refused_before_training(declared, command):
    sources = "[{weights: a.pth, mean: [104, 117, 123]}]"
    found = command("fit", *declared, "--model.init_args.backbone.init_args.sources", sources)
    found.refused("mean of source 'a'", "range: 0..255")
