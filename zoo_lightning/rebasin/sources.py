"""Matching of sources: permutation of their channels to agree with a reference source's.

Two networks of one architecture that were trained independently may compute the same features in
different channels; kernels at the same index are then unrelated. Matching permutes the channels of
one network to agree with the other's and leaves its function unchanged, by weights
(:mod:`zoo_lightning.rebasin.weights`) or by activations (:mod:`zoo_lightning.rebasin.activations`).

Networks that were trained from the same initial weights usually have the same order already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from torch import Tensor
from torch.nn.functional import cosine_similarity

from zoo_lightning.errors import ConfigError
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.rebasin.activations import match_activations
from zoo_lightning.rebasin.channels import ChannelGraph, channel_groups, permute, verify
from zoo_lightning.rebasin.weights import match_weights
from zoo_lightning.sources.adapting import Adapted

How = Literal["weights", "activations"]

MATCHINGS: tuple[How, ...] = get_args(How)
"""Values of the option ``how``: quantities by which channels can be compared."""


def kernel_cosines(
    reference: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, float]:
    """Mean cosine of corresponding kernels of two networks, by key; 1 if they are the same.

    A kernel is the slice of a weight that computes one output channel. Its cosine does not depend
    on its scale, which a batch norm makes arbitrary.
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
    """Permute the channels of sources to agree with those of one of them.

    Args:
        architecture: architecture of the sources.
        sources: sources whose weights are fitted to the architecture.
        how: quantity by which channels are compared: ``weights``, or ``activations`` on images.
        images: normalised images ``(N, C, H, W)``; needed for ``activations``.
        reference: index of the source to agree with, which is not changed.
        seed: seed of the order in which groups are assigned, for ``weights``.
        graph: channel graph of the architecture; ``None`` finds it.

    Returns:
        The sources in their order; each computes the same up to the order of its features.

    Raises:
        ArchitectureError: the architecture's channels cannot be followed, or a permuted source
            computes something else.
        ConfigError: ``how`` is unknown, images are missing, or SciPy is not installed.
    """
    if how not in MATCHINGS:
        raise ConfigError(f"how must be one of {', '.join(MATCHINGS)}, got {how!r}")
    if how == "activations" and images is None:
        raise ConfigError("matching by activations needs images; give some, or match by weights")
    graph = graph or channel_groups(architecture)
    wanted = sources[reference].state
    result = []
    for index, each in enumerate(sources):
        if index == reference:
            result.append(each)
            continue
        if images is not None and how == "activations":
            permutation = match_activations(graph, architecture, wanted, each.state, images)
        else:
            permutation = match_weights(graph, wanted, each.state, seed)
        verify(graph, architecture, each.state, permutation)
        result.append(replace(each, state=permute(graph, each.state, permutation)))
    return result
