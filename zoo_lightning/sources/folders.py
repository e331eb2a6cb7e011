"""Find what may be a source in a folder: weight files, runs, and folders as the hub has them.

Contents decide, not suffixes; nothing is read but the first bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.files import INDEX, weights_in
from zoo_lightning.sources.lora import is_adapter
from zoo_lightning.sources.own_runs import SUMMARY

MAGIC = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"\x89HDF\r\n\x1a\n")
"""First bytes of weight files: archives of ``torch.save`` and Keras, pickles, HDF5. Safetensors
begin with the length of their header, which is JSON."""

PART = re.compile(r"(.+)-\d{5}-of-\d{5}(\.[^.]+)")
"""Name of one of several files of a checkpoint, which has an index beside it."""


@dataclass(frozen=True)
class FolderContents:
    """What a folder contains.

    Attributes:
        weights: weight files, indices of several ones, and folders that are a source each, sorted.
        left_out: names of all else.
    """

    weights: list[Path]
    left_out: list[str]


def is_source_folder(folder: Path) -> bool:
    """Whether a folder is one source: a run, a repository of the hub, or an adapter."""
    return (folder / SUMMARY).is_file() or is_adapter(folder) or weights_in(folder) is not None


def weights_of_folder(folder: Path) -> FolderContents:
    """List what may be a source directly in a folder.

    Raises:
        SourceError: the folder cannot be listed, or nothing in it may be a source.
    """
    try:
        entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        raise SourceError(f"{folder} cannot be listed: {error}.") from error
    weights = [each for each in entries if _may_be_source(each)]
    if not weights:
        found = ", ".join(each.name for each in entries[:8]) or "nothing"
        raise SourceError(
            f"the folder {folder} has no weight files: found {found}. Give a folder with weight "
            "files, runs, or folders as the Hugging Face hub has them."
        )
    return FolderContents(weights, [each.name for each in entries if each not in weights])


def _may_be_source(path: Path) -> bool:
    """Whether a file's beginning is that of a weight file, or a folder is a source."""
    if path.is_dir():
        return is_source_folder(path)
    if path.name.endswith(INDEX):
        return True
    if not path.is_file():
        return False
    part = PART.fullmatch(path.name)
    if part and (path.parent / f"{part[1]}{part[2]}{INDEX}").is_file():
        return False
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError:
        return True  # reading it will say why
    return start.startswith(MAGIC) or start[8:10] in (b'{"', b"{ ", b"{}")
