"""The policy's networks: the Nature CNN as an architecture, and the heads on its features."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from zoo_lightning.layers.products import autocast_off


class NatureCNN(nn.Module):
    """Three convolutions and a hidden layer (Mnih et al., *Human-level control*, 2015, methods).

    Weights start orthogonal with gain √2, biases at zero.

    Args:
        in_chans: stacked frames.
        num_features: width of the hidden layer.
    """

    input_size = (4, 84, 84)
    """Of an observation, ``(C, H, W)``."""

    def __init__(self, in_chans: int = 4, num_features: int = 512) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, 32, 8, stride=4)
        self.conv2 = nn.Conv2d(32, 64, 4, stride=2)
        self.conv3 = nn.Conv2d(64, 64, 3, stride=1)
        self.hidden = nn.Linear(64 * 7 * 7, num_features)
        # Tells an aggregated layer that its input is a map of 64 channels, whose average its gate
        # sees, and not 3,136 channels.
        self.hidden.positions = 7 * 7
        for layer in (self.conv1, self.conv2, self.conv3, self.hidden):
            orthogonal(layer, math.sqrt(2))

    def forward(self, x: Tensor) -> Tensor:
        """Features ``(B, F)`` of observations ``(B, 4, 84, 84)``: bytes, or floats in [0, 1]."""
        if not x.is_floating_point():
            x = x.to(torch.float32).mul_(1 / 255)
        # In place: a convolution's gradients need its input only.
        x = self.conv1(x).relu_()
        x = self.conv2(x).relu_()
        x = self.conv3(x).relu_()
        return self.hidden(x.flatten(1)).relu_()


def nature_cnn() -> NatureCNN:
    """The Nature CNN for four stacked frames: what ``architecture: nature_cnn`` means."""
    return NatureCNN()


class PolicyValueHead(nn.Module):
    """Logits of the actions and the value of the state.

    The policy starts almost uniform (gain 0.01), so that its first updates are not at the mercy of
    chance; the value's gain is 1.

    Args:
        num_features: ``F`` of the backbone.
        num_actions: ``A``.
    """

    def __init__(self, num_features: int, num_actions: int) -> None:
        super().__init__()
        self.policy = orthogonal(nn.Linear(num_features, num_actions), 0.01)
        self.value = orthogonal(nn.Linear(num_features, 1), 1.0)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, A)`` and ``(B,)`` in float32, of features ``(B, F)``.

        Also under autocast: in bfloat16 a return of 100 would be known to half a point, and
        neighbouring logits would round to the same probability.
        """
        with autocast_off(features.device):
            features = features.float()
            return self.policy(features), self.value(features).squeeze(-1)


def orthogonal(layer: nn.Module, gain: float) -> nn.Module:
    """Orthogonal weights of a gain, and no bias, in a layer; returns it."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer
