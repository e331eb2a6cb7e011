"""What each tensor operation does to the labels of channels.

One rule for each operation of torch's own library (``aten``), found by its name. A rule answers for
the operation's meaning only. Who calls the rules is :mod:`zoo_lightning.matching.tracing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._pytree import tree_leaves

from zoo_lightning.matching.labels import FIXED, Labelled, Labels, Unmatchable, axes_of

if TYPE_CHECKING:
    from zoo_lightning.matching.tracing import ChannelTracer

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
"""Operations that leave elements out, or deal them out to several tensors."""

REDUCTIONS = {
    "amax", "amin", "linalg_vector_norm", "logsumexp", "mean", "norm", "prod", "std", "sum", "var",
    "var_mean",
}  # fmt: skip
"""Operations over axes whose result does not depend on the order along them."""

SPATIAL = (
    "adaptive_avg_pool", "adaptive_max_pool", "avg_pool", "lp_pool", "max_pool",
    "reflection_pad", "replication_pad", "upsample_bicubic", "upsample_bilinear",
    "upsample_linear", "upsample_nearest", "_upsample_nearest_exact",
)  # fmt: skip
"""Beginnings of operations on each channel's own pixels; their names tell on how many axes."""

REASONS = {
    "scaled_dot_product_attention": "is attention, whose heads tie channels in a way that is not "
    "followed",
    "index": "picks elements by an index tensor",
}
"""Why some operations are refused."""


@dataclass
class Convolution:
    """A grouped convolution's input, in the order of its channels.

    Attributes:
        atoms: ``(C,)``, of the input's channels.
        groups: into which they are divided.
    """

    atoms: Tensor
    groups: int


@dataclass
class Call:
    """One call of an operation, its arguments by name.

    Attributes:
        tracer: that sees it.
        func: the operation.
        args: as given.
        kwargs: as given.
        result: what it gave.
    """

    tracer: ChannelTracer
    func: Any
    args: tuple
    kwargs: dict[str, Any]
    result: Any = None

    def __post_init__(self) -> None:
        self.labels = self.tracer.labels
        names = [argument.name for argument in self.func._schema.arguments]
        self.named = dict(zip(names, self.args, strict=False)) | self.kwargs
        # Taken before the operation runs, because it may change its operand in place.
        operands = [each for each in tree_leaves(self.named) if isinstance(each, Tensor)]
        self.operands = [self.labels.of(tensor) for tensor in operands]

    @property
    def ndim(self) -> int:
        """Axes of the first operand."""
        return len(self.operands[0].shape)

    def tensor(self, name: str) -> Tensor | None:
        """A tensor among the arguments."""
        return self.named.get(name)

    def of(self, name: str) -> Labelled | None:
        """Labels of a tensor among the arguments."""
        tensor = self.tensor(name)
        return None if tensor is None else self.labels.of(tensor)

    def key(self, name: str) -> str:
        """Key of a parameter among the arguments; empty if it is none."""
        tensor = self.tensor(name)
        return "" if tensor is None else self.tracer.keys.get(tensor, "")

    def dims(self, name: str = "dim") -> list[int]:
        """Axes that an argument names, counted from the front; all, if it names none."""
        given = self.named.get(name)
        given = [given] if isinstance(given, int) else given
        return [axis % self.ndim for axis in (given or range(self.ndim))]


Rule = Callable[[Call], list[list[Tensor]]]


def base_name(func: Any) -> str:
    """Name of an operation without library, overload and mark of being in place."""
    name = func._schema.name.partition("::")[2]
    return name if name in ELEMENTWISE else name.rstrip("_")


def find_rule(name: str, pointwise: bool) -> Rule | None:
    """The rule of an operation, ``None`` if there is none."""
    name = name.removeprefix("_") if name in ("_unsafe_view", "_softmax") else name
    if name in RULES:
        return RULES[name]
    if name.startswith(SPATIAL):
        return spatial
    return elementwise if pointwise else None


def elementwise(call: Call) -> list[list[Tensor]]:
    """Sums, products, activations: what lies at one place goes together."""
    return [call.labels.pointwise(call.operands)]


def moves(call: Call) -> list[list[Tensor]]:
    """Reshape, permute, split: do to the labels what is done to the elements."""
    name = base_name(call.func)

    def change(atoms: Tensor) -> Any:
        if name in ("view", "unsafe_view", "_unsafe_view"):
            return atoms.reshape(call.result.shape)  # labels are not laid out as the elements are
        return call.func(atoms, *call.args[1:], **call.kwargs)

    return call.labels.move(call.operands[0], change, name in CUTS)


def reduction(call: Call) -> list[list[Tensor]]:
    """Mean, sum, largest: over channels the order does not matter."""
    dims = call.dims()
    left = [call.labels.collapse(factor, dims) for factor in call.operands[0].factors]
    factors = [factor for factor in left if factor is not None]
    if not call.named.get("keepdim", False):
        factors = [factor.squeeze(tuple(dims)) for factor in factors]
    return [factors]


def spatial(call: Call) -> list[list[Tensor]]:
    """Pooling, resizing: on the last axes only."""
    count = int(next(digit for digit in base_name(call.func) if digit.isdigit()))
    _refuse_across(call, range(call.ndim - count, call.ndim))
    return [list(call.operands[0].factors)]


def softmax(call: Call) -> list[list[Tensor]]:
    """Softmax over channels keeps them apart, but they must all be there."""
    for factor in call.operands[0].factors:
        call.labels.collapse(factor, call.dims())
    return [list(call.operands[0].factors)]


def padding(call: Call) -> list[list[Tensor]]:
    """Constants before and after keep their places."""
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
    """Channels side by side; along other axes what lies at one place goes together."""
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
    """Tensors along a new axis, whose channels stay apart."""
    dim = call.named.get("dim", 0) % (call.ndim + 1)
    depends = [[axes_of(factor) for factor in part.factors] for part in call.operands]
    if any(each != depends[0] for each in depends):
        raise Unmatchable("stacks tensors with channels on different axes")
    pairs = zip(*[part.factors for part in call.operands], strict=True)
    return [[torch.stack(torch.broadcast_tensors(*factors), dim) for factors in pairs]]


def convolution(call: Call) -> list[list[Tensor]]:
    """Convolution: ``(N, C, *)`` with kernels ``(O, C / groups, *)``."""
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
    """Transposed convolution: ``(N, C, *)`` with kernels ``(C, O, *)``."""
    labels, x, weight, axis = _convolved(call)
    if call.named.get("groups", 1) > 1:
        raise Unmatchable("is a transposed convolution in groups")
    labels.meet(labels.vector(x, axis), labels.vector(weight, 0))
    return _with_outputs(call, x, labels.meet(labels.vector(weight, 1), _bias(call)), axis)


def linear(call: Call) -> list[list[Tensor]]:
    """Linear layer: ``(*, I)`` with ``(O, I)``."""
    labels, x, weight = call.labels, call.of("input"), call.of("weight")
    axis = len(x.shape) - 1
    labels.meet(labels.vector(x, axis), labels.vector(weight, 1))
    return _with_outputs(call, x, labels.meet(labels.vector(weight, 0), _bias(call)), axis)


def product(call: Call) -> list[list[Tensor]]:
    """Matrix products, with and without a batch: ``(*, n, k) @ (*, k, m)``."""
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
    """Batch, instance and group norm: parameters along the second axis."""
    labels, x = call.labels, call.of("input")
    groups = call.named.get("num_groups", 1)
    if "num_groups" not in call.named:
        call.tracer.note_norm(call, call.named.get("eps", 1e-5))
    atoms = labels.axis(x, 1)
    if 1 < groups < x.shape[1] and atoms is not None:
        labels.use(atoms, groups)
    names = ("weight", "bias", "running_mean", "running_var")
    given = [each for each in map(call.of, names) if each is not None]
    return [labels.pointwise([x, *(each.along(1, len(x.shape)) for each in given)])]


def layer_norm(call: Call) -> list[list[Tensor]]:
    """Norms over the last axes, with parameters of their shape."""
    count = len(call.named["normalized_shape"])
    for factor in call.operands[0].factors:
        call.labels.collapse(factor, range(call.ndim - count, call.ndim))
    return [call.labels.pointwise(call.operands)]


def _convolved(call: Call) -> tuple[Labels, Labelled, Labelled, int]:
    """A convolution's input and kernels, whose pixels stay, and the input's axis of channels."""
    x, weight = call.of("input"), call.of("weight")
    axis = len(x.shape) - len(weight.shape) + 1  # 1, or 0 without a batch
    _refuse_across(call, range(axis + 1, len(x.shape)), "convolves along")
    for factor in weight.factors:
        if not {0, 1} & set(axes_of(factor)):
            call.labels.freeze(factor)
    return call.labels, x, weight, axis


def _grouped(call: Call, given: Labelled, kernels: Labelled, groups: int) -> None:
    """Divide input and output into blocks; the kernel's second axis follows the input's blocks."""
    labels, key = call.labels, call.key("weight")
    if not key or not kernels.factors:
        raise Unmatchable("is a grouped convolution whose kernels are computed in the forward pass")
    for factor in labels.of(call.tensor("weight")).factors:
        if factor.shape[0] == 1:
            labels.freeze(factor)  # its places are within blocks: permuted with the input, not here
    atoms = given.factors[0] if given.factors else torch.full(given.shape, FIXED)
    labels.links.append((labels.use(atoms, groups), labels.use(kernels.factors[0], groups)))
    if key in call.tracer.found.grouped:
        labels.tie(call.tracer.found.grouped[key].atoms, atoms)
    call.tracer.found.grouped[key] = Convolution(atoms, groups)


def _bias(call: Call) -> Labelled | None:
    bias = call.of("bias")
    return None if bias is None else call.labels.vector(bias, 0)


def _with_outputs(call: Call, x: Labelled, outputs: Labelled, axis: int) -> list[list[Tensor]]:
    """The input's factors with those of an axis replaced."""
    kept = [factor for factor in x.factors if factor.shape[axis] == 1]
    return [[*kept, *outputs.along(axis, len(x.shape)).factors]]


def _refuse_across(call: Call, axes: Iterable[int], what: str = "works along") -> None:
    """Refuse an operation for which neighbours along some axes matter, if channels lie there."""
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
    "linear": linear,
    "stack": stacking,
}
"""The rule of each operation, besides :data:`SPATIAL` and what torch tags as elementwise."""
