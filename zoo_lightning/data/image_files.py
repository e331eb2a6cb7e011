"""Find image files in folders, compare their names, and open files of unknown origin safely.

Only decoders that do nothing but decode are used. Pillow refuses images of more than twice
``PIL.Image.MAX_IMAGE_PIXELS`` pixels, 179 million, which may be decompression bombs; raise that
number to open larger ones.
"""

from __future__ import annotations

import math
import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple, TypeVar

from PIL import Image

from zoo_lightning.data.stored_images import ImageFile, StoredImage
from zoo_lightning.errors import DataError


def one_form(name: str) -> str:
    """Normalise a name to Unicode's composed form (NFC), in which names are compared."""
    return unicodedata.normalize("NFC", name)


def on_disk(folder: Path, name: str) -> Path:
    """Find a file or folder under a name whose Unicode form may differ from the disk's.

    Args:
        folder: folder that the name is relative to.
        name: relative path with forward slashes, each part composed (NFC) or decomposed (NFD).

    Returns:
        The path found, or the path as named if there is none.
    """
    path = folder / name
    if name.isascii() or os.path.exists(path):
        return path
    found = folder
    for part in PurePosixPath(name).parts:
        forms = (part, one_form(part), unicodedata.normalize("NFD", part))
        there = next((each for each in forms if os.path.exists(found / each)), None)
        if there is None:
            return path
        found /= there
    return found


T = TypeVar("T")
R = TypeVar("R")

REFUSED = ("EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG")
"""Formats that are not decoded: EPS is a program, which Ghostscript would run; Windows
itself draws WMF; of the others Pillow knows no more than their headers."""

LARGEST_CANVAS = 64_000_000
"""Pixels of a square that an image or a part of it may be put on: 192 megabytes."""


@cache
def decoded_kinds() -> list[str]:
    """Pillow's names of the formats that are decoded, the usual ones first."""
    Image.init()
    with suppress(ImportError):  # photographs as telephones take them
        from pillow_heif import register_heif_opener

        register_heif_opener()
    usual = ("JPEG", "PNG")
    return [*usual, *(kind for kind in Image.ID if kind not in (*usual, *REFUSED))]


@contextmanager
def opened(path: ImageFile) -> Iterator[Image.Image]:
    """Open an image file, or one inside a larger file, by its content, whatever its suffix.

    Raises:
        OSError: the file is absent, not a regular file (reading a pipe would block) or not an
            image.
        Image.DecompressionBombError: the image has too many pixels.
    """
    if isinstance(path, StoredImage):
        with path.open("rb") as stream, Image.open(stream, formats=decoded_kinds()) as image:
            yield image
        return
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("it is no regular file")
    with Image.open(path, formats=decoded_kinds()) as image:
        yield image


def shrink_for_canvas(image: Image.Image, longer: float) -> tuple[Image.Image, float]:
    """Shrink an image whose square canvas would be too large for the memory.

    A narrow image of few bytes may be so long that the square around it would fill the memory.

    Args:
        image: image of any size.
        longer: side of the square canvas, pixels.

    Returns:
        The image, and the factor by which its sides were scaled; 1 if it is unchanged.
    """
    if longer**2 <= LARGEST_CANVAS:
        return image, 1.0
    factor = math.sqrt(LARGEST_CANVAS) / longer
    size = [max(1, round(length * factor)) for length in image.size]
    return image.resize(size, Image.Resampling.BILINEAR), factor


def map_in_threads(read: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Apply a function to items in several threads; results keep the items' order."""
    threads = min(8, os.cpu_count() or 1)
    # Pillow decodes without holding the interpreter's lock. Handing over single items would take
    # longer than to look at an image's header.
    share = max(min(len(items) // (4 * threads), 256), 1)
    parts = [items[start : start + share] for start in range(0, len(items), share)]
    with ThreadPoolExecutor(threads) as pool:
        return [
            each for part in pool.map(lambda part: list(map(read, part)), parts) for each in part
        ]


HEIF = (".heic", ".heif", ".hif")
"""Suffixes of photographs taken by phones, which Pillow alone does not open."""

QUIET = ("thumbs.db", "desktop.ini", "icon\r")
"""Files that operating systems put beside pictures; they are left out silently."""


class Listing(NamedTuple):
    """Files below a folder.

    Attributes:
        images: image files, sorted by folder and name.
        others: number of other files by lower-case suffix, ``''`` for files without one.
    """

    images: list[Path]
    others: Counter[str]


def list_images(folder: Path, also: Sequence[str] = ()) -> Listing:
    """List the image files below a folder.

    A file is recognised by its suffix, if Pillow opens that format, or by its content if it has
    none. Hidden files and folders and those of operating systems are skipped. Links are followed; a
    folder that several links lead to is listed once.

    Args:
        folder: folder to search.
        also: lower-case suffixes of further files that are images, such as ``.npy``.

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
            if is_image(path) or path.suffix.lower() in also:
                images.append(path)
            elif path.name.lower() not in QUIET:
                others[path.suffix.lower()] += 1
    return Listing(sorted(images, key=lambda path: (str(path.parent), path.name)), others)


def is_image(path: Path) -> bool:
    """Whether a file is an image, judged by its suffix or, without one, by its content."""
    if path.suffix:
        return path.suffix.lower() in image_suffixes()
    try:
        with opened(path):
            return True
    except Exception:  # decoders raise whatever a file leads them to
        return False


@cache
def image_suffixes() -> frozenset[str]:
    """Lower-case suffixes, with dots, of the image formats that are decoded."""
    kinds = {*decoded_kinds(), "MPO"}  # which is opened as a JPEG, of several pictures
    known = Image.registered_extensions()
    return frozenset(suffix for suffix, kind in known.items() if kind in kinds)


def is_hidden(name: str) -> bool:
    """Whether a name is hidden or an operating system's own, such as macOS's ``._1.jpg``."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir", "$RECYCLE.BIN")


def left_out(others: Iterable[Counter[str]]) -> str:
    """Format a line that counts non-image files by suffix; empty if there are none.

    Args:
        others: counts of non-image files by suffix, one for each listing.
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
