"""Labels of channels that follow a network's tensors through its operations.

Every axis of every parameter has labels of its own, the *atoms*: one for each index. An operation
carries atoms along, and *ties* those that must be permuted together: a sum ties the channels of its
terms, a convolution ties its input's channels to its kernel's second axis.
:mod:`zoo_lightning.rebasin.rules` has a rule for each operation, and
:mod:`zoo_lightning.rebasin.orbits` finds from the ties which channels may change places.

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
"""Atom of everything that keeps its place: pixels, the image's channels, constants."""


class Unmatchable(Exception):
    """Error of an operation through which channels cannot be followed.

    The message continues "OPERATION, which ...".
    """


@dataclass(frozen=True)
class Labelled:
    """Shape and atoms of a tensor, or of a tensor seen in another shape.

    Attributes:
        shape: shape of the tensor.
        factors: integer tensors of atoms, no two of which depend on the same axis.
        free: axes along which the tensor is constant, so that their order does not matter.
    """

    shape: tuple[int, ...]
    factors: tuple[Tensor, ...] = ()
    free: frozenset[int] = frozenset()

    def fixed(self, axis: int) -> bool:
        """Whether the indices of an axis differ but must keep their places."""
        covered = any(factor.shape[axis] > 1 for factor in self.factors)
        return self.shape[axis] > 1 and axis not in self.free and not covered

    def padded(self, ndim: int) -> Labelled:
        """Add axes of size 1 in front up to ``ndim`` axes, as broadcasting does."""
        more = ndim - len(self.shape)
        factors = tuple(f.reshape((1,) * more + tuple(f.shape)) for f in self.factors)
        free = frozenset(axis + more for axis in self.free)
        return Labelled((1,) * more + self.shape, factors, free)

    def along(self, axis: int, ndim: int) -> Labelled:
        """View a vector as a tensor of ``ndim`` axes that varies along one of them."""
        shape = [1] * ndim
        shape[axis] = self.shape[0]
        factors = tuple(factor.reshape(shape) for factor in self.factors)
        return Labelled(tuple(shape), factors, frozenset({axis} if self.free else ()))

    def without(self, axes: Iterable[int]) -> Labelled:
        """Reduce axes to size 1; factors that depend on them are left out."""
        gone = set(axes)
        shape = tuple(1 if axis in gone else size for axis, size in enumerate(self.shape))
        kept = tuple(f for f in self.factors if not gone & set(axes_of(f)))
        return Labelled(shape, kept, self.free - gone)


class Labels:
    """Atoms of all tensors seen so far, and the ties between atoms.

    Attributes:
        count: number of atoms; atom 0 is :data:`FIXED`.
        ties: pairs of equally long vectors of atoms that must be permuted together.
        uses: vectors of atoms that occur together, each with the block of every atom.
        links: for each grouped convolution the indices in ``uses`` of its input and its output.
    """

    def __init__(self) -> None:
        self.count = 1
        self.ties: list[tuple[Tensor, Tensor]] = []
        self.uses: list[tuple[Tensor, Tensor]] = []
        self.links: list[tuple[int, int]] = []
        self._factors: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._constant: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def fresh(self, size: int) -> Tensor:
        """Create ``size`` atoms, those of one axis."""
        atoms = torch.arange(self.count, self.count + size)
        self.count += size
        self.use(atoms)
        return atoms

    def begin(self, tensor: Tensor) -> list[Tensor]:
        """Create the atoms of a parameter.

        Returns:
            The atoms of each axis; none for an axis of size 1.
        """
        atoms = [self.fresh(size) if size > 1 else torch.zeros(0).long() for size in tensor.shape]
        factors = []
        for axis, own in enumerate(atoms):
            if len(own):
                factors.append(own.reshape([-1 if d == axis else 1 for d in range(tensor.dim())]))
        self.set(tensor, factors)
        return atoms

    def set(self, tensor: Tensor, factors: Sequence[Tensor], constant: bool = False) -> None:
        """Record a tensor's factors.

        Args:
            tensor: tensor of the forward pass.
            factors: integer tensors of its atoms; those with a single atom are left out.
            constant: whether the tensor depends on no parameter and no image.
        """
        self._factors[tensor] = tuple(f for f in factors if f.numel() > 1)
        self._constant[tensor] = constant

    def is_constant(self, tensor: Tensor) -> bool:
        """Whether a tensor depends on no parameter and no image."""
        return self._constant.get(tensor, True)

    def of(self, tensor: Tensor) -> Labelled:
        """Return the labels of a tensor."""
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
        """Tie atoms to one another, elementwise after broadcasting."""
        first, second = torch.broadcast_tensors(first, second)
        self.ties.append((first.flatten(), second.flatten()))

    def freeze(self, atoms: Tensor) -> None:
        """Make atoms keep their places."""
        self.tie(atoms, torch.tensor(FIXED))

    def use(self, atoms: Tensor, blocks: int = 1) -> int:
        """Record that atoms occur together, in blocks of consecutive atoms.

        Returns:
            Index of the new entry in ``uses``.
        """
        atoms = atoms.flatten()
        block = torch.arange(blocks).repeat_interleave(len(atoms) // blocks)
        self.uses.append((atoms, block))
        return len(self.uses) - 1

    def axis(self, labelled: Labelled, axis: int) -> Tensor | None:
        """Atoms along one axis; ``None`` if they are fixed or all the same.

        Raises:
            Unmatchable: channels are spread over this axis and others.
        """
        for factor in labelled.factors:
            if factor.shape[axis] > 1:
                if len(axes_of(factor)) > 1:
                    raise Unmatchable("works on channels that a reshape has spread over two axes")
                return factor.flatten()
        return None

    def vector(self, labelled: Labelled, axis: int) -> Labelled:
        """Extract one axis of a tensor as a vector.

        Raises:
            Unmatchable: channels are spread over this axis and others.
        """
        atoms = self.axis(labelled, axis)
        free = frozenset({0} if axis in labelled.free else ())
        return Labelled((labelled.shape[axis],), () if atoms is None else (atoms,), free)

    def meet(self, *vectors: Labelled | None) -> Labelled:
        """Tie vectors to one another and return one of them, as for axes of a matrix product."""
        given = [vector for vector in vectors if vector is not None]
        factors = self.pointwise(given)
        free = frozenset.intersection(*[vector.free for vector in given])
        return Labelled(given[0].shape, tuple(factors), free)

    def collapse(self, factor: Tensor, axes: Iterable[int]) -> Tensor | None:
        """Reduce a factor over axes, tying the channels that are mixed.

        Returns:
            The remaining factor; ``None`` if all axes that it depends on are reduced.
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
        """Tie the operands of an elementwise operation and return the factors of its result."""
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
        """Add a factor to others; those that share an axis with it are tied to it and replaced."""
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
            labelled: labels of the operand.
            change: operation to apply to the factors.
            cuts: whether the operation may leave elements out; the remaining channels are then
                recorded by :meth:`use`.

        Returns:
            Factors of each result of the operation.

        Raises:
            Unmatchable: the operation merges two axes that both hold channels.
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
