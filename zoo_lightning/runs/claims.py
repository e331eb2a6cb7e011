"""Which process works on a run that several commands may share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process may work on a run: no other does.

    The lock is the system's, so that it is free again when the process dies in whatever way.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f"{folder.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_first_rank() -> bool:
    """Whether this process claims the run and writes its files; further ranks work with it."""
    return os.environ.get("LOCAL_RANK", "0") == "0"
