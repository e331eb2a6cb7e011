"""Read all bands of an image file, with the names and the nodata value that the file states.

TIFF is read by tifffile, NPY by NumPy without pickles, and all else by Pillow. Values keep the
file's own type; what is done with them is in :mod:`zoo_lightning.data.bands`.
"""

from __future__ import annotations

import math
import os
import re
import stat
from contextlib import ExitStack
from html import unescape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from zoo_lightning.data.image_files import opened
from zoo_lightning.data.images import turned, unreadable
from zoo_lightning.data.stored_images import ImageFile
from zoo_lightning.data.values import has_deep_colours
from zoo_lightning.errors import DataError
from zoo_lightning.sources.stems import COLOURS, GREY

TIFF = (".tif", ".tiff")
NPY = ".npy"

ALPHA = "alpha"
"""Name of the band of opacity."""

DESCRIPTION = re.compile(
    r"<Item(?=[^>]*\bname=\"DESCRIPTION\")(?=[^>]*\bsample=\"(\d+)\")[^>]*>([^<]*)</Item>"
)
"""Name of a band in the metadata that GDAL writes into a TIFF."""


class BandFile(NamedTuple):
    """All bands of an image file.

    Attributes:
        pixels: values ``(C, H, W)`` of the file's own type.
        names: names of the bands that the file states; empty if it states none.
        nodata: value that stands for no measurement by the file's own word, or ``None``.
    """

    pixels: np.ndarray
    names: tuple[str, ...] = ()
    nodata: float | None = None


def read_bands(path: ImageFile) -> BandFile:
    """Read an image file of any number of bands.

    Args:
        path: TIFF, NPY ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``, of which the shorter of the
            first and last axis has the bands, or anything that Pillow opens.

    Raises:
        DataError: the file is absent, damaged, compressed in a way that no installed library reads,
            has values that are no integers or floating-point numbers, or its axes are no bands.
    """
    try:
        if isinstance(path, Path) and not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError("it is no regular file")  # reading a pipe would block
        suffix = path.suffix.lower()
        read = _read_tiff if suffix in TIFF else _read_npy if suffix == NPY else _read_picture
        found = read(path)
    except DataError:
        raise
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise DataError(unreadable(path, error)) from error
    kind = found.pixels.dtype
    if kind.kind == "b":
        found = found._replace(pixels=found.pixels.astype(np.uint8) * 255)
    elif kind.kind not in "uif":
        raise DataError(
            f"The image {path} has values of type {kind}; expected integers or floating-point "
            "numbers. Convert it."
        )
    if not found.pixels.size:
        raise DataError(f"The image {path} has no pixels; replace it, or leave it out.")
    # Of the machine's own byte order, which PyTorch asks for.
    return found._replace(pixels=found.pixels.astype(kind.newbyteorder("="), copy=False))


def _read_tiff(path: ImageFile) -> BandFile:
    try:
        import tifffile
    except ImportError as error:
        raise DataError(
            f"The image {path} is a TIFF, whose bands are read by tifffile: pip install "
            "'zoo-lightning[bands]'."
        ) from error
    with ExitStack() as stack:
        stored = path if isinstance(path, Path) else stack.enter_context(path.open("rb"))
        file = stack.enter_context(tifffile.TiffFile(stored))
        series: Any = file.series[0]
        page = series.keyframe
        # Others may be reduced copies of the first, or thumbnails.
        if any(math.prod(each.shape) >= math.prod(series.shape) for each in file.series[1:]):
            raise DataError(
                f"The image {path} has {len(file.series)} separate images, {series.shape} and "
                f"{file.series[1].shape}; write its bands as one image, of pages or planes of one "
                "size."
            )
        axes, shape = str(series.axes), tuple(series.shape)
        _check_area(path, shape)
        try:
            pixels = series.asarray()
        except (ImportError, ValueError) as error:  # without imagecodecs there is zlib alone
            if isinstance(error, ValueError) and "imagecodecs" not in str(error):
                raise
            kind = getattr(page.compression, "name", page.compression)
            raise DataError(
                f"The image {path} has the compression {kind}, which needs imagecodecs: pip "
                "install imagecodecs."
            ) from error
        names = _tiff_names(file, page)
        text = page.tags.get("GDAL_NODATA")
        nodata = None if text is None else _number(str(text.value))
    if pixels.shape != shape or not {"Y", "X"} <= {*axes}:
        raise DataError(f"The image {path} has axes {axes} of {shape}; expected bands of an image.")
    others = [i for i, axis in enumerate(axes) if axis not in "YX" and shape[i] != 1]
    if len(others) > 1:
        raise DataError(
            f"The image {path} has axes {axes} of {shape}, several besides height and width; "
            "write one image with one axis of bands."
        )
    if len(shape) == 2:
        pixels = pixels[None]
    else:
        bands = others[0] if others else next(i for i, axis in enumerate(axes) if axis not in "YX")
        height, width = axes.index("Y"), axes.index("X")
        rest = [i for i in range(len(shape)) if i not in (bands, height, width)]
        pixels = pixels.transpose(*rest, bands, height, width)
        pixels = pixels.reshape(pixels.shape[-3:])
        if axes[bands] in "QI":  # an array that was saved without a word on its axes
            pixels = bands_first(pixels)
    if len(names) not in (0, len(pixels)):
        names = ()
    names = names or _picture_names(page, len(pixels))
    return BandFile(np.ascontiguousarray(pixels), names, nodata)


def _tiff_names(file: Any, page: Any) -> tuple[str, ...]:
    """Names of the bands in metadata of GDAL or ImageJ; empty if there are none."""
    tag = page.tags.get("GDAL_METADATA")
    if tag is not None:
        found = {int(n): unescape(name).strip() for n, name in DESCRIPTION.findall(str(tag.value))}
        return (
            tuple(found[n] for n in sorted(found)) if [*range(len(found))] == sorted(found) else ()
        )
    labels = (file.imagej_metadata or {}).get("Labels") if file.is_imagej else None
    return tuple(str(label).strip() for label in labels) if isinstance(labels, list) else ()


def _picture_names(page: Any, count: int) -> tuple[str, ...]:
    """Names of the bands of a TIFF that is a usual picture by its own word."""
    kind = getattr(page.photometric, "name", "")
    if kind == "RGB" and count == 3:
        return COLOURS
    if kind == "RGB" and count == 4 and any("ALPHA" in each.name for each in page.extrasamples):
        return (*COLOURS, ALPHA)
    return (GREY,) if count == 1 and not page.is_gdal else ()


def _number(text: str) -> float | None:
    try:
        return float(text.strip("\0 "))
    except ValueError:
        return None


def _check_area(path: ImageFile, shape: tuple[int, ...]) -> None:
    """Refuse a file whose header asks for more memory than any image is allowed."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and math.prod(shape) > 8 * limit:
        raise DataError(
            f"The image {path} has {math.prod(shape):,} values by its header; expected at most "
            f"{8 * limit:,}. Cut it into smaller ones, or leave it out."
        )


def _read_npy(path: ImageFile) -> BandFile:
    if not isinstance(path, Path):
        raise DataError(f"The image {path} is an NPY inside a larger file; unpack it to a file.")
    # A map of the file first: its header cannot ask for more memory than the file has bytes.
    pixels = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    if pixels.ndim == 2:
        return BandFile(pixels[None])
    if pixels.ndim != 3:
        raise DataError(
            f"The image {path} has the shape {pixels.shape}; expected (H, W), (C, H, W) or "
            "(H, W, C)."
        )
    return BandFile(np.ascontiguousarray(bands_first(pixels)))


def bands_first(pixels: np.ndarray) -> np.ndarray:
    """Move the bands to the front: the shorter of the first and last axis, the first of equals."""
    return pixels.transpose(2, 0, 1) if pixels.shape[2] < pixels.shape[0] else pixels


def _read_picture(path: ImageFile) -> BandFile:
    with opened(path) as image:
        if has_deep_colours(path):
            raise DataError(
                f"The image {path} is a colour PNG of 16 bits, of which Pillow reads the upper 8; "
                "write it as TIFF or NPY."
            )
        image.load()
        image = turned(image)
        if image.mode == "P":
            image = image.convert("RGBA" if "transparency" in image.info else "RGB")
        elif image.mode == "1":
            image = image.convert("L")
        elif image.mode in ("CMYK", "YCbCr", "LAB", "HSV", "RGBX", "PA", "RGBa", "La"):
            image = image.convert({"PA": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(image.mode, "RGB"))
        pixels = np.asarray(image)
    names = {"L": (GREY,), "LA": (GREY, ALPHA), "RGB": COLOURS, "RGBA": (*COLOURS, ALPHA)}
    stated = names.get(image.mode, (GREY,))
    return BandFile(np.ascontiguousarray(np.atleast_3d(pixels).transpose(2, 0, 1)), stated)
