"""Files of Keras compute in timm's networks what Keras computes."""

import json
import os
import zipfile

import numpy as np
import pytest
import timm
import torch

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.files import read_file
from zoo_lightning.sources.keras_files import LEAVES, is_keras_archive, read_keras
from zoo_lightning.sources.layouts.keras_names import EFFICIENTNET, MOBILENET

h5py = pytest.importorskip("h5py")


def write_h5(path, arrays):
    """Write arrays as Keras 2 does: ``LAYER/LAYER/VARIABLE:0``."""
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            layer, _, leaf = name.rpartition("/")
            file[f"model_weights/{layer}/{layer}/{leaf}:0"] = array
        file["optimizer_weights/Adam/iterations:0"] = np.ones(1)


def test_kernels_get_the_axes_of_torch(tmp_path):
    arrays = {
        "Conv1/kernel": np.random.default_rng(0).normal(size=(3, 5, 2, 4)),
        "a_depthwise/depthwise_kernel": np.random.default_rng(1).normal(size=(3, 5, 4, 1)),
        "head/kernel": np.random.default_rng(2).normal(size=(4, 6)),
        "head/bias": np.arange(6.0),
        "bn/moving_variance": np.arange(4.0),
    }
    write_h5(tmp_path / "a.h5", arrays)
    found = read_keras(tmp_path / "a.h5")
    shapes = {key: tuple(tensor.shape) for key, tensor in found.items()}
    assert shapes == {
        "Conv1.weight": (4, 2, 3, 5),
        "a_depthwise.weight": (4, 1, 3, 5),
        "head.weight": (6, 4),
        "head.bias": (6,),
        "bn.running_var": (4,),
    }
    assert found["Conv1.weight"][3, 1, 2, 4] == arrays["Conv1/kernel"][2, 4, 1, 3]
    assert (
        found["a_depthwise.weight"][3, 0, 2, 4]
        == arrays["a_depthwise/depthwise_kernel"][2, 4, 3, 0]
    )
    assert found["head.weight"][5, 3] == arrays["head/kernel"][3, 5]


@pytest.mark.parametrize(
    ("layout", "architecture"),
    [(MOBILENET, "mobilenetv2_035"), (EFFICIENTNET, "tf_efficientnet_b0")],
)
def test_every_tensor_of_the_architecture_has_a_name_in_keras(layout, architecture):
    with torch.device("meta"):
        wanted = set(timm.create_model(architecture, num_classes=0).state_dict())
    wanted = {key for key in wanted if not key.endswith("num_batches_tracked")}
    if layout is MOBILENET:
        blocks = [
            f"block_{n}_{part}" for n in range(1, 17) for part in ("expand", "depthwise", "project")
        ]
        blocks += ["expanded_conv_depthwise", "expanded_conv_project"]
        layers = ["Conv1", "bn_Conv1", "Conv_1", "Conv_1_bn", *blocks]
        layers += [f"{block}_BN" for block in blocks]
    else:
        counts = dict(enumerate((1, 2, 2, 3, 3, 4, 1), 1))
        parts = ("expand_conv", "expand_bn", "dwconv", "bn", "se_reduce", "se_expand")
        parts += ("project_conv", "project_bn")
        layers = ["stem_conv", "stem_bn", "top_conv", "top_bn"]
        layers += [
            f"block{stage}{'abcd'[n]}_{part}"
            for stage, count in counts.items()
            for n in range(count)
            for part in parts
        ]
    names = {layout.renamed(f"{layer}.{leaf}") for layer in layers for leaf in set(LEAVES.values())}
    assert wanted <= names


@pytest.mark.parametrize("kind", ["external", "soft", "sparse"])
def test_links_and_arrays_that_are_not_in_the_file_are_refused(kind, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        group = file.create_group("Conv1/Conv1")
        if kind == "external":
            group["kernel:0"] = h5py.ExternalLink("other.h5", "/secret")
        elif kind == "soft":
            group["kernel:0"] = h5py.SoftLink("/Conv1")
        else:
            group.create_dataset("kernel:0", (10**6, 10**6), np.float32, chunks=(10, 10))
    with pytest.raises(SourceError, match="refused"):
        read_file(tmp_path / "a.h5")


def test_a_damaged_file_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"nothing" * 100)
    with pytest.raises(SourceError, match=r"a\.h5 is damaged"):
        read_file(tmp_path / "a.h5")


def test_an_archive_that_would_fill_the_memory_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("model.weights.h5", bytes(10**6))
    with pytest.raises(SourceError, match="unpack"):
        read_file(tmp_path / "a.keras")


def test_weights_without_names_of_layers_take_them_from_the_configuration(tmp_path):
    with h5py.File(tmp_path / "model.weights.h5", "w") as file:
        file["layers/conv2d/vars/0"] = np.ones((3, 3, 2, 4))
        file["layers/conv2d_1/vars/0"] = np.ones((1, 1, 4, 5))
        file["layers/batch_normalization/vars/2"] = np.arange(4.0)
    with pytest.raises(SourceError, match="names of their layers"):
        read_file(tmp_path / "model.weights.h5")
    layers = [("Conv2D", "first"), ("BatchNormalization", "norm"), ("Conv2D", "second")]
    config = [{"class_name": kind, "config": {"name": name}} for kind, name in layers]
    with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
        archive.write(tmp_path / "model.weights.h5", "model.weights.h5")
        archive.writestr("config.json", json.dumps({"config": {"layers": config}}))
    shapes = {key: tuple(t.shape) for key, t in read_file(tmp_path / "a.keras").items()}
    assert shapes == {
        "norm.running_mean": (4,),
        "first.weight": (4, 2, 3, 3),
        "second.weight": (5, 4, 1, 1),
    }


@pytest.fixture(scope="module")
def keras():
    """Keras on torch."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")


def randomised(keras, model):
    """Give every variable of a Keras model values that matter."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        shape, name = tuple(weight.shape), weight.name
        noise = rng.normal(size=shape)
        if name == "moving_variance":
            weight.assign(1 + 0.3 * np.abs(noise))
        elif name in ("kernel", "depthwise_kernel"):
            depthwise = len(shape) == 4 and shape[-1] == 1
            weight.assign(noise / np.prod(shape[:2] if depthwise else shape[:-1]) ** 0.5)
        elif name == "gamma":
            weight.assign(1 + 0.2 * noise)
        elif name in ("beta", "bias", "moving_mean"):
            weight.assign(0.2 * noise)
    return model


def assert_computes_the_same(network, model, images, scale):
    """Compare features of a network of torch with those of Keras, whose images are in NHWC."""
    x = images(64)
    theirs = model(scale * x.permute(0, 2, 3, 1).numpy()).detach().numpy()
    with torch.no_grad():
        ours = network(x).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert theirs.std() > 0.1


@pytest.mark.parametrize(
    "file",
    [
        "a.keras",
        pytest.param("a.h5", marks=pytest.mark.slow),
        pytest.param("a.weights.h5", marks=pytest.mark.slow),
    ],
)
def test_mobilenetv2_computes_the_same_features(file, keras, tmp_path, read, images):
    model = keras.applications.MobileNetV2(
        weights=None, input_shape=(64, 64, 3), alpha=0.35, include_top=False, pooling="avg"
    )
    randomised(keras, model)
    (model.save_weights if "weights" in file else model.save)(tmp_path / file)
    network, report = read(tmp_path / file, "keras_mobilenetv2_035")
    assert_computes_the_same(network, model, images, 1)
    assert report.layout == "Keras MobileNetV2"


@pytest.mark.slow
def test_efficientnet_computes_the_same_features(keras, tmp_path, read, images):
    model = keras.applications.EfficientNetB0(
        weights=None, input_shape=(64, 64, 3), include_top=False, pooling="avg"
    )
    randomised(keras, model)
    model.save(tmp_path / "a.keras")
    network, report = read(tmp_path / "a.keras", "tf_efficientnet_b0")
    assert_computes_the_same(network, model, images, 255)  # its own rescaling divides by that
    assert report.layout == "Keras EfficientNet"


def test_no_damage_to_an_archives_directory_is_more_than_no_archive(tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("data.pkl", b"\x80\x02")
    whole = path.read_bytes()
    assert not is_keras_archive(path)
    directory = whole.index(b"PK\x01\x02")
    for place in range(directory, len(whole)):
        for byte in (0x00, 0x80, 0xFF):  # among them flags that say the names are UTF-8
            content = bytearray(whole)
            content[place] = byte
            content[directory + 46] = 0x80  # the name's first byte
            path.write_bytes(content)
            assert not is_keras_archive(path)
