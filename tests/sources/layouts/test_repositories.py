"""Checkpoints of the authors' repositories compute in timm's networks what they computed there."""

import importlib.util
import re
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from timm.models import ByobNet, ConvNeXt, SwinTransformer, VisionTransformer
from timm.models.byobnet import model_cfgs
from torch import nn
from torchvision import models

from zoo_lightning.errors import SourceError


@pytest.fixture(scope="module")
def authors():
    """The module of networks as their authors have them."""
    path = Path(__file__).with_name("authors_networks.py")
    spec = importlib.util.spec_from_file_location("authors_networks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def tiny_vit(**options):
    """The same networks of timm."""
    options = {
        "img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2,
        "mlp_ratio": 2, "num_classes": 0,
    } | options  # fmt: skip
    return VisionTransformer(**options)


CLIP = {"depth": 2, "pre_norm": True, "norm_layer": nn.LayerNorm}
"""Options of CLIP's vision transformer."""


def test_openai_clip_computes_the_same_features(authors, tmp_path, scattered, read, assert_agrees):
    model = scattered(authors.Clip(authors.ClipVision()))
    sizes = {"input_resolution": 32, "context_length": 5, "vocab_size": 8}
    state = model.state_dict() | {key: torch.tensor(size) for key, size in sizes.items()}
    torch.save(state, tmp_path / "clip.pth")
    network, report = read(
        tmp_path / "clip.pth", lambda: tiny_vit(**CLIP, act_layer=timm.layers.QuickGELU)
    )
    assert_agrees(network, model.visual, 32)
    assert (report.layout, report.prefix) == ("CLIP", "visual.")
    assert (report.matched, report.total) == (31, 31)


def test_openclip_computes_the_same_features(authors, tmp_path, scattered, read, assert_agrees):
    model = scattered(authors.Clip(authors.ClipVision(act=nn.GELU)))
    state = {f"module.{key}": tensor for key, tensor in model.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "epoch_1.pt")
    network, report = read(tmp_path / "epoch_1.pt", lambda: tiny_vit(**CLIP))
    assert_agrees(network, model.visual, 32)
    assert report.prefix == "module.visual."


def test_openclip_around_a_network_of_timm_computes_the_same_features(
    tmp_path, scattered, read, assert_agrees
):
    trunk = scattered(tiny_vit())
    state = {f"visual.trunk.{key}": tensor for key, tensor in trunk.state_dict().items()}
    state |= {"visual.head.proj.weight": torch.ones(16, 32), "logit_scale": torch.ones([])}
    torch.save(state, tmp_path / "open_clip.bin")
    network, report = read(tmp_path / "open_clip.bin", tiny_vit)
    assert_agrees(network, trunk, 32)
    assert report.prefix == "visual.trunk."


def test_the_resnet_of_clip_computes_the_same_features(
    authors, tmp_path, scattered, read, assert_agrees
):
    model = scattered(authors.Clip(authors.ClipResNet()))
    torch.save(model.state_dict(), tmp_path / "clip.pth")
    config = model_cfgs["resnet50_clip"]
    blocks = tuple(replace(each, d=1, c=32 * 2**i) for i, each in enumerate(config.blocks))

    def build():
        small = replace(config, blocks=blocks, stem_chs=(4, 4, 8), attn_kwargs={})
        return ByobNet(small, num_classes=0, img_size=64)

    network, report = read(tmp_path / "clip.pth", build)
    assert_agrees(network, model.visual, 64)
    assert (report.layout, report.matched) == ("CLIP ResNet", report.total)


def test_dino_computes_the_same_features_as_its_teacher(
    authors, tmp_path, scattered, read, assert_agrees
):
    student, teacher = (
        scattered(authors.VisionTransformer()),
        scattered(authors.VisionTransformer(), seed=1),
    )
    head = {"module.head.mlp.0.weight": torch.ones(8, 32)}
    state = {
        name: {f"module.backbone.{k}": t for k, t in model.state_dict().items()} | head
        for name, model in (("student", student), ("teacher", teacher))
    }
    torch.save(state | {"epoch": 3}, tmp_path / "dino.pth")
    network, report = read(tmp_path / "dino.pth", tiny_vit)
    assert_agrees(network, teacher, 32)
    assert (report.container, report.prefix) == ("teacher", "module.backbone.")
    network, _ = read(tmp_path / "dino.pth", tiny_vit, container="student")
    assert_agrees(network, student, 32)


def test_the_encoder_of_mae_computes_the_same_features(
    authors, tmp_path, scattered, read, assert_agrees
):
    model = scattered(authors.VisionTransformer())
    decoder = {
        f"decoder_{key}": torch.ones(16, 16) for key in ("embed.weight", "blocks.0.norm1.weight")
    } | {"mask_token": torch.ones(1, 1, 16), "decoder_pos_embed": torch.ones(1, 17, 16)}
    torch.save({"model": model.state_dict() | decoder}, tmp_path / "mae.pth")
    network, report = read(tmp_path / "mae.pth", tiny_vit)
    assert_agrees(network, model, 32)
    assert report.unused == [*decoder]


def test_a_network_that_averages_its_tokens_is_refused_where_one_token_is_taken(
    authors, tmp_path, scattered, read, assert_agrees, images
):
    state = dict(scattered(authors.VisionTransformer()).state_dict())
    for leaf in ("weight", "bias"):
        state[f"fc_norm.{leaf}"] = state.pop(f"norm.{leaf}")
    torch.save({"model": state}, tmp_path / "finetuned.pth")
    with pytest.raises(SourceError, match=r"norm\.weight .*fc_norm.*global_pool='avg'"):
        read(tmp_path / "finetuned.pth", tiny_vit)
    network, _ = read(tmp_path / "finetuned.pth", lambda: tiny_vit(global_pool="avg"))
    assert network(images(32)).shape == (2, 32)


@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("gated", [False, True], ids=["plain", "gated"])
@pytest.mark.parametrize("chunks", [0, 2])
def test_dinov2_computes_the_same_features(
    registers, gated, chunks, authors, tmp_path, scattered, read, assert_agrees
):
    model = scattered(authors.VisionTransformer(registers, True, gated, chunks))
    torch.save(model.state_dict(), tmp_path / "dinov2.pth")
    options = {"reg_tokens": registers, "no_embed_class": registers > 0, "init_values": 1}
    if gated:
        options |= {"mlp_layer": timm.layers.SwiGLUPacked, "act_layer": nn.SiLU}
    network, report = read(tmp_path / "dinov2.pth", lambda: tiny_vit(**options))
    assert_agrees(network, model, 32)
    assert report.unused == ["mask_token"]


def test_swin_computes_the_same_features(tmp_path, scattered, read, assert_agrees):
    model = models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], mlp_ratio=2, num_classes=3)
    scattered(model)
    state = {}
    for key, tensor in model.state_dict().items():  # under the names of Swin's authors
        key = key.replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
        key = key.replace("features.0.0.", "patch_embed.proj.")
        key = key.replace("features.0.2.", "patch_embed.norm.")
        key = re.sub(r"features\.(1|3)\.", lambda m: f"layers.{int(m[1]) // 2}.blocks.", key)
        state[key.replace("features.2.", "layers.0.downsample.")] = tensor
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(16, 16, 16)
    index = "layers.0.blocks.0.attn.relative_position_index"
    state[index] = state[index].reshape(16, 16)
    torch.save({"model": state}, tmp_path / "swin.pth")
    network, report = read(
        tmp_path / "swin.pth",
        lambda: SwinTransformer(
            img_size=64, patch_size=4, embed_dim=16, depths=(2, 2), num_heads=(2, 4),
            window_size=4, mlp_ratio=2, num_classes=0,
        ),
    )  # fmt: skip
    model.head = nn.Identity()
    assert_agrees(network, model, 64)
    assert report.layout == "Swin"


def test_convnext_computes_the_same_features(tmp_path, scattered, read, assert_agrees):
    setting = models.convnext.CNBlockConfig
    blocks = [setting(8, 12, 1), setting(12, 16, 2), setting(16, 20, 1), setting(20, None, 1)]
    model = scattered(models.ConvNeXt(blocks, num_classes=3))
    parts = {"layer_scale": "gamma", "block.0": "dwconv", "block.2": "norm"}
    parts |= {"block.3": "pwconv1", "block.5": "pwconv2"}
    state = {}
    for key, tensor in model.state_dict().items():  # under the names of ConvNeXt's authors
        for ours, theirs in parts.items():
            key = key.replace(f".{ours}", f".{theirs}")
        key = key.replace("features.0.", "downsample_layers.0.").replace("classifier.0.", "norm.")
        key = re.sub(r"features\.([246])\.", lambda m: f"downsample_layers.{int(m[1]) // 2}.", key)
        key = re.sub(r"features\.([1357])\.", lambda m: f"stages.{int(m[1]) // 2}.", key)
        key = key.replace("classifier.2.", "head.")
        state[key] = tensor.flatten() if key.endswith("gamma") else tensor
    torch.save({"model": state}, tmp_path / "convnext.pth")
    network, report = read(
        tmp_path / "convnext.pth",
        lambda: ConvNeXt(depths=(1, 2, 1, 1), dims=(8, 12, 16, 20), num_classes=0),
    )
    model.classifier[2] = nn.Identity()
    assert_agrees(network, model, 64)
    assert report.layout == "ConvNeXt"
