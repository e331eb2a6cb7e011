"""Search for layers whose scale does not matter because a norm layer normalises their output.

Between layer and norm, elements may be moved, pooled or concatenated with those of other layers;
nothing may be added to them. Other uses of the output, such as a shortcut, are not checked.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from zoo_lightning.rebasin.rules import MOVES, SPATIAL, base_name

KEEPS = MOVES | {
    "alias", "clone", "constant_pad_nd", "contiguous", "detach", "dropout", "mean", "reshape_alias",
    "to_copy",
}  # fmt: skip
"""Operations whose result scales with their operand, by names without a leading ``_``."""


class Origin(NamedTuple):
    """Layers that a tensor comes from.

    Attributes:
        layers: names of the layers whose output the tensor is, several if it is concatenated.
        mixed: whether it holds anything else.
    """

    layers: frozenset[str]
    mixed: bool


NOTHING = Origin(frozenset(), False)


def is_norm(module: nn.Module) -> bool:
    """Whether a module is a norm layer of torch or timm."""
    return any("Norm" in cls.__name__ for cls in type(module).__mro__)


def is_per_channel(norm: nn.Module) -> bool:
    """Whether a norm layer normalises each channel by itself, as batch and instance norms do."""
    kinds = ("BatchNorm", "InstanceNorm")
    return any(kind in cls.__name__ for cls in type(norm).__mro__ for kind in kinds)


class NormSearch(TorchDispatchMode):
    """Dispatch mode that follows layers' outputs through a forward pass to norm layers.

    Attributes:
        before_norm: names of the layers whose output a norm layer normalises.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_norm: set[str] = set()
        self._origins: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def begin(self, name: str, output: Any) -> None:
        """Record that a tensor is the output of the layer ``name``."""
        if isinstance(output, Tensor):
            self._origins[output] = Origin(frozenset([name]), False)

    def meet(self, norm: nn.Module, taken: Any) -> None:
        """Record that a tensor is the input of a norm layer."""
        origin = self._origins.get(taken, NOTHING) if isinstance(taken, Tensor) else NOTHING
        if not origin.mixed or is_per_channel(norm):
            self.before_norm |= origin.layers

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and record which layers its results come from."""
        name = base_name(func).removeprefix("_")
        operands = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        origins = [self._origins.get(tensor, NOTHING) for tensor in operands]
        result = func(*args, **(kwargs or {}))
        if name in ("cat", "concat", "stack"):
            layers = frozenset().union(*(origin.layers for origin in origins))
            alike = len(set(origins)) == 1
            origin = Origin(layers, origins[0].mixed if alike else True)
        elif name in KEEPS or name.startswith(SPATIAL):
            origin = origins[0] if origins else NOTHING
        else:
            origin = NOTHING
        for output in tree_leaves(result):
            if isinstance(output, Tensor):
                self._origins[output] = origin
        return result
