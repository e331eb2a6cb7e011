"""Layouts of the authors' own repositories: CLIP and OpenCLIP, DINOv2, Swin, ConvNeXt, detectron2.

MAE and DINO name tensors as timm does; only their containers and prefixes differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor

from zoo_lightning.sources.layouts.huggingface import QUICK, clip_shapes, flat_scales
from zoo_lightning.sources.layouts.layout import Layout, shifted

CLIP_BLOCK = r"transformer\.resblocks\.(\d+)\."
"""Beginning of the names of a block of CLIP's vision tower."""


CLIP = Layout(
    name="CLIP",
    marker=r"class_embedding",
    rules=(
        (r"class_embedding", "cls_token"),
        (r"positional_embedding", "pos_embed"),
        (r"conv1\.(\w+)", r"patch_embed.proj.\1"),
        (r"ln_pre\.(\w+)", r"norm_pre.\1"),
        (r"ln_post\.(\w+)", r"norm.\1"),
        (CLIP_BLOCK + r"attn\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
        (CLIP_BLOCK + r"attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
        (CLIP_BLOCK + r"ln_(\d)\.(\w+)", r"blocks.\1.norm\2.\3"),
        (CLIP_BLOCK + r"ls_(\d)\.gamma", r"blocks.\1.ls\2.gamma"),
        (CLIP_BLOCK + r"mlp\.c_fc\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (CLIP_BLOCK + r"mlp\.c_proj\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
    ),
    reshape=clip_shapes,
    remark=QUICK,
)
"""The vision transformers of OpenAI's CLIP and of OpenCLIP; the projection to the joint space is a
head and left out."""

CLIP_RESNET_PARTS = {"1": "conv1_1x1", "2": "conv2_kxk", "3": "conv3_1x1"}
"""Layers of a bottleneck block, by number."""


def _clip_resnet_block(match: re.Match[str]) -> str:
    stage, block, kind, layer, rest = match.groups()
    return f"stages.{int(stage) - 1}.{block}.{CLIP_RESNET_PARTS[layer]}.{kind}.{rest}"


def _clip_resnet_shortcut(match: re.Match[str]) -> str:
    stage, block, layer, rest = match.groups()
    kind = "conv" if layer == "0" else "bn"
    return f"stages.{int(stage) - 1}.{block}.shortcut.conv.{kind}.{rest}"


CLIP_RESNET = Layout(
    name="CLIP ResNet",
    marker=r"attnpool\.positional_embedding",
    rules=(
        (r"(conv|bn)(\d)\.(\w+)", r"stem.conv\2.\1.\3"),
        (r"layer(\d)\.(\d+)\.(conv|bn)(\d)\.(\w+)", _clip_resnet_block),
        (r"layer(\d)\.(\d+)\.downsample\.(\d)\.(\w+)", _clip_resnet_shortcut),
        (r"attnpool\.positional_embedding", "head.pos_embed"),
        (r"attnpool\.([qkv])_proj\.(\w+)", r"head.\1.\2"),
        (r"attnpool\.c_proj\.(\w+)", r"head.proj.\1"),
    ),
)
"""The ResNets of OpenAI's CLIP and of OpenCLIP, timm's ``resnet50_clip``."""

DINOV2 = Layout(
    name="DINOv2",
    marker=r"register_tokens|blocks\.0\.mlp\.w12\.weight|blocks\.0\.0\.norm1\.weight",
    rules=(
        (r"register_tokens", "reg_token"),
        (r"blocks\.(?:\d+\.)?(\d+)\.mlp\.w12\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (r"blocks\.(?:\d+\.)?(\d+)\.mlp\.w3\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
        (r"blocks\.\d+\.(\d+)\.(.+)", r"blocks.\1.\2"),
    ),
)
"""DINOv2 with registers, gated layers or blocks in chunks; without them it has timm's names."""

SWIN = Layout(
    name="Swin",
    marker=r"layers\.0\.downsample\.reduction\.weight",
    rules=((r"layers\.(\d+)\.downsample\.(.+)", shifted("layers.{0}.downsample.{1}")),),
)
"""Swin and Swin V2; a stage's patch merging, at its end here, is at the next one's beginning in
timm."""

CONVNEXT = Layout(
    name="ConvNeXt",
    marker=r"downsample_layers\.0\.0\.weight",
    rules=(
        (r"downsample_layers\.0\.(\d)\.(\w+)", r"stem.\1.\2"),
        (r"downsample_layers\.(\d)\.(\d)\.(\w+)", r"stages.\1.downsample.\2.\3"),
        (r"stages\.(\d)\.(\d+)\.dwconv\.(\w+)", r"stages.\1.blocks.\2.conv_dw.\3"),
        (r"stages\.(\d)\.(\d+)\.pwconv(\d)\.(\w+)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
        (r"stages\.(\d)\.(\d+)\.grn\.gamma", r"stages.\1.blocks.\2.mlp.grn.weight"),
        (r"stages\.(\d)\.(\d+)\.grn\.beta", r"stages.\1.blocks.\2.mlp.grn.bias"),
        (r"stages\.(\d)\.(\d+)\.(.+)", r"stages.\1.blocks.\2.\3"),
        (r"norm\.(\w+)", r"head.norm.\1"),
    ),
    reshape=flat_scales,
)
"""ConvNeXt and ConvNeXt V2."""

STRIDES = (
    "the file does not say where its bottleneck blocks have their strides, and timm's have them in "
    "the 3x3 convolutions"
)
"""Remark on detectron2's ResNets."""


def _detectron_layer(kind: str) -> Callable[[re.Match[str]], str]:
    """Replacement of a convolution or norm of a block; stages count from 2."""

    def replace(match: re.Match[str]) -> str:
        stage, block, layer, rest = match.groups()
        return f"layer{int(stage) - 1}.{block}.{kind}{layer}.{rest}"

    return replace


DETECTRON = Layout(
    name="detectron2 ResNet",
    marker=r"stem\.conv1\.norm\.weight",
    rules=(
        (r"stem\.conv1\.norm\.(\w+)", r"bn1.\1"),
        (r"stem\.conv1\.(\w+)", r"conv1.\1"),
        (r"res(\d)\.(\d+)\.conv(\d)\.norm\.(\w+)", _detectron_layer("bn")),
        (r"res(\d)\.(\d+)\.conv(\d)\.(\w+)", _detectron_layer("conv")),
        (r"res(\d)\.(\d+)\.shortcut\.norm\.(\w+)", shifted("layer{0}.{1}.downsample.1.{2}", -1)),
        (r"res(\d)\.(\d+)\.shortcut\.(\w+)", shifted("layer{0}.{1}.downsample.0.{2}", -1)),
    ),
    remark=STRIDES,
)

CAFFE_ENDS = {"w": "weight", "s": "weight", "b": "bias"}
"""Last parts of Caffe2's names: of a kernel, and of a norm's scale and shift."""

CAFFE_BRANCHES = {"2a": "1", "2b": "2", "2c": "3"}
"""Branches of a Caffe2 block that are layers of timm's."""

FROZEN_EPS = 1e-5
"""What batch norm adds to a variance; Caffe2's scale and shift apply without it."""


def _caffe_layer(match: re.Match[str]) -> str:
    stage, block, branch, norm, end = match.groups()
    place = f"layer{int(stage) - 1}.{block}."
    if branch == "1":
        return f"{place}downsample.{1 if norm else 0}.{CAFFE_ENDS[end]}"
    return f"{place}{'bn' if norm else 'conv'}{CAFFE_BRANCHES[branch]}.{CAFFE_ENDS[end]}"


def _with_statistics(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Add statistics with which batch norm applies the frozen scale and shift alone."""
    whole = dict(state)
    for key, scale in state.items():
        if re.search(r"(^|\.)(bn\d|downsample\.1)\.weight$", key):
            norm = key.removesuffix("weight")
            whole[norm + "running_mean"] = torch.zeros_like(scale)
            whole[norm + "running_var"] = torch.full_like(scale, 1 - FROZEN_EPS)
    return whole


CAFFE = Layout(
    name="Caffe2 ResNet",
    marker=r"res2_0_branch2a_w",
    rules=(
        (r"conv1_w", "conv1.weight"),
        (r"res_conv1_bn_s", "bn1.weight"),
        (r"res_conv1_bn_b", "bn1.bias"),
        (r"res(\d)_(\d+)_branch(1|2a|2b|2c)(_bn)?_([wsb])", _caffe_layer),
    ),
    reshape=_with_statistics,
    remark=STRIDES,
)
"""ResNets with frozen norms, as detectron2's ``MSRA/R-50.pkl``."""

LAYOUTS = (CLIP, CLIP_RESNET, DINOV2, SWIN, CONVNEXT, DETECTRON, CAFFE)
"""All layouts of this module."""
