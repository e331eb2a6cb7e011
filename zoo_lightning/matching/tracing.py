"""See every tensor operation of a forward pass and have its rule label the results.

Whoever calls an operation, torch shows it to a :class:`ChannelTracer`. Operations that have no rule
and are made of others are taken apart by torch; what remains without a rule is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from zoo_lightning.matching.labels import Labels, Unmatchable
from zoo_lightning.matching.rules import REASONS, Call, Convolution, base_name, find_rule


@dataclass
class Norm:
    """A batch norm that takes a convolution's or linear layer's output, and nothing else.

    Attributes:
        keys: of ``weight``, ``bias``, ``running_mean`` and ``running_var``, those that there are.
        bias: key of the layer's own bias, empty if it has none.
        eps: added to the variance.
    """

    keys: dict[str, str]
    bias: str
    eps: float


@dataclass
class Found:
    """What a forward pass shows besides labels.

    Attributes:
        touched: keys of the parameters and buffers that some operation took.
        grouped: grouped convolutions by their kernel's key.
        norms: batch norms by the key of the kernel before them.
    """

    touched: set[str] = field(default_factory=set)
    grouped: dict[str, Convolution] = field(default_factory=dict)
    norms: dict[str, Norm] = field(default_factory=dict)


class ChannelTracer(TorchDispatchMode):
    """Follow channels through all operations of a forward pass. Use in inference mode.

    Args:
        labels: in which parameters have begun already.
        keys: each parameter's and buffer's key in the state dict.
    """

    def __init__(self, labels: Labels, keys: Mapping[Tensor, str]) -> None:
        super().__init__()
        self.labels, self.keys, self.found = labels, keys, Found()
        self._layers: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and label its results."""
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        self.found.touched |= {self.keys[tensor] for tensor in tensors if tensor in self.keys}
        name = base_name(func)
        rule = find_rule(name, torch.Tag.pointwise in func.tags)
        labelled = any(self.labels.of(tensor).factors for tensor in tensors)
        if rule is None and labelled:
            return self._take_apart(name, func, args, kwargs)
        constant = all(self.labels.is_constant(tensor) for tensor in tensors)
        call = Call(self, func, args, kwargs)
        result = call.result = func(*args, **kwargs)
        outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        try:
            factors = rule(call) if rule is not None and labelled else []
        except Unmatchable as error:
            raise Unmatchable(f"{name}, which {error}") from None
        if len(factors) != len(outputs):
            factors = [factors[0] if factors else [] for _ in outputs]
        for output, own in zip(outputs, factors, strict=True):
            self._layers.pop(output, None)
            self.labels.set(output, own, constant)
        if name in ("conv1d", "conv2d", "conv3d", "linear"):
            self._layers[result] = (call.key("weight"), call.key("bias"))
        return result

    def _take_apart(self, name: str, func: Any, args: tuple, kwargs: dict) -> Any:
        """Run the operations that an operation without a rule is made of."""
        result = NotImplemented
        if name not in REASONS:
            with self:
                result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            reason = REASONS.get(name, "is not among those that can be followed")
            raise Unmatchable(f"{name}, which {reason}")
        return result

    def note_norm(self, call: Call, eps: float) -> None:
        """Note that a batch norm takes a layer's output, if it does."""
        weight, bias = self._layers.get(call.tensor("input"), ("", ""))
        keys = {name: call.key(name) for name in ("weight", "bias", "running_mean", "running_var")}
        if weight and keys["running_mean"] and keys["running_var"]:
            self.found.norms[weight] = Norm({k: v for k, v in keys.items() if v}, bias, eps)
