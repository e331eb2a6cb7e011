"""torchvision's ViT, Swin and ConvNeXt compute in timm's networks what they computed there."""

import pytest
import torch
from timm.models import ConvNeXt, SwinTransformer, SwinTransformerV2, VisionTransformer
from torchvision import models


def without_head(model):
    """A torchvision model that returns its features."""
    model.heads = model.head = torch.nn.Identity()
    return model


@pytest.mark.parametrize("named", ["now", "formerly"])
def test_vit_computes_the_same_features(named, tmp_path, scattered, read, assert_agrees):
    model = models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64,
        num_classes=3,
    )  # fmt: skip
    state = scattered(model).state_dict()
    if named == "formerly":  # the names of the MLP in the files that torchvision publishes
        state = {
            key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): tensor
            for key, tensor in state.items()
        }
    torch.save(state, tmp_path / "vit.pth")
    network, report = read(
        tmp_path / "vit.pth",
        lambda: VisionTransformer(
            img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=2, mlp_ratio=2,
            num_classes=0,
        ),
    )  # fmt: skip
    assert_agrees(network, without_head(model), 32)
    assert report.layout == "torchvision ViT"
    assert report.unused == ["heads.head.weight", "heads.head.bias"]


SWIN = {"embed_dim": 16, "num_heads": [2, 4], "mlp_ratio": 2, "window_size": [4, 4]}
"""Options of a small Swin of torchvision."""


@pytest.mark.parametrize("version", [1, 2])
def test_swin_computes_the_same_features(version, tmp_path, scattered, read, assert_agrees):
    options = dict(SWIN, patch_size=[4, 4], depths=[2, 2], num_classes=3)
    network = SwinTransformer
    if version == 2:
        swin = models.swin_transformer
        options |= {"block": swin.SwinTransformerBlockV2, "downsample_layer": swin.PatchMergingV2}
        network = SwinTransformerV2
    model = scattered(models.SwinTransformer(**options))
    torch.save(model.state_dict(), tmp_path / "swin.pth")
    network, report = read(
        tmp_path / "swin.pth",
        lambda: network(
            img_size=64, patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4),
            window_size=4, mlp_ratio=2, num_classes=0,
        ),
    )  # fmt: skip
    assert_agrees(network, without_head(model), 64)
    assert (report.layout, report.matched) == ("torchvision Swin", report.total)


def test_relative_positions_of_other_windows_are_interpolated_as_timm_does(
    tmp_path, scattered, read, images
):
    options = dict(SWIN, patch_size=[4, 4], depths=[2, 2], num_classes=3)
    model = scattered(models.SwinTransformer(**options))
    torch.save(model.state_dict(), tmp_path / "swin.pth")

    def build(window):
        return SwinTransformer(
            img_size=16 * window, patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4),
            window_size=window, mlp_ratio=2, num_classes=0,
        )  # fmt: skip

    network, report = read(tmp_path / "swin.pth", lambda: build(6))
    assert report.remarks == (
        "4 tables of relative positions interpolated from windows of 4x4 to 6x6",
    )
    expected, _ = read(tmp_path / "swin.pth", lambda: build(4))
    expected.set_input_size(img_size=96, window_size=6)  # timm's own interpolation
    with torch.no_grad():
        torch.testing.assert_close(network(images(96)), expected(images(96)))


def test_convnext_computes_the_same_features(tmp_path, scattered, read, assert_agrees):
    setting = models.convnext.CNBlockConfig
    model = models.ConvNeXt(
        [setting(8, 12, 1), setting(12, 16, 2), setting(16, 20, 1), setting(20, None, 1)],
        num_classes=3,
    )
    torch.save(scattered(model).state_dict(), tmp_path / "convnext.pth")
    network, report = read(
        tmp_path / "convnext.pth",
        lambda: ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 12, 16, 20), num_classes=0),
    )
    model.classifier[2] = torch.nn.Identity()
    assert_agrees(network, model, 64)
    assert report.layout == "torchvision ConvNeXt"
