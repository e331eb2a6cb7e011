"""Multiply-adds of a computation, counted from the operations that torch runs.

Counted is what :class:`torch.utils.flop_counter.FlopCounterMode` counts: convolutions, matrix
products and attention, forward and backward. Elementwise operations, norm layers and optimizers are
left out, as in most published figures. One multiply-add is two of torch's floating-point
operations.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from zoo_lightning.nn.random_numbers import private_random_numbers


@dataclass
class Count:
    """Result of :func:`counting`.

    Attributes:
        multiply_adds: number of multiply-adds; 0 until the block has ended.
    """

    multiply_adds: int = 0


class _Counter:
    """A counter that can be stopped for a while: torch's forgets its count when it starts."""

    def __init__(self) -> None:
        self.multiply_adds = 0
        self._mode = FlopCounterMode(display=False)

    def start(self) -> None:
        self._mode.__enter__()

    def stop(self) -> None:
        self._mode.__exit__(None, None, None)
        self.multiply_adds += self._mode.get_total_flops() // 2


_counters: list[_Counter] = []
"""Running counters, the outermost first; their blocks are nested, as torch's modes are."""


@contextmanager
def counting() -> Iterator[Count]:
    """Count the multiply-adds of all operations inside the block, backward passes included.

    Yields:
        The count, whose value is set at the end of the block.
    """
    found, counter = Count(), _Counter()
    _counters.append(counter)
    counter.start()
    try:
        yield found
    finally:
        counter.stop()
        _counters.remove(counter)
        found.multiply_adds = counter.multiply_adds


@contextmanager
def known_multiply_adds() -> Iterator[Count]:
    """Let the block say what it costs, where watching each of many small operations would be slow.

    Counting adds about 20 µs to every operation, a multiple of what an operation on a few numbers
    takes.

    Yields:
        The count, which the block sets; the counts of all surrounding :func:`counting` blocks grow
        by it, and by nothing else.
    """
    known = Count()
    for each in reversed(_counters):
        each.stop()
    try:
        yield known
    finally:
        for each in _counters:
            each.multiply_adds += known.multiply_adds
            each.start()


def step_multiply_adds(network: nn.Module, shape: Sequence[int]) -> int:
    """Count the multiply-adds of one training step: forward and backward pass of one batch.

    The step is run on a copy, on a GPU if there is one, since the way in which an aggregated layer
    computes depends on the batch; the network and the CPU's random number generator are unchanged.

    Args:
        network: network that maps images ``(B, C, H, W)`` to one tensor.
        shape: shape ``(B, C, H, W)`` of the batch.

    Returns:
        Number of multiply-adds.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with private_random_numbers(), torch.enable_grad():
        trained = copy.deepcopy(network).to(device).train()
        images = torch.rand(*shape, device=device)
        if any(getattr(each, "plan", None) == "benchmark" for each in trained.modules()):
            trained(images).float().mean().backward()  # layers try all ways in the first pass
        with counting() as found:
            trained(images).float().square().mean().backward()
    return found.multiply_adds
