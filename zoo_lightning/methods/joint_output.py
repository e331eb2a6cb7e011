"""Mean output of several networks, in pure torch, so that it can be exported."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo_lightning.errors import ConfigError

OfProbabilities: TypeAlias = bool | Literal["independent"]
"""Whether probabilities are averaged instead of outputs: the softmax, or with ``independent`` the
sigmoid of each output."""


class Averageable(Protocol):
    """Protocol of trained models whose outputs can be averaged."""

    def averages_probabilities(self) -> OfProbabilities:
        """Whether probabilities are averaged instead of outputs, and which."""
        ...

    def describe_outputs(self) -> str:
        """Describe the properties of the output that must agree in an average."""
        ...


class JointOutput(nn.Module):
    """Mean output of several networks (Dietterich, *Ensemble Methods in Machine Learning*, 2000).

    Args:
        members: networks that map images to ``(B, ...)``, all of one shape.
        of_probabilities: whether to average probabilities instead of outputs: the softmax over the
            last dimension, or over the last two of heat maps ``(B, K, h, w)``; ``independent`` for
            the sigmoid of each output.
        of_cells: whether outputs are scores of classes in cells ``(B, C, h, w)``, whose
            probabilities are the softmax over the classes.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        of_probabilities: OfProbabilities,
        of_cells: bool = False,
    ) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.of_probabilities = of_probabilities
        self.of_cells = of_cells

    def forward(self, images: Tensor) -> Tensor:
        """Compute the joint output ``(B, ...)``, with the meaning of a member's output."""
        outputs = torch.stack([member(images).float() for member in self.members])
        if not self.of_probabilities:
            return outputs.mean(dim=0)
        if self.of_probabilities == "independent":
            # Logits of the mean probability; the numbers of members cancel.
            return F.logsigmoid(outputs).logsumexp(dim=0) - F.logsigmoid(-outputs).logsumexp(dim=0)
        # Scores whose softmax is the mean of the members' probabilities.
        if self.of_cells:
            return outputs.log_softmax(dim=2).logsumexp(dim=0) - math.log(len(outputs))
        maps = outputs.flatten(3) if outputs.dim() == 5 else outputs
        joint = maps.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(outputs))
        return joint.view_as(outputs[0])


class MeanPoints(nn.Module):
    """Mean points of landmark networks with heads of any kind.

    Args:
        runs: for each run its networks, which map images to a head's output; runs have equal
            weights, and so have the networks of one.
        heads: heads with a method ``points`` that decodes an output, for the networks of all runs
            in order.
    """

    def __init__(self, runs: Sequence[Sequence[nn.Module]], heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.runs = nn.ModuleList(nn.ModuleList(run) for run in runs)
        self.heads = nn.ModuleList(heads)

    def forward(self, images: Tensor) -> Tensor:
        """Compute points ``(B, K, 2)``, fractions of the image, from images ``(B, C, H, W)``."""
        heads = iter(self.heads)
        means = []
        for run in self.runs:
            assert isinstance(run, nn.ModuleList)
            points = [next(heads).points(network(images).float()) for network in run]  # type: ignore[operator]
            means.append(torch.stack(points).mean(dim=0))
        return torch.stack(means).mean(dim=0)


def check_alike(models: Sequence[Averageable]) -> None:
    """Check that models can be averaged.

    Raises:
        ConfigError: there are no models, they differ in kind, classes, points or decoding, or
            models of this kind cannot be averaged.
    """
    if not models:
        raise ConfigError("an average needs at least one trained model, got none")
    described = [model.describe_outputs() for model in models]
    if len(set(described)) > 1:
        kinds = "; ".join(dict.fromkeys(described))
        raise ConfigError(f"models to average must be alike, got {kinds}")
    models[0].averages_probabilities()
