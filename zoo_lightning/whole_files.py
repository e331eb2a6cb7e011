"""Files that a reader finds whole or not at all, whatever stops the writer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file under another name, and give it its own only when it is complete and on disk.

    Should the writing fail, or the process die, the file that was there before is still there.

    Args:
        path: the file's own name; its folder is made if it is absent.

    Yields:
        The path to write to, in the same folder, because a file changes its name at once only
        within one file system. It is gone afterwards.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        yield part
        # Names may reach the disk before contents: after a power cut the file would be empty.
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
