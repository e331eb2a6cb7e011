"""Layouts of torchvision's models whose names differ from timm's: ViT, Swin, Swin V2, ConvNeXt."""

from __future__ import annotations

import re

from torch import Tensor

from zoo_lightning.sources.layouts.huggingface import flat_scales
from zoo_lightning.sources.layouts.layout import Layout

VIT_BLOCK = r"encoder\.layers\.encoder_layer_(\d+)\."
"""Beginning of a transformer block's names."""

VIT = Layout(
    name="torchvision ViT",
    marker=r"encoder\.layers\.encoder_layer_0\.ln_1\.weight",
    rules=(
        (r"class_token", "cls_token"),
        (r"conv_proj\.(\w+)", r"patch_embed.proj.\1"),
        (r"encoder\.pos_embedding", "pos_embed"),
        (VIT_BLOCK + r"self_attention\.in_proj_(\w+)", r"blocks.\1.attn.qkv.\2"),
        (VIT_BLOCK + r"self_attention\.out_proj\.(\w+)", r"blocks.\1.attn.proj.\2"),
        (VIT_BLOCK + r"ln_(\d)\.(\w+)", r"blocks.\1.norm\2.\3"),
        (VIT_BLOCK + r"mlp\.(?:0|linear_1)\.(\w+)", r"blocks.\1.mlp.fc1.\2"),
        (VIT_BLOCK + r"mlp\.(?:3|linear_2)\.(\w+)", r"blocks.\1.mlp.fc2.\2"),
        (r"encoder\.ln\.(\w+)", r"norm.\1"),
    ),
)


def _in_stages(block: str, between: str) -> tuple:
    """Replacements of numbered stages, odd ones of blocks and even ones between them.

    Args:
        block: template for a layer of a stage's block: number of the stage, of the block, rest.
        between: template for a layer between stages: number of the next stage, rest.
    """

    def in_block(match: re.Match[str]) -> str:
        place, *others = match.groups()
        return block.format(int(place) // 2, *others)

    def in_between(match: re.Match[str]) -> str:
        place, *others = match.groups()
        return between.format(int(place) // 2, *others)

    return in_block, in_between


SWIN_BLOCK, SWIN_BETWEEN = _in_stages("layers.{0}.blocks.{1}.{2}", "layers.{0}.downsample.{1}")
SWIN_FIRST, _ = _in_stages("layers.{0}.blocks.{1}.mlp.fc1.{2}", "")
SWIN_SECOND, _ = _in_stages("layers.{0}.blocks.{1}.mlp.fc2.{2}", "")


def _split_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Split the joint bias of Swin V2, whose part for the keys is never used, into timm's two."""
    if not any(key.endswith("attn.logit_scale") for key in state):
        return state
    split: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if key.endswith("attn.qkv.bias"):
            queries, _, values = tensor.chunk(3)
            split[key.replace("qkv.bias", "q_bias")] = queries
            split[key.replace("qkv.bias", "v_bias")] = values
        else:
            split[key] = tensor
    return split


SWIN = Layout(
    name="torchvision Swin",
    marker=r"features\.1\.0\.attn\.qkv\.weight",
    rules=(
        (r"features\.0\.0\.(\w+)", r"patch_embed.proj.\1"),
        (r"features\.0\.2\.(\w+)", r"patch_embed.norm.\1"),
        (r"features\.([1357])\.(\d+)\.mlp\.0\.(\w+)", SWIN_FIRST),
        (r"features\.([1357])\.(\d+)\.mlp\.3\.(\w+)", SWIN_SECOND),
        (r"features\.([1357])\.(\d+)\.(.+)", SWIN_BLOCK),
        (r"features\.([246])\.(.+)", SWIN_BETWEEN),
    ),
    reshape=_split_biases,
)
"""Swin and Swin V2."""

CONVNEXT_PARTS = {
    "layer_scale": "gamma",
    "block.0": "conv_dw",
    "block.2": "norm",
    "block.3": "mlp.fc1",
    "block.5": "mlp.fc2",
}
"""Layers of a ConvNeXt block."""


def _convnext_block(match: re.Match[str]) -> str:
    place, block, part, rest = match.groups()
    return f"stages.{int(place) // 2}.blocks.{block}.{CONVNEXT_PARTS[part]}{rest}"


_, CONVNEXT_BETWEEN = _in_stages("", "stages.{0}.downsample.{1}")

CONVNEXT = Layout(
    name="torchvision ConvNeXt",
    marker=r"features\.1\.0\.layer_scale",
    rules=(
        (r"features\.0\.(\d)\.(\w+)", r"stem.\1.\2"),
        (r"features\.([1357])\.(\d+)\.(layer_scale|block\.[0235])(.*)", _convnext_block),
        (r"features\.([246])\.(.+)", CONVNEXT_BETWEEN),
        (r"classifier\.0\.(\w+)", r"head.norm.\1"),
    ),
    reshape=flat_scales,
)

LAYOUTS = (VIT, SWIN, CONVNEXT)
"""All layouts of this module."""
