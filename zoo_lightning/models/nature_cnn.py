"""Networks of a policy: the Nature CNN as an architecture, and the head on its features."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from zoo_lightning.nn.fast.products import autocast_off


class NatureCNN(nn.Module):
    """Three convolutions and a hidden layer (Mnih et al., *Human-level control*, 2015, methods).

    Weights are initialised orthogonally with gain √2, biases with zero.

    Args:
        in_chans: number of stacked frames.
        num_features: width of the hidden layer.
    """

    input_size = (4, 84, 84)
    """Size ``(C, H, W)`` of an observation."""

    def __init__(self, in_chans: int = 4, num_features: int = 512) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, 32, 8, stride=4)
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2)
        self.conv3 = nn.Conv2d(64, 64, 3, stride=1)
        self.hidden = nn.Linear(64 * 7 * 7, num_features)
        # For ZooLinear: the input is a map of 64 channels, whose average its gate sees, and not
        # 3,136 channels.
        self.hidden.positions = 7 * 7  # type: ignore[assignment]  # annotated for tensors only
        for convolution in (self.conv1, self.conv2, self.conv3):
            orthogonal(convolution, math.sqrt(2))
        orthogonal(self.hidden, math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map observations ``(B, in_chans, 84, 84)``, uint8 or floats in [0, 1], to ``(B, F)``."""
        if not x.is_floating_point():
            x = x.to(torch.float32).mul_(1 / 255)
        # In place: a convolution's gradients need its input only.
        x = self.conv1(x).relu_()
        x = self.conv2(x).relu_()
        x = self.conv3(x).relu_()
        return self.hidden(x.flatten(1)).relu_()


def nature_cnn() -> NatureCNN:
    """Build the Nature CNN for four stacked frames, the architecture ``nature_cnn``."""
    return NatureCNN()


class PolicyValueHead(nn.Module):
    """Head for the logits of the actions and the value of the state.

    The initial policy is almost uniform (gain 0.01), so that the first updates depend little on
    chance; the value's gain is 1.

    Args:
        num_features: number of features ``F`` of the backbone.
        num_actions: number of actions ``A``.
    """

    def __init__(self, num_features: int, num_actions: int) -> None:
        super().__init__()
        self.policy = orthogonal(nn.Linear(num_features, num_actions), 0.01)
        self.value = orthogonal(nn.Linear(num_features, 1), 1.0)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Map features ``(B, F)`` to logits ``(B, A)`` and values ``(B,)`` in float32.

        Autocast is ignored: bfloat16 would round a value of 100 to half a point, and close logits
        to the same probability.
        """
        with autocast_off(features.device):
            features = features.float()
            return self.policy(features), self.value(features).squeeze(-1)


Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def orthogonal(layer: Layer, gain: float) -> Layer:
    """Initialise a layer with orthogonal weights times ``gain`` and zero bias, and return it."""
    nn.init.orthogonal_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
