"""Match the channels of sources to those of a reference, without changing what a source computes.

Two networks of one architecture that were trained apart may compute the same features in different
channels; kernels at the same index have then nothing to do with each other. Matching permutes the
channels of one so that they agree with the other's, by :mod:`weights
<zoo_lightning.matching.weights>` or by :mod:`activations
<zoo_lightning.matching.activations>`.

Networks that started from the same initial weights are in each other's order already, as a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from torch import Tensor
from torch.nn.functional import cosine_similarity

from zoo_lightning.architecture import Architecture
from zoo_lightning.errors import ConfigError
from zoo_lightning.matching.activations import match_activations
from zoo_lightning.matching.channels import ChannelGraph, channel_groups, permute, verify
from zoo_lightning.matching.weights import match_weights
from zoo_lightning.sources.adapting import Adapted

How = Literal["weights", "activations"]

WAYS = ("weights", "activations")
"""Of matching."""


def agreement(reference: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean cosine of corresponding kernels of two networks, by key; 1 if they are the same.

    A kernel is all that makes one output channel. Its cosine does not depend on its scale, which
    a batch norm makes arbitrary.
    """
    result = {}
    for key, own in reference.items():
        if own.dim() >= 2 and own.is_floating_point():
            cosines = cosine_similarity(own.double().flatten(1), state[key].double().flatten(1))
            result[key] = float(cosines.mean())
    return result


def match_sources(
    architecture: Architecture,
    sources: Sequence[Adapted],
    how: How = "weights",
    images: Tensor | None = None,
    reference: int = 0,
    seed: int = 0,
    graph: ChannelGraph | None = None,
) -> list[Adapted]:
    """Permute the channels of sources so that they agree with one of them.

    Args:
        architecture: of the sources.
        sources: fitted to it.
        how: by ``weights`` or by ``activations`` on images.
        images: ``(N, C, H, W)``, normalised; for ``activations``.
        reference: index of the source to agree with, which stays as it is.
        seed: of the order in which groups are taken, for ``weights``.
        graph: of the architecture, if it has been found already.

    Returns:
        The sources in their order, each computing what it did, but for the order of its features.

    Raises:
        ArchitectureError: the architecture's channels cannot be followed.
        ConfigError: no such way of matching, no images for it, or SciPy is not installed.
    """
    if how not in WAYS:
        raise ConfigError(f"unknown way of matching {how!r}; expected weights or activations")
    if how == "activations" and images is None:
        raise ConfigError("matching by activations needs images; give some, or match by weights")
    graph = graph or channel_groups(architecture)
    wanted = sources[reference].state
    result = []
    for index, each in enumerate(sources):
        if index == reference:
            result.append(each)
            continue
        if how == "weights":
            permutation = match_weights(graph, wanted, each.state, seed)
        else:
            permutation = match_activations(graph, architecture, wanted, each.state, images)
        verify(graph, architecture, each.state, permutation)
        result.append(replace(each, state=permute(graph, each.state, permutation)))
    return result
