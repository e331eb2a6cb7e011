"""What ``sources inspect`` tells of foreign checkpoints and of runs of our own."""

import json
import pickle
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from zoo_lightning.sources.guessing import fit_of, guess
from zoo_lightning.sources.inspecting import inspect, outermost_prefixes, training_of
from zoo_lightning.sources.spec import Source

SOURCE = Source("mine", "mine.pth")


@pytest.fixture
def moco(tmp_path, small):
    """A checkpoint in the layout of MoCo's authors."""
    state = {
        f"module.{part}.{key}": value
        for part in ("encoder_q", "encoder_k")
        for key, value in small.items()
    }
    state["module.queue"] = torch.zeros(8, 4)
    torch.save({"epoch": 3, "arch": "small", "state_dict": state}, tmp_path / "moco.pth.tar")
    return tmp_path / "moco.pth.tar"


def test_a_moco_checkpoint_is_told_in_full(moco):
    seen = inspect(Source("m", str(moco)))
    assert (seen.kind, seen.containers, seen.beside) == (
        "torch.save",
        ["state_dict"],
        ["epoch", "arch"],
    )
    assert seen.tensors == 181
    assert seen.parameters == 2 * 372688 + 32
    assert seen.types == {"float32": 151, "int64": 30}
    assert seen.prefixes == {"module.encoder_q.": 90, "module.encoder_k.": 90, "module.queue": 1}
    assert seen.training == ["momentum contrast (MoCo)"]
    found = seen.architecture
    assert (found.architecture, found.fits, found.prefix) == (
        "test_resnet",
        True,
        "module.encoder_q.",
    )
    assert (found.matched, found.total, len(found.left_over)) == (90, 90, 91)


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("resnet18", []),
        ("resnet34", []),
        ("wide_resnet50_2", []),
        ("resnext50_32x4d", []),
        ("regnety_002", []),
        ("efficientnet_b0", ["tf_efficientnet_b0"]),
        ("tf_mobilenetv3_large_100", ["mobilenetv3_large_100"]),
        ("hrnet_w18_small", []),
        ("densenet121", []),
        ("convnext_atto", []),
        ("vit_tiny_patch16_224", []),
        ("vit_small_patch14_reg4_dinov2", []),
        ("swin_tiny_patch4_window7_224", []),
        (
            "vit_base_patch32_clip_224",
            ["vit_base_patch32_clip_quickgelu_224"],
        ),
    ],
)
def test_common_architectures_are_guessed(name, alike):
    with torch.random.fork_rng():
        state = timm.create_model(name, num_classes=3).state_dict()
    found = guess({f"net.{key}": value for key, value in state.items()}, SOURCE)
    assert found.fits, found.remark
    assert name in [found.architecture, *found.alike]
    assert set(alike) <= {found.architecture, *found.alike}
    assert found.prefix == "net."


def test_positions_of_another_size_are_remarked_in_a_guess():
    with torch.random.fork_rng():
        model = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=160)
    found = guess(model.state_dict(), SOURCE)
    assert (found.architecture, found.fits) == ("vit_tiny_patch16_224", True)
    assert "interpolated from 10x10 to 14x14" in found.remark


def test_a_foreign_layout_is_translated_before_the_guess():
    with torch.random.fork_rng():
        state = torchvision.models.convnext_tiny().state_dict()
    found = guess(state, SOURCE)
    assert (found.architecture, found.fits) == ("convnext_tiny", True)
    assert "translated from torchvision ConvNeXt" in found.remark


def test_what_fits_nothing_has_a_nearest_or_none(small):
    cut = {key: value for key, value in small.items() if not key.startswith("layer2.0")}
    found = guess(cut, SOURCE)
    assert (found.architecture, found.fits) == ("test_resnet", False)
    assert all(key.startswith("layer2.0.") for key in found.missing)
    assert guess({"a.weight": torch.zeros(2, 2)}, SOURCE) is None


def test_one_architecture_is_compared_in_detail(small):
    state = dict(small) | {"head.weight": torch.zeros(5, 96)}
    state["layer1.0.conv1.weight"] = torch.zeros(1, 1, 3, 3)
    del state["layer4.0.conv1.weight"]
    found = fit_of(state, "test_resnet", SOURCE)
    assert not found.fits
    assert found.missing == ["layer4.0.conv1.weight"]
    assert found.other_shape == ["layer1.0.conv1.weight"]
    assert found.left_over == ["head.weight"]
    assert (found.matched, found.total) == (88, 90)
    assert "layer1.0.conv1.weight is (1, 1, 3, 3)" in found.remark


def test_another_channel_count_of_the_image_still_fits(plain_state):
    assert fit_of(plain_state("test_resnet", in_chans=1), "test_resnet", SOURCE).fits


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        (
            lambda: torchvision.models.detection.keypointrcnn_resnet50_fpn(
                weights=None, weights_backbone=None
            ),
            "keypoint detector (Keypoint R-CNN)",
        ),
        (
            lambda: torchvision.models.detection.maskrcnn_resnet50_fpn(
                weights=None, weights_backbone=None
            ),
            "instance segmenter (Mask R-CNN)",
        ),
        (
            lambda: torchvision.models.detection.retinanet_resnet50_fpn(
                weights=None, weights_backbone=None
            ),
            "one-stage detector",
        ),
        (
            lambda: torchvision.models.segmentation.deeplabv3_resnet50(
                weights=None, weights_backbone=None
            ),
            "semantic segmenter",
        ),
        (lambda: torchvision.models.resnet18(), "classifier of 1000 classes (fc.weight)"),
        (lambda: timm.create_model("resnet18", num_classes=0), "perhaps a backbone alone"),
    ],
)
def test_the_training_is_told_from_names(build, expected):
    with torch.device("meta"):
        state = build().state_dict()
    (found,) = training_of(state)
    assert expected in found


def test_prefixes_are_those_that_tell_keys_apart():
    assert outermost_prefixes(["a.b.c", "a.b.d", "a.e.f"]) == {"a.b.": 2, "a.e.": 1}
    assert outermost_prefixes(["a.b.c", "d"]) == {"a.": 1, "d": 1}
    assert outermost_prefixes(["a.b"]) == {"a.b": 1}


def test_the_command_prints_a_table_or_json(tmp_path, small, command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file({key: value.clone() for key, value in small.items()}, "a.safetensors")
    found = command("sources", "inspect", "a.safetensors")
    assert found.status == 0, found.err
    lines = dict(line.split(None, 1) for line in found.out.splitlines())
    assert lines["kind"] == "safetensors"
    assert lines["tensors"].startswith("90 with 372,688 parameters; ")
    assert lines["architecture"] == "test_resnet: 90 of 90 tensors matched"
    content = json.loads(command("sources", "inspect", "a.safetensors", "--json").out)
    assert content["architecture"]["architecture"] == "test_resnet"
    assert content["tensors"] == 90
    compared = command("sources", "inspect", "a.safetensors", "--architecture", "resnet18")
    assert compared.status == 2
    assert "nearest is resnet18, which does not fit" in compared.out
    assert compared.err.startswith("error: Source 'a' (a.safetensors)")


def test_other_weights_in_a_file_are_named_and_can_be_inspected(
    tmp_path, small, command, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    torch.save({"student": small, "teacher": small | {"extra": torch.ones(2)}}, "dino.pth")
    found = command("sources", "inspect", "dino.pth").out
    assert "container     teacher (beside student)" in found
    assert "such weights are in student, too" in found
    assert "tensors       91 with" in found
    chosen = command("sources", "inspect", "dino.pth", "--container", "student")
    assert "container     student (beside teacher)" in chosen.out
    assert "tensors       90 with" in chosen.out
    wrong = command("sources", "inspect", "dino.pth", "--container", "studnt")
    wrong.refused("dino.pth has no container 'studnt'", "Did you mean 'student'?")
    content = json.loads(command("sources", "inspect", "dino.pth", "--json").out)
    assert content["other_containers"] == ["student"]


def test_a_reference_is_inspected_like_a_file(command):
    found = command("sources", "inspect", "builtin:faces5")
    assert found.status == 0, found.err
    assert "faces5.safetensors" in found.out
    assert "architecture  test_resnet: 90 of 90" in found.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere.pth"], "nowhere.pth does not exist"),
        (["bultin:faces5"], "Did you mean 'builtin'?"),
        (["builtin:faces5", "--architecture", "resnt18"], "Did you mean 'resnet18'?"),
        (["code.pth"], "is refused"),
    ],
)
def test_what_cannot_be_inspected_is_one_clear_line(
    tmp_path, monkeypatch, marker, command, words, message
):
    class Hostile:
        def __reduce__(self):
            return Path.touch, (marker,)

    monkeypatch.chdir(tmp_path)
    Path("code.pth").write_bytes(pickle.dumps({"state_dict": Hostile()}))
    found = command("sources", "inspect", *words)
    assert found.status == 2
    (line,) = found.err.strip().splitlines()
    assert line.startswith("error: ")
    assert message in line


def test_a_run_of_ours_says_what_it_was(tiny, command):
    tiny()
    steps = ["--trainer.max_steps=1", "--trainer.val_check_interval=1"]
    assert command("fit", "--experiment", "tiny", "--run_dir", "run", *steps).status == 0
    for given in ("run", "run/checkpoints/last.ckpt"):
        found = command("sources", "inspect", given)
        assert found.status == 0, found.err
        assert (
            "LandmarkTask, ZooBackbone (lite) of test_resnet from random-1, random-2" in found.out
        )
        assert "experiment tiny, method lite" in found.out
        assert (
            "architecture  test_resnet: 90 of 90 tensors matched under 'backbone.net.'" in found.out
        )
