"""Files that a reader finds whole or not at all, whatever stops the writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from zoo_lightning.errors import ConfigError


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
