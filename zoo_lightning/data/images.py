"""Open, check, crop and cache images as square uint8 arrays.

Each image is padded with black to a centred square, or the square around a face is cut out of it,
black where that leaves the image; then it is resized, so that no face is distorted. Coordinates are
continuous, the origin is the top left corner of the top left pixel.
"""

from __future__ import annotations

import math
import os
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image, ImageOps

from zoo_lightning.data.image_files import map_in_threads, on_disk, opened, shrink_for_canvas
from zoo_lightning.data.image_list import ImageList
from zoo_lightning.data.stored_images import ImageFile
from zoo_lightning.data.values import ValueRange, is_deep, to_grey
from zoo_lightning.errors import DataError, nearest
from zoo_lightning.files.text import encoding_hint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ORIENTATION = 0x0112
"""EXIF tag of the orientation: 1 is upright, 2 to 8 are rotations and reflections."""

T = TypeVar("T")


def open_rgb(
    path: ImageFile, upright: bool = False, values: ValueRange | None = None
) -> Image.Image:
    """Decode an image file to RGB.

    Images with more than 8 bits or floating-point values are scaled to 8 bits; transparent pixels
    are composited on white.

    Args:
        path: image file.
        upright: whether to apply the EXIF orientation. Landmark files count the stored pixels.
        values: pixel values of black and white in images with more than 8 bits; ``None`` estimates
            them from this image alone. Ignored for 16-bit colour images, which Pillow reads as
            8-bit.

    Raises:
        DataError: if the file is absent or is no readable image.
    """
    try:
        with opened(path) as image:
            image.load()
            return to_rgb(turned(image) if upright else image, values)
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise DataError(unreadable(path, error)) from error


def to_rgb(image: Image.Image, values: ValueRange | None = None) -> Image.Image:
    """Convert a decoded image of any mode to RGB; see ``open_rgb``."""
    if is_deep(image.mode):  # RGB would clip 16 bit to its lowest 256 values
        return to_grey(image, values).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        # Colours below full transparency are arbitrary, often black.
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def turned(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; an image with damaged EXIF stays as it is stored."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # of the header alone: the pixels are decoded already
        return image


def isturned(image: Image.Image) -> bool:
    """Whether EXIF asks for a rotation or reflection, judged by the header alone."""
    try:
        return "exif" in image.info and image.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # as in turned
        return False


def unreadable(path: ImageFile, error: Exception) -> str:
    """Error message that states why a file cannot be used as an image."""
    if isinstance(error, FileNotFoundError):
        return f"The image {path} does not exist."
    reason = str(error) or type(error).__name__  # of MemoryError there is no more
    return f"The image {path} cannot be read ({reason}); replace it, or leave it out."


def escapes(name: str) -> bool:
    """Whether an image's name leads out of the folder it is relative to, on any system."""
    if ".." not in name and ":" not in name and not name.startswith(("/", "\\")):
        return False  # nearly all names, in a tenth of the time
    path = PureWindowsPath(name)  # understands both kinds of slashes
    return bool(path.drive or path.root) or ".." in path.parts


def square_transform(size: tuple[int, int], side: int) -> np.ndarray:
    """Affine map of points that corresponds to :func:`fit_square`.

    Args:
        size: width and height of the original image, pixels.
        side: side of the square, pixels.

    Returns:
        ``(2, 3)`` float64, original pixels to pixels of the square.
    """
    longer = max(size)
    left, top = ((longer - length) // 2 for length in size)
    scale = side / longer
    return np.array([[scale, 0, scale * left], [0, scale, scale * top]])


def fit_square(image: Image.Image, side: int) -> Image.Image:
    """Pad an image with black to a centred square and resize it.

    Points are mapped by ``square_transform``.

    Args:
        image: RGB of any size.
        side: side of the result, pixels.
    """
    image, _ = shrink_for_canvas(image, max(image.size))
    longer = max(image.size)
    if image.size != (longer, longer):
        padded = Image.new("RGB", (longer, longer))
        left, top = ((longer - length) // 2 for length in image.size)
        padded.paste(image, (left, top))
        image = padded
    # Pillow widens the filter when it shrinks an image: no aliasing.
    return image.resize((side, side), Image.Resampling.BILINEAR)


def region_transform(region: np.ndarray, side: int) -> np.ndarray:
    """Affine map of points that corresponds to :func:`crop_region`.

    Args:
        region: centre x, centre y and side of a square, original pixels.
        side: side of the result, pixels.

    Returns:
        ``(2, 3)`` float64, original pixels to pixels of the result.
    """
    x, y, length = (float(number) for number in region)
    scale = side / length
    return np.array([[scale, 0, side / 2 - scale * x], [0, scale, side / 2 - scale * y]])


def crop_region(image: Image.Image, region: np.ndarray, side: int) -> Image.Image:
    """Cut a square out of an image and resize it.

    Points are mapped by ``region_transform``.

    Args:
        image: RGB of any size; black outside.
        region: centre x, centre y and side of the square, pixels, not necessarily whole numbers.
        side: side of the result, pixels.
    """
    x, y, length = (float(number) for number in region)
    image, factor = shrink_for_canvas(image, length)
    x, y, length = x * factor, y * factor, length * factor
    # Whole pixels around the square, and as many more as the resizing filter reaches beyond it.
    reach = math.ceil(max(length / side, 1)) + 1
    left, top = (math.floor(centre - length / 2) - reach for centre in (x, y))
    frame = math.ceil(length) + 1 + 2 * reach
    cut = image.crop((left, top, left + frame, top + frame))
    start_x, start_y = x - length / 2 - left, y - length / 2 - top
    box = (start_x, start_y, start_x + length, start_y + length)
    return cut.resize((side, side), Image.Resampling.BILINEAR, box)


def inverse_affine(affine: np.ndarray) -> np.ndarray:
    """Inverse of a ``(2, 3)`` affine map, ``(2, 3)``."""
    linear = np.linalg.inv(affine[:, :2])
    return np.concatenate([linear, -linear @ affine[:, 2:]], axis=1)


def transform_points(points: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Apply a ``(2, 3)`` affine map to points ``(..., 2)``."""
    return points @ affine[:, :2].T + affine[:, 2]


def image_size(path: ImageFile) -> tuple[int, int]:
    """Read width and height from a file's header, checking the file as far as that is quick.

    Raises:
        DataError: if the file is absent or is no image.
    """
    return image_header(path)[0]


def image_header(path: ImageFile) -> tuple[tuple[int, int], bool]:
    """Read width and height as :func:`image_size` does, and whether EXIF turns the image."""
    try:
        with opened(path) as image:
            header = image.size, isturned(image)
            image.verify()
    except Exception as error:  # as in open_rgb
        raise DataError(unreadable(path, error)) from error
    return header


LARGEST_REGION = 16
"""Largest side of a square, in longer sides of its image; a larger one is taken for a mistake."""


MOST_KEPT = 40_000
"""Largest number of images to decode before the first step: about a minute's work."""


def region_fits(region: np.ndarray, size: tuple[int, int]) -> bool:
    """Whether a square overlaps its image and is not implausibly large.

    Args:
        region: centre x, centre y and side, pixels.
        size: width and height of the image, pixels.
    """
    x, y, length = region.tolist()
    inside = all(
        -length / 2 < centre < longest + length / 2
        for centre, longest in zip((x, y), size, strict=True)
    )
    return inside and 1 <= length <= LARGEST_REGION * max(size)


class SquareImages:
    """Square images, decoded once and cached if all fit into memory, otherwise decoded on demand.

    All are checked on construction: decoded if they are cached, else by their headers. The cache is
    shared by all loader processes, see :class:`~zoo_lightning.data.image_list.ImageList`.

    Args:
        sources: image files, or images ``(H, W)`` or ``(H, W, 3)`` uint8.
        side: side of the squares, pixels.
        cache_mb: memory limit of the cache, megabytes; no image is cached if all together exceed
            it. More than ``MOST_KEPT`` images are never cached.
        enlarge: whether images smaller than ``side`` are enlarged to it or keep their own side.
        regions: ``(N, 3)`` centre x, centre y and side of the square to cut out of each image,
            original pixels; ``None`` pads whole images to squares.
        values: pixel values of black and white in images with more than 8 bits, see
            :func:`open_rgb`.

    Raises:
        DataError: naming the files that are absent or unreadable, or whose square lies outside.
    """

    def __init__(
        self,
        sources: Sequence[Path | np.ndarray],
        side: int,
        cache_mb: float,
        enlarge: bool = True,
        regions: np.ndarray | None = None,
        values: ValueRange | None = None,
    ) -> None:
        self.sources = ImageList(sources)
        self.side = side
        self.enlarge = enlarge
        self.regions = regions
        self.values = values
        self.kept: ImageList | None = None
        self.sizes: list[tuple[int, int]]
        """Original width and height of each image, pixels."""
        self.turned: int
        """Number of images whose EXIF orientation viewers apply, but which are used as stored."""
        indices = range(len(self.sources))
        fits = len(self.sources) * side * side * 3 <= cache_mb * 2**20
        if fits and len(self.sources) <= MOST_KEPT:
            decoded = _for_each(self._decode, indices)
            self.kept = ImageList(square for square, _, _ in decoded)
            headers = [header for _, *header in decoded]
        else:
            headers = _for_each(self._check, indices)
        self.sizes = [size for size, _ in headers]
        self.turned = sum(turned for _, turned in headers)

    def _decode(self, index: int) -> tuple[np.ndarray, tuple[int, int], bool]:
        source = self.sources[index]
        if isinstance(source, np.ndarray):
            image = Image.fromarray(source).convert("RGB")
        else:
            image = open_rgb(source, values=self.values)
        side = self._side(index, image.size)
        if self.regions is None:
            return np.asarray(fit_square(image, side)), image.size, isturned(image)
        self._check_region(index, self.regions[index], image.size)
        square = crop_region(image, self.regions[index], side)
        return np.asarray(square), image.size, isturned(image)

    def _check(self, index: int) -> tuple[tuple[int, int], bool]:
        source = self.sources[index]
        array = isinstance(source, np.ndarray)
        size, turned = (source.shape[1::-1], False) if array else image_header(source)
        if self.regions is not None:
            self._check_region(index, self.regions[index], size)
        return size, turned

    def _check_region(self, index: int, region: np.ndarray, size: tuple[int, int]) -> None:
        if not region_fits(region, size):
            x, y, length = region.tolist()
            source = self.sources[index]
            name = f"number {index + 1}" if isinstance(source, np.ndarray) else str(source)
            raise DataError(
                f"The face's square of {length:.1f} pixels around ({x:.1f}, {y:.1f}) does not fit "
                f"the image {name} of {size[0]}x{size[1]} pixels; correct the face's box or scale, "
                "or set `box` to points or image."
            )

    def _side(self, index: int, size: tuple[int, int]) -> int:
        if self.enlarge:
            return self.side
        longer = max(size) if self.regions is None else math.ceil(self.regions[index, 2])
        return min(self.side, max(longer, 1))

    def transform(self, index: int) -> np.ndarray:
        """Affine map ``(2, 3)`` from an image's original pixels to its square's pixels."""
        size = self.sizes[index]
        side = self._side(index, size)
        if self.regions is None:
            return square_transform(size, side)
        return region_transform(self.regions[index], side)

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> np.ndarray:
        """Square of an image, ``(side, side, 3)`` uint8, which must not be modified."""
        return self._decode(index)[0] if self.kept is None else self.kept[index]


def _for_each(read: Callable[[T], object], items: Sequence[T]) -> list:
    """Read images in parallel; one error names the first of all that cannot be read."""

    def attempt(item: T) -> object:
        try:
            return read(item)
        except DataError as error:
            return error

    results = map_in_threads(attempt, items)
    errors = [result for result in results if isinstance(result, DataError)]
    if errors:
        more = f" {len(errors) - 1} more images cannot be used." if len(errors) > 1 else ""
        raise DataError(f"{errors[0]}{more}")
    return results


def check_present(names: Sequence[str], folder: Path, table: Path) -> None:
    """Check that every image of a landmark file exists.

    Args:
        names: image names relative to the folder.
        folder: image folder.
        table: the landmark file, for the message.

    Raises:
        DataError: naming the first absent image and the number of absent ones.
    """
    if not folder.is_dir():
        raise DataError(
            f"The image folder {folder} does not exist, but {table} lists {len(names)} images; "
            "set `images` to the folder's name inside `root`."
        )
    # Unlike Path.is_file, this is no error for a name that is too long for the file system.
    absent = [name for name in dict.fromkeys(names) if not os.path.isfile(on_disk(folder, name))]
    if absent:
        present = [path.name for path in folder.iterdir()]
        raise DataError(
            f"{table} lists {absent[0]!r}, which is not in {folder} ({len(absent)} of "
            f"{len(names)} images are absent).{nearest(absent[0], present[:5000])}"
            f"{encoding_hint(absent[0])} Add the images or remove their lines."
        )


def check_images(paths: Sequence[Path]) -> None:
    """Check the headers of image files, in parallel.

    Raises:
        DataError: naming the first file that is absent or no image, and how many there are.
    """
    _for_each(image_size, paths)
