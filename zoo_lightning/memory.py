"""How much memory a training has taken."""

from __future__ import annotations

import sys

import torch


def peak_memory_mb() -> int | None:
    """Most memory that the process has taken: on the GPU if there is one, else of all kinds.

    ``None`` where the system does not say.
    """
    if torch.cuda.is_available():
        return round(torch.cuda.max_memory_allocated() / 2**20)
    try:
        import resource
    except ImportError:  # Windows
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(most / (2**20 if sys.platform == "darwin" else 2**10))
