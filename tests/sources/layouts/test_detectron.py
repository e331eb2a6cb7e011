"""Pickles of detectron2 and Caffe2: the same features, and no code that is run."""

import os
import pickle
import re
from collections import OrderedDict

import numpy as np
import pytest
import torch
from timm.models.resnet import Bottleneck, ResNet
from torch import nn
from torchvision.models import resnet as torchvision_resnet

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.detectron import read_array_pickle
from zoo_lightning.sources.files import read_file


def tiny_resnet():
    """A ResNet with bottleneck blocks."""
    return ResNet(Bottleneck, (1, 2, 1, 1), num_classes=0, channels=(4, 8, 12, 16))


@pytest.fixture
def reference(scattered):
    """The same network of torchvision, with the narrow blocks of the small one."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision_resnet.ResNet(torchvision_resnet.Bottleneck, [1, 2, 1, 1])
        inputs = 64
        for stage, width in enumerate((4, 8, 12, 16), 1):
            for block in getattr(network, f"layer{stage}"):
                stride = block.conv2.stride
                block.conv1, block.bn1 = nn.Conv2d(inputs, width, 1, bias=False), norm(width)
                block.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
                block.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
                block.bn2, block.bn3 = norm(width), norm(4 * width)
                if block.downsample is not None:
                    shortcut = nn.Conv2d(inputs, 4 * width, 1, stride, bias=False)
                    block.downsample = nn.Sequential(shortcut, norm(4 * width))
                inputs = 4 * width
        network.fc = nn.Identity()
    return scattered(network)


def norm(width):
    """A batch norm."""
    return nn.BatchNorm2d(width)


def detectron_names(state, prefix):
    """Arrays of torchvision's ResNet under the names of detectron2."""
    found = OrderedDict()
    for key, tensor in state.items():
        if key.endswith("num_batches_tracked"):
            continue
        key = re.sub(r"^conv1\.", "stem.conv1.", key)
        key = re.sub(r"^bn1\.", "stem.conv1.norm.", key)
        key = re.sub(r"layer(\d)\.(\d)\.bn(\d)\.", r"layer\1.\2.conv\3.norm.", key)
        key = key.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
        key = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", key)
        found[prefix + key] = tensor.numpy()
    return found


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_detectron2_computes_the_same_features(protocol, reference, tmp_path, read, assert_agrees):
    arrays = detectron_names(reference.state_dict(), "backbone.bottom_up.")
    arrays["backbone.fpn_lateral2.weight"] = np.ones((4, 16, 1, 1), np.float32)
    arrays["proposal_generator.anchor_generator.cell_anchors.0"] = np.ones((3, 4), np.float64)
    content = {"model": arrays, "__author__": "them", "iteration": np.int64(3)}
    with (tmp_path / "model.pkl").open("wb") as file:
        pickle.dump(content, file, protocol=protocol)
    network, report = read(tmp_path / "model.pkl", tiny_resnet)
    assert_agrees(network, reference, 64)
    assert (report.layout, report.prefix) == ("detectron2 ResNet", "backbone.bottom_up.")
    assert ["strides" in remark for remark in report.remarks] == [True]


def test_caffe2_with_frozen_norms_computes_the_same_features(
    reference, tmp_path, read, assert_agrees
):
    blobs = {}
    for key, tensor in reference.state_dict().items():
        if key.endswith("running_mean"):
            tensor.zero_()
        elif key.endswith("running_var"):
            tensor.fill_(1 - 1e-5)
    for key, tensor in reference.state_dict().items():
        layer, _, leaf = key.rpartition(".")
        if leaf not in ("weight", "bias"):
            continue
        is_norm = tensor.ndim == 1
        end = ("s" if leaf == "weight" else "b") if is_norm else "w"
        found = re.fullmatch(r"layer(\d)\.(\d)\.(?:(?:conv|bn)(\d)|downsample\.\d)", layer)
        if found:
            branch = {"1": "2a", "2": "2b", "3": "2c", None: "1"}[found[3]]
            name = f"res{int(found[1]) + 1}_{found[2]}_branch{branch}"
            name += "_bn" if is_norm else ""
        else:
            name = "res_conv1_bn" if is_norm else "conv1"
        blobs[f"{name}_{end}"] = tensor.numpy()
    blobs["fc1000_w"] = np.ones((5, 64), np.float32)
    with (tmp_path / "R-50.pkl").open("wb") as file:
        pickle.dump({"blobs": blobs}, file, protocol=2)
    network, report = read(tmp_path / "R-50.pkl", tiny_resnet)
    assert_agrees(network, reference, 64)
    assert report.layout == "Caffe2 ResNet"


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f2", "<i8", "|u1", "|b1"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 5])
def test_arrays_of_every_plain_type_are_read(dtype, order, protocol, tmp_path):
    array = np.asarray(np.arange(6).reshape(2, 3), dtype=dtype, order=order)
    with (tmp_path / "a.pkl").open("wb") as file:
        pickle.dump({"a": array, "b": {"c": array}}, file, protocol=protocol)
    found = read_array_pickle(tmp_path / "a.pkl")
    assert found["a"].tolist() == array.tolist() == found["b"]["c"].tolist()


class Mkdir:
    """Makes a folder when a careless reader unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Huge:
    """Asks NumPy for an array of many gigabytes."""

    def __reduce__(self):
        return np.ndarray, ((10**12,), np.dtype("f4"))


@pytest.mark.parametrize("kind", ["code", "objects", "short", "records"])
def test_what_is_not_an_array_of_numbers_is_refused(kind, tmp_path):
    marker = tmp_path / "marker"
    dtype = np.dtype([("a", "O"), ("b", "f4")])
    content = {
        "code": Mkdir(marker),
        "objects": np.array([Mkdir(marker), None], dtype=object),
        "records": np.zeros(2, dtype=dtype),
        "short": np.ones(10, np.float32),
    }[kind]
    raw = pickle.dumps({"model": {"a.weight": content}}, protocol=2)
    if kind == "short":
        raw = raw.replace(b"K\n\x85", b"K\x0b\x85")  # eleven numbers, of which ten are there
    (tmp_path / "model.pkl").write_bytes(raw)
    with pytest.raises(SourceError, match="no pickle of NumPy arrays alone"):
        read_file(tmp_path / "model.pkl")
    assert not marker.exists()


def test_an_array_by_its_constructor_takes_no_memory(tmp_path):
    with (tmp_path / "model.pkl").open("wb") as file:
        pickle.dump({"a": Huge(), "b": np.ones((2, 2))}, file, protocol=2)
    found = read_array_pickle(tmp_path / "model.pkl")
    assert found["a"].numel() == 0
