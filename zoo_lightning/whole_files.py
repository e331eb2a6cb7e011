"""Files that a reader finds whole or not at all, whatever stops the writer."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from zoo_lightning.errors import ConfigError, StorageError

NOT_TAKEN = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EFBIG: "have the limit on the size of files raised (ulimit -f)",
    errno.EROFS: "give another folder, or mount this one to be written to",
    errno.EACCES: "give another folder, or the right to write into this one",
    errno.EPERM: "give another folder, or the right to write into this one",
    errno.EIO: "the disk or the network is failing: give another folder",
}
"""What to do about a system that does not take a file, by its error number."""

PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")
"""Names of files and folders that are being written."""


def storage_error(error: OSError, path: Path | None = None) -> StorageError | None:
    """An error of the disk as one of ours, which says what to do; ``None`` if it is another.

    Args:
        error: the system's.
        path: of the file that was to be written; ``None`` takes what the error names.
    """
    if error.errno not in NOT_TAKEN:
        return None
    name = path or error.filename
    what = "a file" if name is None else str(name)
    return StorageError(
        f"cannot write {what}: {error.strerror}. What was there before is still there; "
        f"{NOT_TAKEN[error.errno]}"
    )


def remove_parts(folder: Path) -> None:
    """Remove what processes that were killed had begun to write into a folder.

    Only for folders that one process writes into at a time.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if PART.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Write a file under another name, and give it its own only when it is complete and on disk.

    Should the writing fail, or the process die, the file that was there before is still there.

    Args:
        path: the file's own name; its folder is made if it is absent.

    Yields:
        The path to write to, in the same folder, because a file changes its name at once only
        within one file system. It is gone afterwards.

    Raises:
        StorageError: the disk or the folder does not take it.
    """
    part = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        # Names may reach the disk before contents: after a power cut the file would be empty.
        with part.open("rb+") as stream:
            os.fsync(stream.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        # What could not be read meanwhile is another matter.
        written = error.filename is None or Path(error.filename) in (part, path, *path.parents)
        ours = storage_error(error, path) if written else None
        if ours is None:
            raise
        raise ours from error
    finally:
        with suppress(OSError):  # in a folder that takes nothing it does not exist
            part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring a new name to the disk, on systems that do so for folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def whole_folder(path: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Write a folder's files under another name, and give them their own when all are complete.

    Should the writing fail, or the process die, what was there before is still there. Other files
    of a folder that exists are left alone.

    Args:
        path: the folder's own name; those above it are made if they are absent.
        names: of files that belong together: those that are not written anew are removed.

    Yields:
        The folder to write to, beside the final one. It is gone afterwards.

    Raises:
        ConfigError: the disk does not take it.
    """
    named = path.resolve()  # the present folder, too, has a name
    part = named.with_name(f".{named.name}.{uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        yield part
        files = [file for file in part.iterdir() if file.is_file()]
        for file in files:
            with file.open("rb+") as stream:
                os.fsync(stream.fileno())
        if not path.exists():
            part.rename(path)
            return
        for file in files:
            os.replace(file, path / file.name)
        for name in set(names) - {file.name for file in files}:
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error}; what was there is still there") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
