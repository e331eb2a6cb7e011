"""Output that nobody takes any more."""

from __future__ import annotations

import os
from collections.abc import Iterable


def silence(descriptors: Iterable[int]) -> None:
    """Let what is written to some file descriptors go nowhere from now on."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in descriptors:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)
