"""Atomic writes: readers never see an incomplete file, even if the writing process is killed."""

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
"""How to fix a failed write, by the system's error number."""

PART = re.compile(r"\..+\.[0-9a-f]{32}\.part")
"""Pattern of the names of files and folders while they are written."""


def storage_error(error: OSError, path: Path | None = None) -> StorageError | None:
    """Convert a failed write to a :class:`~zoo_lightning.errors.StorageError` with a fix.

    Args:
        error: error that the system raised.
        path: file that was to be written; ``None`` takes the file that the error names.

    Returns:
        The error to raise; ``None`` if the system's error is not a failed write.
    """
    if error.errno not in NOT_TAKEN:
        return None
    name = path or error.filename
    what = "a file" if name is None else str(name)
    return StorageError(
        f"cannot write {what}: {error.strerror}. What was there before is still there; "
        f"{NOT_TAKEN[error.errno]}"
    )


def copy_file(path: Path, copy: Path) -> None:
    """Copy a file atomically, with the folders above it.

    Args:
        path: file to copy.
        copy: file to write.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(copy) as part:
        shutil.copyfile(path, part)


def remove_parts(folder: Path) -> None:
    """Remove incomplete files that killed processes have left in a folder.

    For folders that only one process writes to at a time.

    Args:
        folder: folder to clean; need not exist.
    """
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if PART.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Write a file atomically: under a temporary name, then renamed once it is on the disk.

    If writing fails or the process dies, an earlier file of that name stays as it was.

    Args:
        path: final path; its folder is created if absent.

    Yields:
        The temporary path to write to, in the same folder, because a rename is atomic only within
        one file system. It is removed afterwards.

    Raises:
        StorageError: the disk or the folder cannot be written to.
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
    """Flush a folder's new file names to the disk, on systems that can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def atomic_folder(path: Path, names: Collection[str] = ()) -> Iterator[Path]:
    """Write a folder atomically: its files go to a temporary folder and move when all are complete.

    If writing fails or the process dies, earlier files stay as they were. Other files of an
    existing folder are left alone.

    Args:
        path: final folder; parent folders are created if absent.
        names: names of files that belong together; those of them that are not written are removed
            from an existing folder.

    Yields:
        The temporary folder to write to, beside the final one. It is removed afterwards.

    Raises:
        ConfigError: the disk or the folder cannot be written to.
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
