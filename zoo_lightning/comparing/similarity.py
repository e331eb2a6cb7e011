"""How alike the sources of a zoo are, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zoo_lightning.architecture import Architecture


class Similarity(NamedTuple):
    """Of ``m`` sources in one layer.

    Attributes:
        layer: its name.
        cka: ``(m, m)`` in [0, 1], of what the layer computes for the images.
        cosine: ``(m, m)`` in [-1, 1], of the kernels as they are, channel by channel.
    """

    layer: str
    cka: Tensor
    cosine: Tensor


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Linear centred kernel alignment of features, 1 for features that are alike but for rotation.

    Kornblith et al., *Similarity of Neural Network Representations Revisited*, ICML 2019,
    equation 5 with linear kernels. It does not depend on the order, rotation or scale of channels.

    Args:
        first: ``(n, p)``, features of ``n`` samples.
        second: ``(n, q)``, of the same samples.

    Returns:
        In [0, 1]; 0 where features do not vary.
    """
    x, y = (each.double() - each.double().mean(dim=0) for each in (first, second))
    # Products of samples or of features, whichever are fewer: both give the same norms.
    if len(x) < max(x.shape[1], y.shape[1]):
        x, y = x @ x.T, y @ y.T
        joint, ours, theirs = (x * y).sum(), x.norm(), y.norm()
    else:
        joint = (y.T @ x).square().sum()
        ours, theirs = (x.T @ x).norm(), (y.T @ y).norm()
    scale = float(ours * theirs)
    return float(joint) / scale if scale > 0 else 0.0


@torch.inference_mode()
def similarities(
    architecture: Architecture,
    states: Sequence[Mapping[str, Tensor]],
    images: Iterable[Tensor],
) -> list[Similarity]:
    """Compare sources in every convolution and linear layer.

    Args:
        architecture: of all sources.
        states: of the sources, ``m`` of them.
        images: batches ``(B, C, H, W)``, normalised; a layer's output is averaged over its map.

    Returns:
        One a layer, in the order in which the layers run.
    """
    batches = list(images)
    networks = [architecture.plain(state).eval() for state in states]
    features = [_features(network, architecture, batches) for network in networks]
    found = []
    for name in features[0]:
        outputs = [each[name] for each in features]
        kernels = [state[f"{name}.weight"] for state in states]
        found.append(Similarity(name, _pairwise(linear_cka, outputs), _pairwise(_cosine, kernels)))
    return found


def _pairwise(compare: Callable[[Tensor, Tensor], float], each: Sequence[Tensor]) -> Tensor:
    return torch.tensor([[compare(first, second) for second in each] for first in each])


def _features(
    network: nn.Module, architecture: Architecture, batches: Sequence[Tensor]
) -> dict[str, Tensor]:
    """``(n, channels)`` of every layer by name, maps averaged."""
    kept: dict[str, list[Tensor]] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            hooks.append(
                module.register_forward_hook(
                    lambda module, inputs, y, name=name: kept.setdefault(name, []).append(
                        y.mean(dim=(2, 3)) if y.dim() == 4 else y.flatten(1)
                    )
                )
            )
    for batch in batches:
        architecture.features(network, batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0))
