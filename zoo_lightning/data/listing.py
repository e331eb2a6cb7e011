"""Which files below a folder are images: the same for training, testing and predicting."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from zoo_lightning.data.image_files import decoded_kinds, opened
from zoo_lightning.errors import DataError

HEIF = (".heic", ".heif", ".hif")
"""Suffixes of photographs as telephones take them, which Pillow alone does not open."""

QUIET = ("thumbs.db", "desktop.ini", "icon\r")
"""Files that systems put beside pictures; nobody misses them."""


class Listing(NamedTuple):
    """What lies below a folder.

    Attributes:
        images: files that are read, sorted by folder and name.
        others: of files that are not, their number by suffix; an empty one where there is none.
    """

    images: list[Path]
    others: Counter[str]


def list_images(folder: Path) -> Listing:
    """Image files in a folder and the folders in it.

    A file is an image by its suffix, if Pillow opens that kind, and without a suffix by what it
    holds. Hidden files and folders and those of systems are left out. Links are followed; a folder
    that several of them lead to counts once.

    Args:
        folder: to look into.

    Raises:
        DataError: a link leads back to a folder that it lies in.
    """
    images: list[Path] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not is_hidden(name)]
        for name in folders:
            target = os.path.realpath(os.path.join(place, name))
            if Path(real).is_relative_to(target):
                raise DataError(
                    f"The link {Path(place, name)} leads back to {target}, which it lies in; "
                    "remove the link."
                )
        for path in (Path(place, name) for name in files if not is_hidden(name)):
            if is_image(path):
                images.append(path)
            elif path.name.lower() not in QUIET:
                others[path.suffix.lower()] += 1
    return Listing(sorted(images, key=lambda path: (str(path.parent), path.name)), others)


def is_image(path: Path) -> bool:
    """Whether a file is an image by its suffix or, without one, by what it holds."""
    if path.suffix:
        return path.suffix.lower() in image_suffixes()
    try:
        with opened(path):
            return True
    except Exception:  # decoders raise whatever a file leads them to
        return False


@cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the kinds of images that are decoded, with their dots, in small letters."""
    kinds = {*decoded_kinds(), "MPO"}  # which is opened as a JPEG, of several pictures
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in kinds)


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's own, such as macOS's ``._1.jpg``."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir", "$RECYCLE.BIN")


def left_out(others: Iterable[Counter[str]]) -> str:
    """A line that counts the files that are no images, by suffix; empty if there are none.

    Args:
        others: as listings have them.
    """
    total: Counter[str] = sum(others, Counter())
    if not total:
        return ""
    words = []
    for suffix, count in sorted(total.items(), key=lambda item: (-item[1], item[0])):
        name = suffix or "without a suffix"
        hint = " (read with pip install pillow-heif)" if suffix in HEIF else ""
        words.append(f"{count} {name}{hint}")
    return f"{sum(total.values())} files are left out, which are no images: {', '.join(words)}"
