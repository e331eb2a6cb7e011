"""Layouts of Hugging Face ``transformers``: ViT, DeiT, MAE, DINOv2, CLIP, Swin, ConvNeXt, ResNet.

Both ways of naming are read: that of the files, and that of the modules of version 5, which differs
from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import Tensor

from zoo_lightning.sources.layouts.layout import Layout, shifted

VIT_BLOCK = r"(?:encoder\.)?layers?\.(\d+)\."
"""Beginning of a transformer block's names."""

VIT = Layout(
    name="Hugging Face ViT",
    marker=r"embeddings\.cls_token",
    rules=(
        (r"embeddings\.cls_token", "cls_token"),
        (r"embeddings\.distillation_token", "dist_token"),
        (r"embeddings\.register_tokens", "reg_token"),
        (r"embeddings\.position_embeddings", "pos_embed"),
        (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
        (VIT_BLOCK + r"attention\.(?:attention\.query|q_proj)\.(\w+)", r"blocks.\1.attn.q.\2"),
        (VIT_BLOCK + r"attention\.(?:attention\.key|k_proj)\.(\w+)", r"blocks.\1.attn.k.\2"),
        (VIT_BLOCK + r"attention\.(?:attention\.value|v_proj)\.(\w+)", r"blocks.\1.attn.v.\2"),
        (VIT_BLOCK + r"attention\.(?:output\.dense|o_proj)\.(\w+)", r"blocks.\1.attn.proj.\2"),
        (VIT_BLOCK + r"(?:layernorm_before|norm1)\.(\w+)", r"blocks.\1.norm1.\2"),
        (VIT_BLOCK + r"(?:layernorm_after|norm2)\.(\w+)", r"blocks.\1.norm2.\2"),
        (
            VIT_BLOCK + r"(?:intermediate\.dense|mlp\.fc1|mlp\.weights_in)\.(\w+)",
            r"blocks.\1.mlp.fc1.\2",
        ),
        (
            VIT_BLOCK + r"(?:output\.dense|mlp\.(?:fc2|weights_out|down_proj))\.(\w+)",
            r"blocks.\1.mlp.fc2.\2",
        ),
        (VIT_BLOCK + r"mlp\.(gate|up)_proj\.(\w+)", r"blocks.\1.mlp.\2.\3"),
        (VIT_BLOCK + r"layer_scale(\d)\.lambda1", r"blocks.\1.ls\2.gamma"),
        (r"layernorm\.(\w+)", r"norm.\1"),
    ),
)
"""ViT, DeiT, the encoder of MAE, and DINOv2 with and without registers."""


def clip_shapes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give CLIP's class token and positions timm's shapes: ``(1, 1, C)`` and ``(1, N, C)``."""
    changed = dict(state)
    if "cls_token" in state:
        changed["cls_token"] = state["cls_token"][None, None]
    if "pos_embed" in state:
        changed["pos_embed"] = state["pos_embed"][None]
    return changed


CLIP_BLOCK = r"encoder\.layers\.(\d+)\."
"""Beginning of the names of a block of CLIP's vision tower."""

QUICK = (
    "the file does not say whether its activation is QuickGELU, as OpenAI's is: "
    "vit_*_clip_quickgelu_*"
)
"""Remark on CLIP's vision transformers."""

CLIP = Layout(
    name="Hugging Face CLIP",
    marker=r"embeddings\.class_embedding",
    rules=(
        (r"embeddings\.class_embedding", "cls_token"),
        (r"embeddings\.position_embedding\.weight", "pos_embed"),
        (r"embeddings\.patch_embedding\.(\w+)", r"patch_embed.proj.\1"),
        (r"pre_layrnorm\.(\w+)", r"norm_pre.\1"),
        (r"post_layernorm\.(\w+)", r"norm.\1"),
        (CLIP_BLOCK + r"self_attn\.([qkv])_proj\.(\w+)", r"blocks.\1.attn.\2.\3"),
        (CLIP_BLOCK + r"self_attn\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
        (CLIP_BLOCK + r"layer_norm(\d)\.(\w+)", r"blocks.\1.norm\2.\3"),
        (CLIP_BLOCK + r"mlp\.fc(\d)\.(\w+)", r"blocks.\1.mlp.fc\2.\3"),
    ),
    reshape=clip_shapes,
    remark=QUICK,
)
"""The vision tower of CLIP."""

SWIN_BLOCK = r"encoder\.layers\.(\d+)\.blocks\.(\d+)\."
"""Beginning of a Swin block's names."""

SWIN = Layout(
    name="Hugging Face Swin",
    marker=r"encoder\.layers\.0\.blocks\.0\.layernorm_before\.weight",
    rules=(
        (r"embeddings\.patch_embeddings\.projection\.(\w+)", r"patch_embed.proj.\1"),
        (r"embeddings\.norm\.(\w+)", r"patch_embed.norm.\1"),
        (
            SWIN_BLOCK + r"attention\.(?:self\.query|q_proj)\.(\w+)",
            r"layers.\1.blocks.\2.attn.q.\3",
        ),
        (
            SWIN_BLOCK + r"attention\.(?:self\.key|k_proj)\.(\w+)",
            r"layers.\1.blocks.\2.attn.k.\3",
        ),
        (
            SWIN_BLOCK + r"attention\.(?:self\.value|v_proj)\.(\w+)",
            r"layers.\1.blocks.\2.attn.v.\3",
        ),
        (
            SWIN_BLOCK + r"attention\.(?:output\.dense|o_proj)\.(\w+)",
            r"layers.\1.blocks.\2.attn.proj.\3",
        ),
        (
            SWIN_BLOCK + r"attention\.\w+\.(relative_position_\w+)",
            r"layers.\1.blocks.\2.attn.\3",
        ),
        (SWIN_BLOCK + r"layernorm_before\.(\w+)", r"layers.\1.blocks.\2.norm1.\3"),
        (SWIN_BLOCK + r"layernorm_after\.(\w+)", r"layers.\1.blocks.\2.norm2.\3"),
        (
            SWIN_BLOCK + r"(?:intermediate\.dense|mlp\.fc1)\.(\w+)",
            r"layers.\1.blocks.\2.mlp.fc1.\3",
        ),
        (
            SWIN_BLOCK + r"(?:output\.dense|mlp\.fc2)\.(\w+)",
            r"layers.\1.blocks.\2.mlp.fc2.\3",
        ),
        (r"encoder\.layers\.(\d+)\.downsample\.(.+)", shifted("layers.{0}.downsample.{1}")),
        (r"layernorm\.(\w+)", r"norm.\1"),
    ),
)
"""Swin; a stage's patch merging, at its end here, is at the next one's beginning in timm."""

CONVNEXT_BLOCK = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."
"""Beginning of a ConvNeXt block's names."""


def flat_scales(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give layer scales and the response norms of ConvNeXt V2 one axis, the channels'."""
    return {
        key: tensor.flatten() if key.endswith(("grn.weight", "grn.bias", ".gamma")) else tensor
        for key, tensor in state.items()
    }


CONVNEXT = Layout(
    name="Hugging Face ConvNeXt",
    marker=r"embeddings\.patch_embeddings\.weight",
    rules=(
        (r"embeddings\.patch_embeddings\.(\w+)", r"stem.0.\1"),
        (r"embeddings\.layernorm\.(\w+)", r"stem.1.\1"),
        (
            r"encoder\.stages\.(\d+)\.downsampling_layer\.(\d)\.(\w+)",
            r"stages.\1.downsample.\2.\3",
        ),
        (CONVNEXT_BLOCK + r"layer_scale_parameter", r"stages.\1.blocks.\2.gamma"),
        (CONVNEXT_BLOCK + r"dwconv\.(\w+)", r"stages.\1.blocks.\2.conv_dw.\3"),
        (CONVNEXT_BLOCK + r"layernorm\.(\w+)", r"stages.\1.blocks.\2.norm.\3"),
        (CONVNEXT_BLOCK + r"pwconv(\d)\.(\w+)", r"stages.\1.blocks.\2.mlp.fc\3.\4"),
        (CONVNEXT_BLOCK + r"grn\.(\w+)", r"stages.\1.blocks.\2.mlp.grn.\3"),
        (r"layernorm\.(\w+)", r"head.norm.\1"),
    ),
    reshape=flat_scales,
)
"""ConvNeXt and ConvNeXt V2."""

RESNET_BLOCK = r"encoder\.stages\.(\d+)\.layers\.(\d+)\."
"""Beginning of a residual block's names."""


def _resnet_layer(kind: str) -> Callable[[re.Match[str]], str]:
    """Replacement of a block's convolution or norm, whose stages and layers count from 0."""

    def replace(match: re.Match[str]) -> str:
        stage, block, layer, rest = match.groups()
        return f"layer{int(stage) + 1}.{block}.{kind}{int(layer) + 1}.{rest}"

    return replace


RESNET = Layout(
    name="Hugging Face ResNet",
    marker=r"embedder\.embedder\.convolution\.weight",
    rules=(
        (r"embedder\.embedder\.convolution\.(\w+)", r"conv1.\1"),
        (r"embedder\.embedder\.normalization\.(\w+)", r"bn1.\1"),
        (RESNET_BLOCK + r"layer\.(\d)\.convolution\.(\w+)", _resnet_layer("conv")),
        (RESNET_BLOCK + r"layer\.(\d)\.normalization\.(\w+)", _resnet_layer("bn")),
        (
            RESNET_BLOCK + r"shortcut\.convolution\.(\w+)",
            shifted("layer{0}.{1}.downsample.0.{2}"),
        ),
        (
            RESNET_BLOCK + r"shortcut\.normalization\.(\w+)",
            shifted("layer{0}.{1}.downsample.1.{2}"),
        ),
    ),
)
"""ResNet with basic or bottleneck blocks; strides in the 3x3 convolutions, as in timm."""

LAYOUTS = (VIT, CLIP, SWIN, CONVNEXT, RESNET)
"""All layouts of this module."""
