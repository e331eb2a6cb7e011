"""Checks that a network can be aggregated: ordinary layers only, each under one name.

Without these checks, other networks would silently give wrong results.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from timm.layers import Conv2dSame
from torch import nn

from zoo_lightning.errors import ArchitectureError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

AGGREGABLE = (nn.Conv2d, Conv2dSame, nn.Linear)
"""Classes of the layers that are aggregated; a subclass may compute something else."""

EXPECTED = "expected nn.Conv2d, timm's Conv2dSame or nn.Linear: choose an architecture without it"


def check_network(network: nn.Module) -> None:
    """Check that the layers of a network can be aggregated exactly.

    Raises:
        ArchitectureError: a layer has an unsupported class, computes its weights, has two names, or
            shares its weight with another layer.
    """
    for name, module in network.named_modules():
        check_layer(name, module)
    check_names(network)


def check_layer(name: str, module: nn.Module) -> None:
    """Check that a layer's weights can be mixed as kernels.

    Raises:
        ArchitectureError: the layer has an unsupported class, or computes its weights as by
            ``weight_norm``.
    """
    kinds = (nn.modules.conv._ConvNd, nn.Linear)
    odd = isinstance(module, kinds) and type(module) not in AGGREGABLE
    if odd or type(module).__name__ in ("CondConv2d", "MultiheadAttention"):
        raise ArchitectureError(
            f"layer {name!r} is a {type(module).__module__}.{type(module).__qualname__}, which "
            f"cannot be aggregated; {EXPECTED}"
        )
    if type(module) not in AGGREGABLE:
        return
    for own in ("weight", "bias"):
        if own not in module._parameters:  # such as weight_norm, which computes it before each pass
            raise ArchitectureError(
                f"layer {name!r} is a {type(module).__name__} whose {own} is computed from other "
                f"parameters ({', '.join(module._parameters)}), as by weight_norm, spectral_norm "
                f"or pruning, which cannot be aggregated; {EXPECTED}"
            )


def check_names(network: nn.Module) -> None:
    """Check that no layer to be aggregated, and none of its weights, has two names.

    A layer with two names would be replaced under one of them only.

    Raises:
        ArchitectureError: a layer or a weight has two names.
    """
    # Each module's own children: of a block that is there twice, the layers are replaced in both.
    twice = _under_two_names(
        (f"{name}.{own}".lstrip("."), child)
        for name, module in network.named_modules()
        for own, child in module._modules.items()
        if type(child) in AGGREGABLE
    )
    if twice is not None:
        raise ArchitectureError(
            f"layer {twice[0]!r} is {twice[1]!r} as well: a layer under two names cannot be "
            "aggregated; register it once in the architecture, under the name of its weights in "
            "the sources"
        )
    parameters = [
        (f"{name}.{own}".lstrip("."), parameter, type(module) in AGGREGABLE)
        for name, module in network.named_modules()
        for own, parameter in module._parameters.items()
        if parameter is not None
    ]
    mixed = {parameter for _, parameter, aggregated in parameters if aggregated}
    twice = _under_two_names((name, p) for name, p, _ in parameters if p in mixed)
    if twice is not None:
        raise ArchitectureError(
            f"{twice[0]!r} is {twice[1]!r} as well: a weight that layers share cannot be "
            "aggregated, since each layer mixes its own; choose an architecture whose layers have "
            "weights of their own"
        )


def _under_two_names(named: Iterable[tuple[str, Hashable]]) -> tuple[str, str] | None:
    """First two names of the first object that has several; ``None`` if none has."""
    names: dict[Hashable, list[str]] = defaultdict(list)
    for name, thing in named:
        names[thing].append(name)
    return next(((found[0], found[1]) for found in names.values() if len(found) > 1), None)
