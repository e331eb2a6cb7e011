"""Files that a reader finds whole or not at all, whatever stops the writer."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
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
def whole_folder(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Write a folder under another name, and give it its own only when it is complete.

    Should the writing fail, or the process die, what was there before is still there.

    Args:
        path: the folder's own name; those above it are made if they are absent.
        overwrite: put it in the place of one that has files.

    Yields:
        The folder to write to, beside the final one. It is gone afterwards.

    Raises:
        ConfigError: the folder has files and is not to be overwritten, it is a file, or the disk
            does not take it.
    """
    try:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"{path} is a file; expected a folder to write to")
        if path.is_dir() and any(path.iterdir()) and not overwrite:
            raise ConfigError(
                f"the folder {path} is not empty; give another one, or --overwrite to replace it"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{uuid4().hex}.part")
        part.mkdir()
    except OSError as error:
        raise ConfigError(
            f"cannot write the folder {path}: {error}; nothing was written"
        ) from error
    old = path.with_name(f".{path.name}.{uuid4().hex}.old")
    try:
        yield part
        for file in part.rglob("*"):
            if file.is_file():
                with file.open("rb+") as stream:
                    os.fsync(stream.fileno())
        # A folder cannot be put in the place of one that has files: the old one steps aside.
        if path.exists():
            path.rename(old)
        part.rename(path)
    except OSError as error:
        if old.exists() and not path.exists():
            old.rename(path)
        raise ConfigError(
            f"cannot write the folder {path}: {error}; what was there before is still there"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
