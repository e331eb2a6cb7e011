"""Transformers give pooled features, maps and stages as convolutional networks do."""

import pytest
import timm
import torch

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.models.plain import PlainBackbone

SOURCES = ["random:0", "random:1"]


def zoo(name, output, **options):
    return ZooBackbone(name, SOURCES, "lite", output=output, **options).eval()


def test_the_map_of_a_vit_is_that_of_its_patches():
    backbone = zoo("test_vit2", "map", align="heads")  # with a class token and registers
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        found = backbone(x)
        network = timm.create_model("test_vit2", num_classes=0).eval()
        network.load_state_dict(backbone.folded_state())
        tokens = network.forward_features(x)[:, network.num_prefix_tokens :]
    assert backbone.feature_shapes == [(64, 10, 10)]
    assert backbone.reductions == [16]
    wanted = tokens.transpose(1, 2).reshape(2, 64, 10, 10)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_the_stages_of_a_vit_are_normalised_blocks_at_equal_distances():
    backbone = zoo("test_vit", "stages")  # 6 blocks
    assert backbone.feature_shapes == [(64, 10, 10)] * 4
    assert backbone.reductions == [16] * 4
    x = torch.randn(2, 3, 160, 160)
    with torch.no_grad():
        found = backbone(x)
        network = timm.create_model("test_vit", num_classes=0).eval()
        state = {k.removeprefix("model."): v for k, v in backbone.folded_state().items()}
        network.load_state_dict(state)  # exactly timm's keys
        wanted = network.forward_intermediates(
            x, indices=[0, 2, 3, 5], norm=True, intermediates_only=True
        )
    for own, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-5)


def test_the_stages_of_a_vit_have_the_sources_weights():
    backbone = PlainBackbone("test_vit", SOURCES[:1], output="stages")
    loaded = backbone.loaded[0].state
    for key, value in backbone.net.state_dict().items():
        assert torch.equal(value, loaded[key.removeprefix("model.")])


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("mobilevit_xxs", [128, 64, 32, 16, 8]),
        ("mixer_s32_224", [7, 7, 7, 7]),
        pytest.param("swin_tiny_patch4_window7_224", [56, 28, 14, 7], marks=pytest.mark.slow),
    ],
)
def test_stages_have_channels_first(name, sizes):
    backbone = PlainBackbone(name, output="stages")
    assert [shape[1:] for shape in backbone.feature_shapes] == [(s, s) for s in sizes]
    backbone = PlainBackbone(name, output="map")
    _, height, width = backbone.feature_shapes[0]
    assert height == width <= 8


@pytest.mark.parametrize("output", ["pooled", "map", "stages"])
def test_a_vit_is_built_for_another_image_size(output):
    backbone = zoo("test_vit", output, image_size=64)
    found = backbone(torch.randn(2, 3, 64, 64))
    found = found if isinstance(found, list) else [found]
    assert [tuple(each.shape[1:]) for each in found] == backbone.feature_shapes
    if output == "pooled":
        network = timm.create_model("test_vit", num_classes=0, img_size=64)
        network.load_state_dict(backbone.folded_state())
    again = ZooBackbone(**backbone.config)
    again.load_state_dict(backbone.state_dict())


@pytest.mark.parametrize(
    ("name", "size", "match"),
    [
        ("resnet18", 64, "takes images of any size"),
        ("test_vit", 5, "multiple of its patches"),
        ("nature_cnn", 84, "timm's networks"),
    ],
)
def test_an_image_size_that_does_not_suit_is_refused(name, size, match):
    with pytest.raises(ConfigError, match=match) as error:
        Architecture(name, image_size=size)
    assert "image_size" in str(error.value)
