"""Rules for the effect of each tensor operation on the labels of channels.

There is one rule for each operation of torch's own library (``aten``), found by its name.
:mod:`zoo_lightning.rebasin.tracing` calls them during a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from zoo_lightning.rebasin.labels import FIXED, Labelled, Labels, Unmatchable, axes_of

ELEMENTWISE = {
    "_to_copy", "alias", "alpha_dropout", "clone", "contiguous", "copy_", "detach", "dropout",
    "feature_dropout", "fill", "hardswish", "lift_fresh", "mish", "ones_like", "rrelu", "to",
    "type_as", "zeros_like",
}  # fmt: skip
"""Elementwise operations that torch does not tag as such, or that do nothing in evaluation."""

MOVES = {
    "channel_shuffle", "expand", "flatten", "flip", "movedim", "permute", "pixel_shuffle",
    "pixel_unshuffle", "repeat", "reshape", "roll", "squeeze", "t", "transpose", "unflatten",
    "unsafe_view", "unsqueeze", "view",
}  # fmt: skip
"""Operations that move or repeat elements and leave none out."""

CUTS = {"chunk", "narrow", "select", "slice", "split", "split_with_sizes", "unbind"}
"""Operations that leave elements out, or distribute them over several tensors."""

REDUCTIONS = {
    "amax", "amin", "linalg_vector_norm", "logsumexp", "mean", "norm", "prod", "std", "sum", "var",
    "var_mean",
}  # fmt: skip
"""Reductions, whose result does not depend on the order along the reduced axes."""

SPATIAL = (
    "adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "lp_pool", "max_pool",
    "reflection_pad", "replication_pad", "upsample_bicubic", "upsample_bilinear",
    "upsample_linear", "upsample_nearest", "_upsample_nearest_exact",
)  # fmt: skip
"""Prefixes of names of operations within each channel; the number of spatial axes follows."""


@dataclass
class Convolution:
    """Input channels of a grouped convolution.

    Attributes:
        atoms: atoms of the input's channels in their order, ``(C,)``.
        groups: number of groups that the channels are divided into.
    """

    atoms: Tensor
    groups: int


@dataclass
class Norm:
    """A batch norm whose input is the output of a convolution or linear layer, unchanged.

    Attributes:
        keys: state-dict keys of ``weight``, ``bias``, ``running_mean`` and ``running_var``, as far
            as the norm has them.
        bias: key of the layer's bias, empty if it has none.
        eps: number added to the variance.
    """

    keys: dict[str, str]
    bias: str
    eps: float


@dataclass
class ChannelTrace:
    """Record of a network's channels in a traced forward pass.

    Attributes:
        labels: labels of the channels of all tensors.
        keys: state-dict key of each parameter and buffer.
        touched: keys of the parameters and buffers that some operation used.
        grouped: grouped convolutions by their kernel's key.
        norms: batch norms by the key of the kernel before them.
        layers: keys of kernel and bias of the layer that a tensor is the output of, by tensor.
        scores: atoms ``(heads, channels)`` of the queries and of the keys of each attention.
        values: atoms ``(heads, channels)`` of the values of each attention.
    """

    labels: Labels
    keys: Mapping[Tensor, str]
    touched: set[str] = field(default_factory=set)
    grouped: dict[str, Convolution] = field(default_factory=dict)
    norms: dict[str, Norm] = field(default_factory=dict)
    layers: WeakIdKeyDictionary = field(default_factory=WeakIdKeyDictionary)
    scores: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)


@dataclass
class Call:
    """One call of an operation, with its arguments by name.

    Attributes:
        trace: record of the forward pass.
        func: operation that is called.
        args: positional arguments of the call.
        kwargs: keyword arguments of the call.
        result: result of the call, set after the operation has run.
    """

    trace: ChannelTrace
    func: Any
    args: tuple
    kwargs: dict[str, Any]
    result: Any = None

    def __post_init__(self) -> None:
        self.labels = self.trace.labels
        names = [argument.name for argument in self.func._schema.arguments]
        self.named = dict(zip(names, self.args, strict=False)) | self.kwargs
        # Taken before the operation runs, because it may change its operand in place.
        operands = [each for each in tree_leaves(self.named) if isinstance(each, Tensor)]
        self.operands = [self.labels.of(tensor) for tensor in operands]

    @property
    def ndim(self) -> int:
        """Number of axes of the first operand."""
        return len(self.operands[0].shape)

    def tensor(self, name: str) -> Tensor | None:
        """Tensor argument by its name; ``None`` if the call has none."""
        return self.named.get(name)

    def of(self, name: str) -> Labelled:
        """Labels of a tensor argument that the operation always has."""
        return self.labels.of(self.named[name])

    def optional(self, name: str) -> Labelled | None:
        """Labels of a tensor argument; ``None`` if the call has none."""
        tensor = self.tensor(name)
        return None if tensor is None else self.labels.of(tensor)

    def key(self, name: str) -> str:
        """State-dict key of a tensor argument; empty if it is not a parameter or buffer."""
        tensor = self.tensor(name)
        return "" if tensor is None else self.trace.keys.get(tensor, "")

    def dims(self, name: str = "dim") -> list[int]:
        """Axes given by an argument, as indices of at least 0; all axes if it is empty."""
        given = self.named.get(name)
        given = [given] if isinstance(given, int) else given
        return [axis % self.ndim for axis in (given or range(self.ndim))]


Rule = Callable[[Call], list[list[Tensor]]]


def base_name(func: Any) -> str:
    """Name of an operation without its library, its overload and the ``_`` of in-place variants."""
    name = func._schema.name.partition("::")[2]
    return name if name in ELEMENTWISE else name.rstrip("_")


def find_rule(name: str, pointwise: bool) -> Rule | None:
    """Find the rule of an operation; ``None`` if there is none."""
    name = name.removeprefix("_") if name in ("_unsafe_view", "_softmax") else name
    if name in RULES:
        return RULES[name]
    if name.startswith(SPATIAL):
        return spatial
    return elementwise if pointwise else None


def elementwise(call: Call) -> list[list[Tensor]]:
    """Rule of elementwise operations: channels at the same index are tied."""
    return [call.labels.pointwise(call.operands)]


def moves(call: Call) -> list[list[Tensor]]:
    """Rule of reshape, permute and split: labels move as the elements do."""
    name = base_name(call.func)

    def change(atoms: Tensor) -> Any:
        if name in ("view", "unsafe_view", "_unsafe_view"):
            return atoms.reshape(call.result.shape)  # labels are not laid out as the elements are
        return call.func(atoms, *call.args[1:], **call.kwargs)

    return call.labels.move(call.operands[0], change, name in CUTS)


def reduction(call: Call) -> list[list[Tensor]]:
    """Rule of means, sums and maxima: the order of reduced channels does not matter."""
    dims = call.dims()
    left = [call.labels.collapse(factor, dims) for factor in call.operands[0].factors]
    factors = [factor for factor in left if factor is not None]
    if not call.named.get("keepdim", False):
        factors = [factor.squeeze(tuple(dims)) for factor in factors]
    return [factors]


def spatial(call: Call) -> list[list[Tensor]]:
    """Rule of pooling, padding and resizing, which act on the last axes only."""
    count = int(next(digit for digit in base_name(call.func) if digit.isdigit()))
    _refuse_across(call, range(call.ndim - count, call.ndim))
    return [list(call.operands[0].factors)]


def softmax(call: Call) -> list[list[Tensor]]:
    """Rule of the softmax: channels stay apart, and each depends on all."""
    for factor in call.operands[0].factors:
        call.labels.collapse(factor, call.dims())
    return [list(call.operands[0].factors)]


def padding(call: Call) -> list[list[Tensor]]:
    """Rule of constant padding: added elements keep their places."""
    pairs = list(call.named["pad"])
    results = []
    for factor in call.operands[0].factors:
        own = [
            amount if factor.shape[call.ndim - 1 - index // 2] > 1 else 0
            for index, amount in enumerate(pairs)
        ]
        results.append(F.pad(factor, own, value=FIXED))
        if min(own) < 0:
            call.labels.use(results[-1])
    return [results]


def concatenation(call: Call) -> list[list[Tensor]]:
    """Rule of concatenation: channels stay apart, and other axes are tied place by place."""
    parts = [part for part in call.operands if part.shape != (0,)]
    dim = call.named.get("dim", 0) % len(parts[0].shape)
    others = call.labels.pointwise([part.without({dim}) for part in parts])
    atoms, labelled = [], False
    for part in parts:
        own = call.labels.axis(part, dim)
        labelled |= own is not None
        atoms.append(torch.full((part.shape[dim],), FIXED) if own is None else own)
    if not labelled:
        return [others]
    return [[*others, torch.cat(atoms).reshape([-1 if d == dim else 1 for d in range(call.ndim)])]]


def stacking(call: Call) -> list[list[Tensor]]:
    """Rule of stacking: channels of the tensors stay apart along the new axis."""
    dim = call.named.get("dim", 0) % (call.ndim + 1)
    depends = [[axes_of(factor) for factor in part.factors] for part in call.operands]
    if any(each != depends[0] for each in depends):
        raise Unmatchable("stacks tensors with channels on different axes")
    pairs = zip(*[part.factors for part in call.operands], strict=True)
    return [[torch.stack(torch.broadcast_tensors(*factors), dim) for factors in pairs]]


def convolution(call: Call) -> list[list[Tensor]]:
    """Rule of convolutions of ``(N, C, *)`` with kernels ``(O, C / groups, *)``."""
    labels, x, weight, axis = _convolved(call)
    given, kernels = labels.vector(x, axis), labels.vector(weight, 0)
    groups = call.named.get("groups", 1)
    if groups == 1:
        labels.meet(given, labels.vector(weight, 1))
    elif weight.shape[:2] == (groups, 1):  # depthwise: each channel by itself
        kernels = labels.meet(given, kernels)
    else:
        _grouped(call, given, kernels, groups)
    return _with_outputs(call, x, labels.meet(kernels, _bias(call)), axis)


def transposed(call: Call) -> list[list[Tensor]]:
    """Rule of transposed convolutions of ``(N, C, *)`` with kernels ``(C, O, *)``."""
    labels, x, weight, axis = _convolved(call)
    if call.named.get("groups", 1) > 1:
        raise Unmatchable("is a transposed convolution in groups")
    labels.meet(labels.vector(x, axis), labels.vector(weight, 0))
    return _with_outputs(call, x, labels.meet(labels.vector(weight, 1), _bias(call)), axis)


def linear(call: Call) -> list[list[Tensor]]:
    """Rule of linear layers of ``(*, I)`` with matrices ``(O, I)``."""
    labels, x, weight = call.labels, call.of("input"), call.of("weight")
    axis = len(x.shape) - 1
    labels.meet(labels.vector(x, axis), labels.vector(weight, 1))
    return _with_outputs(call, x, labels.meet(labels.vector(weight, 0), _bias(call)), axis)


def product(call: Call) -> list[list[Tensor]]:
    """Rule of matrix products, with and without a batch: ``(*, n, k) @ (*, k, m)``."""
    labels, ndim = call.labels, len(call.operands[-1].shape)
    *added, left, right = call.operands
    if any(factor.shape[0] > 1 for each in (left, right) for factor in each.factors if ndim > 2):
        raise Unmatchable("is a batch of matrix products, one for each of some channels")
    labels.meet(labels.vector(left, ndim - 1), labels.vector(right, ndim - 2))
    shape = tuple(call.result.shape)
    rows = labels.vector(left, ndim - 2).along(ndim - 2, ndim)
    columns = labels.vector(right, ndim - 1).along(ndim - 1, ndim)
    made = Labelled(shape, (*rows.factors, *columns.factors))
    return [labels.pointwise([made, *added])]


def channel_norm(call: Call) -> list[list[Tensor]]:
    """Rule of batch, instance and group norms, with parameters along the second axis."""
    labels, x = call.labels, call.of("input")
    groups = call.named.get("num_groups", 1)
    if "num_groups" not in call.named:
        _note_norm(call, call.named.get("eps", 1e-5))
    atoms = labels.axis(x, 1)
    if 1 < groups < x.shape[1] and atoms is not None:
        labels.use(atoms, groups)
    names = ("weight", "bias", "running_mean", "running_var")
    given = [each for each in map(call.optional, names) if each is not None]
    return [labels.pointwise([x, *(each.along(1, len(x.shape)) for each in given)])]


def layer_norm(call: Call) -> list[list[Tensor]]:
    """Rule of norms over the last axes, with parameters of their shape."""
    count = len(call.named["normalized_shape"])
    for factor in call.operands[0].factors:
        call.labels.collapse(factor, range(call.ndim - count, call.ndim))
    return [call.labels.pointwise(call.operands)]


def attention(call: Call) -> list[list[Tensor]]:
    """Rule of scaled dot-product attention of ``(..., heads, tokens, channels)``.

    ``softmax(q kᵀ) v`` does not change if the channels of a head's queries and of its keys are
    permuted alike. The order of a head's values is that of its outputs, and heads may change places
    as wholes.
    """
    labels, ndim = call.labels, call.ndim
    made = _scores(call, call.of("query"), call.of("key"), ndim - 1)
    mask = call.optional("attn_mask")
    added = labels.pointwise([made] if mask is None else [made, mask])
    return [_weighted(call, Labelled(made.shape, tuple(added)), call.of("value"))]


def head_product(call: Call) -> list[list[Tensor]]:
    """Rule of one matrix product for each head: ``q kᵀ`` or ``softmax(q kᵀ) v``."""
    left, right = call.operands
    if any(factor.shape[-1] > 1 for factor in left.factors):
        return [list(_scores(call, left, right, call.ndim - 2).factors)]
    return [_weighted(call, left, right)]


def is_head_product(tensors: Sequence[Tensor], labels: Labels) -> bool:
    """Whether a matrix product of two tensors has a product for each head of an attention."""
    if min(each.dim() for each in tensors) < 4:
        return False
    return any(f.shape[-3] > 1 for each in tensors for f in labels.of(each).factors)


def indexing(call: Call) -> list[list[Tensor]]:
    """Rule of ``x[..., index, ...]`` with one index tensor: elements along its axis stay put."""
    given = [(axis, each) for axis, each in enumerate(call.named["indices"]) if each is not None]
    if len(given) != 1 or call.labels.of(given[0][1]).factors:
        raise Unmatchable("picks elements by several index tensors, or by computed ones")
    axis, index = given[0]
    if index.dtype == torch.bool:
        raise Unmatchable("picks elements by a mask")
    kept = []
    for factor in call.of("self").factors:
        if factor.shape[axis] == 1:
            shape = (*factor.shape[:axis], *[1] * index.dim(), *factor.shape[axis + 1 :])
            kept.append(factor.reshape(shape))
        else:
            call.labels.freeze(factor)
    return [kept]


def _scores(call: Call, query: Labelled, key: Labelled, axis: int) -> Labelled:
    """Labels of ``q kᵀ``, ``(..., heads, tokens, tokens)``: one atom for each head.

    Args:
        call: call of the product.
        query: labels of the queries, ``(..., heads, tokens, channels)``.
        key: labels of the keys.
        axis: axis of the keys that holds the channels.
    """
    labels = call.labels
    queries = _head_channels(labels, query, len(query.shape) - 1)
    keys = _head_channels(labels, key, axis)
    if queries.shape != keys.shape:
        raise Unmatchable("is attention whose heads share keys")
    labels.tie(queries, keys)
    call.trace.scores.append((queries, keys))
    shape = (*query.shape[:-1], key.shape[-2 if axis == len(key.shape) - 1 else -1])
    count = len(queries)
    if count == 1:
        return Labelled(shape)
    heads = labels.fresh(count)
    labels.links.append((labels.use(queries, count), labels.use(heads, count)))
    return Labelled(shape, (heads.reshape([1] * (len(shape) - 3) + [count, 1, 1]),))


def _weighted(call: Call, weights: Labelled, value: Labelled) -> list[Tensor]:
    """Factors of values averaged by each head's weights ``(..., heads, tokens, tokens)``."""
    labels, ndim = call.labels, len(value.shape)
    values = _head_channels(labels, value, ndim - 1)
    call.trace.values.append(values)
    if len(values) > 1:
        heads = labels.axis(weights, ndim - 3)
        if heads is None or len(heads) != len(values):
            raise Unmatchable("is attention whose heads share values")
        links = labels.use(heads, len(values)), labels.use(values, len(values))
        labels.links.append(links)
    shape = [1] * ndim
    shape[-3:] = len(values), 1, values.shape[1]
    return [values.reshape(shape)]


def _head_channels(labels: Labels, operand: Labelled, axis: int) -> Tensor:
    """Atoms ``(heads, channels)`` of an operand of attention, with heads along the last axis but 2.

    Tokens, along the other one of the last two axes, keep their places.
    """
    found, ndim = None, len(operand.shape)
    for factor in operand.factors:
        axes = axes_of(factor)
        if axes == [2 * ndim - 3 - axis]:
            labels.freeze(factor)
        elif axes == [ndim - 3, axis] or (axes == [axis] and operand.shape[-3] == 1):
            found = factor.reshape(-1, operand.shape[axis])
        else:
            raise Unmatchable("is attention that does not divide a layer's channels into heads")
    if found is None:
        raise Unmatchable("is attention to what is computed from no layer's channels")
    return found


def _convolved(call: Call) -> tuple[Labels, Labelled, Labelled, int]:
    """Labels of a convolution's input and kernel, and the input's channel axis.

    Positions inside the kernel keep their places.
    """
    x, weight = call.of("input"), call.of("weight")
    axis = len(x.shape) - len(weight.shape) + 1  # 1, or 0 without a batch
    _refuse_across(call, range(axis + 1, len(x.shape)), "convolves along")
    for factor in weight.factors:
        if not {0, 1} & set(axes_of(factor)):
            call.labels.freeze(factor)
    return call.labels, x, weight, axis


def _grouped(call: Call, given: Labelled, kernels: Labelled, groups: int) -> None:
    """Divide the input and output channels of a grouped convolution into linked blocks."""
    labels, key = call.labels, call.key("weight")
    if not key or not kernels.factors:
        raise Unmatchable("is a grouped convolution whose kernels are computed in the forward pass")
    for factor in call.of("weight").factors:
        if factor.shape[0] == 1:
            labels.freeze(factor)  # its places are within blocks: permuted with the input, not here
    atoms = given.factors[0] if given.factors else torch.full(given.shape, FIXED)
    labels.links.append((labels.use(atoms, groups), labels.use(kernels.factors[0], groups)))
    if key in call.trace.grouped:
        labels.tie(call.trace.grouped[key].atoms, atoms)
    call.trace.grouped[key] = Convolution(atoms, groups)


def _bias(call: Call) -> Labelled | None:
    bias = call.optional("bias")
    return None if bias is None else call.labels.vector(bias, 0)


def _note_norm(call: Call, eps: float) -> None:
    """Record a batch norm if its input is a layer's output."""
    weight, bias = call.trace.layers.get(call.tensor("input"), ("", ""))
    keys = {name: call.key(name) for name in ("weight", "bias", "running_mean", "running_var")}
    if weight and keys["running_mean"] and keys["running_var"]:
        call.trace.norms[weight] = Norm({k: v for k, v in keys.items() if v}, bias, eps)


def _with_outputs(call: Call, x: Labelled, outputs: Labelled, axis: int) -> list[list[Tensor]]:
    """Factors of a layer's output: those of its input, with the channel axis replaced."""
    kept = [factor for factor in x.factors if factor.shape[axis] == 1]
    return [[*kept, *outputs.along(axis, len(x.shape)).factors]]


def _refuse_across(call: Call, axes: Iterable[int], what: str = "works along") -> None:
    """Refuse an operation for which the order along some axes matters, if they hold channels."""
    for factor in call.operands[0].factors:
        if set(axes) & set(axes_of(factor)):
            raise Unmatchable(f"{what} the channels, whose order therefore matters")


RULES: dict[str, Rule] = {
    **dict.fromkeys(ELEMENTWISE, elementwise),
    **dict.fromkeys(MOVES | CUTS, moves),
    **dict.fromkeys(REDUCTIONS, reduction),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed),
    **dict.fromkeys(("mm", "bmm", "addmm", "baddbmm"), product),
    **dict.fromkeys(("batch_norm", "instance_norm", "group_norm"), channel_norm),
    **dict.fromkeys(("layer_norm", "rms_norm"), layer_norm),
    **dict.fromkeys(("softmax", "log_softmax"), softmax),
    "cat": concatenation,
    "concat": concatenation,
    "constant_pad_nd": padding,
    "index": indexing,
    "linear": linear,
    "matmul": head_product,
    "scaled_dot_product_attention": attention,
    "stack": stacking,
}
"""Rules by operation, besides :data:`SPATIAL` and operations that torch tags as elementwise."""
