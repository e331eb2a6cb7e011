"""Locks on the folders of trials.

The system frees a lock when the last process that holds it is gone. A trial's own process gets it
handed down, so that a training that outlives its killed sweep still has its folder to itself.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from zoo_lightning.errors import ConfigError

LOCK = "lock"


class Claim:
    """A lock that is held.

    Args:
        descriptor: of the open file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._held = True

    def release(self) -> None:
        """Let go of it; processes that it was handed down to keep it."""
        if self._held:
            self._held = False
            os.close(self.descriptor)


def claim(folder: Path) -> Claim | None:
    """Lock a folder, which is made if it is absent.

    Returns:
        The lock, or ``None`` if somebody else has it.

    Raises:
        ConfigError: a system without such locks.
    """
    try:
        import fcntl
    except ImportError as error:
        raise ConfigError(f"sweeps run here on POSIX systems only ({error})") from error
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return Claim(descriptor)


def claim_soon(folder: Path, seconds: float = 1.0) -> Claim | None:
    """Lock a folder that somebody else may be asking about just now, see :func:`is_free`."""
    end = time.monotonic() + seconds
    while (found := claim(folder)) is None and time.monotonic() < end:
        time.sleep(0.05)
    return found


def is_free(folder: Path) -> bool:
    """Whether nobody has a folder."""
    found = claim(folder)
    if found is not None:
        found.release()
    return found is not None
