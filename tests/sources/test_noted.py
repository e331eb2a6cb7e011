"""Normalisation that checkpoints note about themselves."""

import json

import pytest
import torch
from safetensors.torch import save_file

from zoo_lightning.sources.inspecting import format_inspection, inspect
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.spec import Source

CAFFE = Normalisation((103.53, 116.28, 123.675), (1.0, 1.0, 1.0), "0..255", "bgr")
RGB = Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), "0..255", "rgb")

OLD = """
img_norm_cfg = dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], to_rgb=False)
train_pipeline = [dict(type='Normalize', **img_norm_cfg)]
"""
NEW = """
model = dict(data_preprocessor=dict(
    type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True, pad_size_divisor=32), backbone={'type': 'ResNet', 'depth': 50})
"""
MIXED = OLD + NEW


def read(content, path):
    """What is known of a checkpoint with this content."""
    torch.save(content, path)
    found = read_weights(Source("a", str(path)), None).normalisation
    assert inspect(Source("a", str(path))).preprocessing == found
    return found


@pytest.mark.parametrize(
    ("meta", "expected"),
    [
        ({"config": OLD}, CAFFE),
        ({"cfg": NEW}, RGB),
        ({"config": MIXED}, None),
        ({"config": "mean = ["}, None),
        ({"config": "(" * 5000}, None),
        ({"config": "dict(mean=open('x'), std=[1.0], to_rgb=True)"}, None),
        ({"config": 3}, None),
        ("?", None),
    ],
)
def test_openmmlabs_checkpoints_contain_their_configuration(meta, expected, small, tmp_path):
    assert read({"meta": meta, "state_dict": dict(small)}, tmp_path / "a.pth") == expected


def test_detectron2_has_mean_and_deviation_as_tensors(small, tmp_path):
    def tensors(mean, std):
        shaped = (torch.tensor(each).view(3, 1, 1) for each in (mean, std))
        return dict(zip(("pixel_mean", "pixel_std"), shaped, strict=True))

    for expected in (CAFFE, RGB):
        found = read({"model": small | tensors(expected.mean, expected.std)}, tmp_path / "a.pth")
        assert found.channels == expected.channels
        assert found.mean == pytest.approx(expected.mean)
        assert found.range == "0..255"
    same = small | tensors([127.5] * 3, [127.5] * 3)
    assert read({"model": same}, tmp_path / "b.pth") is None  # its order does not show


def test_a_checkpoint_of_this_project_notes_its_data(small, tmp_path):
    content = {"state_dict": dict(small), "zoo_lightning": {"data": {"mean": [0.1], "std": [0.2]}}}
    assert read(content, tmp_path / "a.ckpt") == Normalisation((0.1,), (0.2,))
    content["zoo_lightning"] = {"data": {}}
    assert read(content, tmp_path / "b.ckpt") is None


@pytest.mark.parametrize(
    ("name", "noted", "expected"),
    [
        ("config.json", {"pretrained_cfg": {"mean": [0.5], "std": [0.2]}}, ((0.5,), (0.2,), None)),
        ("open_clip_config.json", {"preprocess_cfg": {"mean": [0.4], "std": [0.2]}},
         ((0.4,), (0.2,), None)),
        ("preprocessor_config.json", {"image_mean": [0.3], "image_std": [0.1]},
         ((0.3,), (0.1,), None)),
        ("preprocessor_config.json", {"do_normalize": False, "do_flip_channel_order": True},
         ((0.0,) * 3, (1.0,) * 3, "bgr")),
        ("preprocessor_config.json",
         {"image_mean": [0.3], "image_std": [0.1], "rescale_factor": 1 / 127.5}, None),
        ("preprocessor_config.json",
         {"image_mean": [0.3], "image_std": [0.1], "do_rescale": False}, None),
    ],
)  # fmt: skip
def test_a_folder_of_the_hub_notes_it_beside_its_file(name, noted, expected, small, tmp_path):
    save_file(small, tmp_path / "model.safetensors")
    (tmp_path / name).write_text(json.dumps(noted))
    wanted = expected and Normalisation(*expected[:2], channels=expected[2])
    for given in (tmp_path, tmp_path / "model.safetensors"):
        assert read_weights(Source("a", str(given)), None).normalisation == wanted
        assert inspect(Source("a", str(given))).preprocessing == wanted


def test_inspect_says_what_it_knows_of_the_input(small, tmp_path):
    torch.save({"meta": {"config": OLD}, "state_dict": dict(small)}, tmp_path / "a.pth")
    torch.save(small, tmp_path / "b.pth")
    lines = [format_inspection(inspect(Source("x", str(tmp_path / f"{n}.pth")))) for n in "ab"]
    assert "input         BGR in 0..255, mean (103.5, 116.3, 123.7), std 1" in lines[0]
    assert "input         unknown; mean, std, range and channels of a source declare it" in lines[1]
