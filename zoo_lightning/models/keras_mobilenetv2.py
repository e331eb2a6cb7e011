"""MobileNetV2 as Keras computes it: TensorFlow's padding, and 0.001 added to variances.

timm's ``mobilenetv2_*`` pads evenly on both sides and adds 0.00001, so that Keras' weights compute
something else in it. Everything else is timm's network, with the same tensors.
"""

from __future__ import annotations

import timm
from torch import nn


def keras_mobilenetv2_100() -> nn.Module:
    """Build MobileNetV2 of width 1.0 without a head: images ``(B, 3, H, W)`` to ``(B, 1280)``."""
    return _build("mobilenetv2_100")


def keras_mobilenetv2_035() -> nn.Module:
    """Build MobileNetV2 of width 0.35 without a head: images ``(B, 3, H, W)`` to ``(B, 1280)``."""
    return _build("mobilenetv2_035")


def keras_mobilenetv2_050() -> nn.Module:
    """Build MobileNetV2 of width 0.5 without a head: images ``(B, 3, H, W)`` to ``(B, 1280)``."""
    return _build("mobilenetv2_050")


def keras_mobilenetv2_075() -> nn.Module:
    """Build MobileNetV2 of width 0.75 without a head: images ``(B, 3, H, W)`` to ``(B, 1280)``."""
    return _build("mobilenetv2_075")


def keras_mobilenetv2_140() -> nn.Module:
    """Build MobileNetV2 of width 1.4 without a head: images ``(B, 3, H, W)`` to ``(B, 1792)``."""
    return _build("mobilenetv2_140")


def _build(name: str) -> nn.Module:
    return timm.create_model(name, num_classes=0, pad_type="same", bn_eps=1e-3)
