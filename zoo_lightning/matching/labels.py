"""Labels of channels that follow a network's tensors through its operations.

Every axis of every parameter starts with labels of its own, the *atoms*: one for each index. An
operation carries atoms along, and *ties* those that must go together: a sum ties the channels of
its terms, a convolution ties its input's channels to its kernel's second axis. What becomes of ties
is decided in :mod:`zoo_lightning.matching.orbits`; what each operation does, in
:mod:`zoo_lightning.matching.rules`.

A tensor's atoms are kept as *factors*: integer tensors of as many axes as the tensor, of size 1
along all axes on which they do not depend. ``(B, C, H, W)`` features have one factor
``(1, C, 1, 1)``; a kernel ``(O, I, h, w)`` has two, ``(O, 1, 1, 1)`` and ``(1, I, 1, 1)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

FIXED = 0
"""The atom of everything that keeps its place: pixels, the image's channels, constants."""


class Unmatchable(Exception):
    """An operation through which channels cannot be followed; the text says why."""


@dataclass(frozen=True)
class Labelled:
    """Shape and atoms of a tensor, or of a tensor seen in another shape.

    Attributes:
        shape: of the tensor.
        factors: each of them depends on axes of its own.
        free: axes along which the tensor is the same everywhere, so that any order will do.
    """

    shape: tuple[int, ...]
    factors: tuple[Tensor, ...] = ()
    free: frozenset[int] = frozenset()

    def fixed(self, axis: int) -> bool:
        """Whether the indices of an axis differ but must keep their places."""
        covered = any(factor.shape[axis] > 1 for factor in self.factors)
        return self.shape[axis] > 1 and axis not in self.free and not covered

    def padded(self, ndim: int) -> Labelled:
        """With axes of size 1 in front, as broadcasting adds them."""
        more = ndim - len(self.shape)
        factors = tuple(f.reshape((1,) * more + tuple(f.shape)) for f in self.factors)
        free = frozenset(axis + more for axis in self.free)
        return Labelled((1,) * more + self.shape, factors, free)

    def along(self, axis: int, ndim: int) -> Labelled:
        """A vector seen as a tensor of ``ndim`` axes that varies along one of them."""
        shape = [1] * ndim
        shape[axis] = self.shape[0]
        factors = tuple(factor.reshape(shape) for factor in self.factors)
        return Labelled(tuple(shape), factors, frozenset({axis} if self.free else ()))

    def without(self, axes: Iterable[int]) -> Labelled:
        """As if the tensor had size 1 along axes; factors that depend on them are left out."""
        gone = set(axes)
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(self.shape))
        kept = tuple(f for f in self.factors if not gone & set(axes_of(f)))
        return Labelled(shape, kept, self.free - gone)


class Labels:
    """The atoms of all tensors seen so far, and what has been found out about atoms.

    Attributes:
        count: atoms so far; atom 0 is :data:`FIXED`.
        ties: pairs of equally long vectors of atoms that go together.
        uses: vectors of atoms that only ever occur together, and the block that each is in.
        links: indices of the two uses of each grouped convolution: its input's and its output's.
    """

    def __init__(self) -> None:
        self.count = 1
        self.ties: list[tuple[Tensor, Tensor]] = []
        self.uses: list[tuple[Tensor, Tensor]] = []
        self.links: list[tuple[int, int]] = []
        self._factors: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._constant: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def fresh(self, size: int) -> Tensor:
        """New atoms of one axis."""
        atoms = torch.arange(self.count, self.count + size)
        self.count += size
        self.use(atoms)
        return atoms

    def begin(self, tensor: Tensor) -> list[Tensor]:
        """Give a parameter atoms of its own.

        Returns:
            Them for each axis; of an axis of size 1, none.
        """
        atoms = [self.fresh(size) if size > 1 else torch.zeros(0).long() for size in tensor.shape]
        factors = []
        for axis, own in enumerate(atoms):
            if len(own):
                factors.append(own.reshape([-1 if d == axis else 1 for d in range(tensor.dim())]))
        self.set(tensor, factors)
        return atoms

    def set(self, tensor: Tensor, factors: Sequence[Tensor], constant: bool = False) -> None:
        """Note a tensor's factors, and whether no parameter and no image had a part in it."""
        self._factors[tensor] = tuple(f for f in factors if f.numel() > 1)
        self._constant[tensor] = constant

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether neither a parameter nor the image had a part in a tensor."""
        return self._constant.get(tensor, True)

    def of(self, tensor: Tensor) -> Labelled:
        """What is known of a tensor."""
        factors = self._factors.get(tensor, ())
        free = set()
        for axis, size in enumerate(tensor.shape):
            if size > 1 and not any(factor.shape[axis] > 1 for factor in factors):
                same = tensor.stride(axis) == 0
                if not same and self.is_constant(tensor):
                    same = bool((tensor == tensor.narrow(axis, 0, 1)).all())
                free |= {axis} if same else set()
        return Labelled(tuple(tensor.shape), factors, frozenset(free))

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Let atoms go together, elementwise after broadcasting."""
        first, second = torch.broadcast_tensors(first, second)
        self.ties.append((first.flatten(), second.flatten()))

    def freeze(self, atoms: Tensor) -> None:
        """Let atoms keep their places."""
        self.tie(atoms, torch.tensor(FIXED))

    def use(self, atoms: Tensor, blocks: int = 1) -> int:
        """Note that atoms occur together, in blocks of consecutive ones.

        Returns:
            The use's index.
        """
        atoms = atoms.flatten()
        block = torch.arange(blocks).repeat_interleave(len(atoms) // blocks)
        self.uses.append((atoms, block))
        return len(self.uses) - 1

    def axis(self, labelled: Labelled, axis: int) -> Tensor | None:
        """Atoms along one axis, ``None`` if they are fixed or all the same.

        Raises:
            Unmatchable: channels lie across this axis and others.
        """
        for factor in labelled.factors:
            if factor.shape[axis] > 1:
                if len(axes_of(factor)) > 1:
                    raise Unmatchable("works on channels that a reshape has spread over two axes")
                return factor.flatten()
        return None

    def vector(self, labelled: Labelled, axis: int) -> Labelled:
        """One axis of a tensor by itself.

        Raises:
            Unmatchable: channels lie across this axis and others.
        """
        atoms = self.axis(labelled, axis)
        free = frozenset({0} if axis in labelled.free else ())
        return Labelled((labelled.shape[axis],), () if atoms is None else (atoms,), free)

    def meet(self, *vectors: Labelled | None) -> Labelled:
        """Tie vectors, such as two axes that are summed over together; the vector they make."""
        given = [vector for vector in vectors if vector is not None]
        factors = self.pointwise(given)
        free = frozenset.intersection(*[vector.free for vector in given])
        return Labelled(given[0].shape, tuple(factors), free)

    def collapse(self, factor: Tensor, axes: Iterable[int]) -> Tensor | None:
        """What an operation over axes leaves of a factor; channels that are mixed get tied.

        Returns:
            ``None`` if the operation is over all axes that the factor depends on.
        """
        own = axes_of(factor)
        within = [axis for axis in own if axis in set(axes)]
        if len(within) == len(own):
            return None
        for axis in within:
            first = factor.narrow(axis, 0, 1)
            self.tie(factor, first)
            factor = first
        return factor

    def pointwise(self, operands: Sequence[Labelled]) -> list[Tensor]:
        """Factors of what an elementwise operation makes of its operands, which get tied."""
        ndim = max((len(operand.shape) for operand in operands), default=0)
        operands = [operand.padded(ndim) for operand in operands]
        result: list[Tensor] = []
        for index, operand in enumerate(operands):
            for factor in operand.factors:
                others = operands[:index] + operands[index + 1 :]
                if any(other.fixed(axis) for other in others for axis in axes_of(factor)):
                    self.freeze(factor)
                result = self._join(result, factor)
        return result

    def _join(self, factors: list[Tensor], new: Tensor) -> list[Tensor]:
        """Add a factor to others; those that share an axis with it get tied and are replaced."""
        kept, axes = [], set(axes_of(new))
        for factor in factors:
            if not axes & set(axes_of(factor)):
                kept.append(factor)
                continue
            self.tie(factor, new)
            new = torch.broadcast_tensors(factor, new)[0]
            axes = set(axes_of(new))
        return [*kept, new]

    def move(
        self, labelled: Labelled, change: Callable[[Tensor], Any], cuts: bool
    ) -> list[list[Tensor]]:
        """Factors after an operation that only moves, repeats or leaves out elements.

        Args:
            labelled: the operand.
            change: the operation, to be done to the factors themselves.
            cuts: whether it may leave elements out; channels that are left are then set apart.

        Returns:
            The factors of each of the operation's results.
        """
        results: list[list[Tensor]] = []
        for factor in labelled.factors:
            moved = change(factor.expand(labelled.shape))
            pieces = list(moved) if isinstance(moved, (tuple, list)) else [moved]
            results = results or [[] for _ in pieces]
            for place, piece in zip(results, pieces, strict=True):
                kept = squeeze_factor(piece)
                if cuts and (kept.numel() != factor.numel() or len(pieces) > 1):
                    self.use(kept)
                if any(set(axes_of(kept)) & set(axes_of(other)) for other in place):
                    raise Unmatchable("merges two axes that both hold channels")
                place.append(kept)
        return results


def axes_of(factor: Tensor) -> list[int]:
    """Axes on which a factor depends."""
    return [axis for axis, size in enumerate(factor.shape) if size > 1]


def squeeze_factor(factor: Tensor) -> Tensor:
    """Bring the axes along which a factor does not vary to size 1."""
    for axis, size in enumerate(factor.shape):
        if size > 1:
            first = factor.narrow(axis, 0, 1)
            if factor.stride(axis) == 0 or bool((factor == first).all()):
                factor = first
    return factor
