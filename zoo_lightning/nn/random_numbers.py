"""Random numbers of one's own for a while, without touching those of a training."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def private_random_numbers(seed: int | None = None, cpu_only: bool = False) -> Iterator[None]:
    """Restore the global random generators afterwards: the CPU's and the current GPU's.

    ``torch.manual_seed`` inside ``torch.random.fork_rng(devices=[])`` would not do: it seeds all
    GPUs for good, and one that is not in use yet as soon as it is.

    Args:
        seed: seed within the context; ``None`` continues with the numbers in turn.
        cpu_only: whether to leave GPUs alone because nothing in the context draws on them; saves
            time in the loading of single samples.
    """
    gpu = not cpu_only and torch.cuda.is_initialized()
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if gpu else []):
        if seed is not None:
            torch.default_generator.manual_seed(seed)
            if gpu:
                torch.cuda.manual_seed(seed)
        yield
