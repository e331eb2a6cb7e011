"""Tracing of a forward pass: each operation's rule labels the channels of its results.

Operations that have no rule and are composed of others are decomposed by torch; operations that
remain without a rule are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from zoo_lightning.rebasin.labels import Labels, Unmatchable
from zoo_lightning.rebasin.rules import Call, ChannelTrace, base_name, find_rule, is_head_product


class ChannelTracer(TorchDispatchMode):
    """Dispatch mode that follows channels through a forward pass in inference mode.

    Args:
        labels: labels in which the parameters have atoms already.
        keys: state-dict key of each parameter and buffer.

    Attributes:
        trace: record of the forward pass so far.
    """

    def __init__(self, labels: Labels, keys: Mapping[Tensor, str]) -> None:
        super().__init__()
        self.trace = ChannelTrace(labels, keys)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        """Run an operation and label its results."""
        kwargs, labels, keys = kwargs or {}, self.trace.labels, self.trace.keys
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        self.trace.touched |= {keys[tensor] for tensor in tensors if tensor in keys}
        name = base_name(func)
        rule = find_rule(name, torch.Tag.pointwise in func.tags)
        if name == "matmul" and not is_head_product(tensors, labels):
            rule = None  # other products are followed as those that they are composed of
        labelled = any(labels.of(tensor).factors for tensor in tensors)
        if rule is None and labelled:
            return self._take_apart(name, func, args, kwargs)
        constant = all(labels.is_constant(tensor) for tensor in tensors)
        call = Call(self.trace, func, args, kwargs)
        result = call.result = func(*args, **kwargs)
        outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        try:
            factors = rule(call) if rule is not None and labelled else []
        except Unmatchable as error:
            raise Unmatchable(f"{name}, which {error}") from None
        if len(factors) != len(outputs):
            factors = [factors[0] if factors else [] for _ in outputs]
        for output, own in zip(outputs, factors, strict=True):
            self.trace.layers.pop(output, None)
            labels.set(output, own, constant)
        if name in ("conv1d", "conv2d", "conv3d", "linear"):
            self.trace.layers[result] = (call.key("weight"), call.key("bias"))
        return result

    def _take_apart(self, name: str, func: Any, args: tuple, kwargs: dict) -> Any:
        """Run the operations that an operation without a rule is composed of."""
        with self:
            result = func.decompose(*args, **kwargs)
        if result is NotImplemented:
            raise Unmatchable(f"{name}, which is not among those that can be followed")
        return result
