"""Layouts of ``keras.applications``: MobileNetV2 and EfficientNet.

:mod:`zoo_lightning.sources.keras_files` reads the files.
"""

from __future__ import annotations

import re

from zoo_lightning.sources.layouts.layout import Layout

REMARK = (
    "Keras pads as TensorFlow does and adds 0.001 to variances: keras_mobilenetv2_* and "
    "tf_efficientnet_b* compute that, timm's other networks nearly"
)
"""Remark on the architectures."""

STAGES = (1, 2, 3, 4, 3, 3, 1)
"""Number of blocks in each stage of MobileNetV2."""

LAYERS = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
}
"""Convolution and norm of each layer of a block."""

FIRST_LAYERS = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
"""The same for a block that does not expand."""

EFFICIENT_LAYERS = {
    "expand_conv": "conv_pw",
    "expand_bn": "bn1",
    "dwconv": "conv_dw",
    "bn": "bn2",
    "se_reduce": "se.conv_reduce",
    "se_expand": "se.conv_expand",
    "project_conv": "conv_pwl",
    "project_bn": "bn3",
}
"""Layers of EfficientNet's blocks."""

EFFICIENT_FIRST = EFFICIENT_LAYERS | {"bn": "bn1", "project_conv": "conv_pw", "project_bn": "bn2"}
"""The same for blocks that do not expand."""


def _mobilenet_block(match: re.Match[str]) -> str:
    """Name of a layer of a block, which are numbered through all stages."""
    number, layer, norm, leaf = match.groups()
    place, stage = int(number), 0
    while stage < len(STAGES) - 1 and place >= STAGES[stage]:
        place -= STAGES[stage]
        stage += 1
    return f"blocks.{stage}.{place}.{LAYERS[layer][bool(norm)]}.{leaf}"


def _mobilenet_first(match: re.Match[str]) -> str:
    layer, norm, leaf = match.groups()
    return f"blocks.0.0.{FIRST_LAYERS[layer][bool(norm)]}.{leaf}"


def _efficientnet_block(match: re.Match[str]) -> str:
    """Name of a layer of a block, whose stages are numbers and places letters."""
    stage, letter, layer, leaf = match.groups()
    layers = EFFICIENT_FIRST if stage == "1" else EFFICIENT_LAYERS
    return f"blocks.{int(stage) - 1}.{ord(letter) - ord('a')}.{layers[layer]}.{leaf}"


MOBILENET = Layout(
    name="Keras MobileNetV2",
    marker=r"expanded_conv_depthwise\.weight",
    rules=(
        (r"Conv1\.(\w+)", r"conv_stem.\1"),
        (r"bn_Conv1\.(\w+)", r"bn1.\1"),
        (r"expanded_conv_(depthwise|project)(_BN)?\.(\w+)", _mobilenet_first),
        (r"block_(\d+)_(expand|depthwise|project)(_BN)?\.(\w+)", _mobilenet_block),
        (r"Conv_1\.(\w+)", r"conv_head.\1"),
        (r"Conv_1_bn\.(\w+)", r"bn2.\1"),
    ),
    remark=REMARK,
)

EFFICIENTNET = Layout(
    name="Keras EfficientNet",
    marker=r"block1a_dwconv\.weight",
    rules=(
        (r"stem_conv\.(\w+)", r"conv_stem.\1"),
        (r"stem_bn\.(\w+)", r"bn1.\1"),
        (rf"block(\d)([a-z])_({'|'.join(EFFICIENT_LAYERS)})\.(\w+)", _efficientnet_block),
        (r"top_conv\.(\w+)", r"conv_head.\1"),
        (r"top_bn\.(\w+)", r"bn2.\1"),
    ),
    remark=REMARK,
)

LAYOUTS = (MOBILENET, EFFICIENTNET)
"""All layouts of this module."""
