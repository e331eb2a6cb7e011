"""Preparation of image files for a deployed model.

The entry ``preprocessing`` of a manifest's ``input`` describes it:

- ``kind: crop``: resize the shorter side to the input's, or with ``squeeze`` the whole image to a
  square of that side; then cut out the centre, or ``crops`` crops.
- ``kind: square``: pad the image to a square, or cut out the square ``around`` a ``face``, enlarged
  by the factor ``margin``; then resize it.

Images are turned as their EXIF data specify, and so are the coordinates of predictions.
"""

from __future__ import annotations

import csv
import glob
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from zoo_lightning.data.image_files import left_out, list_images, one_form
from zoo_lightning.data.images import (
    crop_region,
    fit_square,
    inverse_affine,
    open_rgb,
    region_fits,
    region_transform,
    square_transform,
    unreadable,
)
from zoo_lightning.data.landmarks.datasets import to_chw
from zoo_lightning.data.loading import SignalsToParent
from zoo_lightning.data.transforms import evaluation_transform
from zoo_lightning.data.values import parse_value_range
from zoo_lightning.deployment.manifest import reader_of
from zoo_lightning.errors import ConfigError, DataError, nearest
from zoo_lightning.files.text import ANNOTATIONS

Box = tuple[float, float, float, float]
"""Box of a face: left, top, right and bottom in pixels of the image."""


class Item(NamedTuple):
    """Image to predict for, or one face in it.

    Attributes:
        path: path of the image file.
        name: name of the image in the predictions.
        box: box of the face, in pixels; ``None`` for the whole image.
    """

    path: Path
    name: str
    box: Box | None = None


def find_images(
    given: Sequence[str],
    say: Callable[[str], object] = lambda line: None,
    also: Sequence[str] = (),
) -> list[Item]:
    """List image files in a stable order, each once and with a unique name.

    A single file, and the files of a single folder, are named relative to the folder; others by
    their paths.

    Args:
        given: files, folders (searched recursively, as in training) and glob patterns of both.
        say: function called with a message about files that are left out.
        also: suffixes of further files that are images, see ``list_images``.

    Raises:
        ConfigError: a file or folder does not exist, or there are no images.
        DataError: a link leads back to a folder above it.
    """
    found: dict[Path, str] = {}
    for each in given:
        path = Path(each)
        if path.is_dir():
            alone = len(given) == 1
            images = _images_in(path, say, also)
            named = {p: (p.relative_to(path) if alone else p).as_posix() for p in images}
        elif path.is_file():
            named = {path: path.name if len(given) == 1 else each}
        else:
            matches = [Path(p) for p in sorted(glob.glob(each, recursive=True))]
            named = {p: p.as_posix() for p in matches if p.is_file()}
            folders = {p for p in matches if p.is_dir()}
            for folder in sorted(p for p in folders if folders.isdisjoint(p.parents)):
                named |= {p: p.as_posix() for p in _images_in(folder, say, also)}
            if not named and not glob.has_magic(each):
                beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
                raise ConfigError(
                    f"--images {each}: there is no such file or folder.{nearest(path.name, beside)}"
                )
        if not named:
            raise ConfigError(
                f"--images {each}: there are no images; expected files such as .jpg and .png"
            )
        found |= {path: name for path, name in named.items() if path not in found}
    return [Item(path, name) for path, name in found.items()]


def _images_in(folder: Path, say: Callable[[str], object], also: Sequence[str]) -> list[Path]:
    """List the images in a folder, and report how many other files are left out."""
    listing = list_images(folder, also)
    if others := left_out([listing.others]):
        say(f"{folder}: {others}")
    return listing.images


def with_boxes(items: Sequence[Item], boxes: Path) -> list[Item]:
    """Read boxes of faces, and return one item for each face.

    Args:
        items: images to predict for.
        boxes: CSV with the columns ``image,x0,y0,x1,y1`` in pixels, where ``image`` is the name of
            an item, in either Unicode form.

    Raises:
        ConfigError: the file cannot be read, a box is empty or not finite, or an image has no box.
    """
    by_name: dict[str, list[Box]] = {}
    try:
        with boxes.open(newline="", **ANNOTATIONS) as stream:
            for row in csv.DictReader(stream):
                x0, y0, x1, y1 = (float(row[key]) for key in ("x0", "y0", "x1", "y1"))
                box = (x0, y0, x1, y1)
                if not all(map(math.isfinite, box)):
                    raise ValueError(f"the box {box} of {row['image']!r} is not finite")
                if not (x0 < x1 and y0 < y1):
                    raise ValueError(f"the box {box} of {row['image']!r} is empty")
                by_name.setdefault(one_form(row["image"]), []).append(box)
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        reason = f"no column {error}" if isinstance(error, KeyError) else str(error)
        raise ConfigError(
            f"--boxes {boxes}: {reason:.300}; expected a CSV with the columns image,x0,y0,x1,y1"
        ) from error
    absent = [item.name for item in items if one_form(item.name) not in by_name]
    if absent:
        raise ConfigError(
            f"--boxes {boxes} has no box for {absent[0]!r:.200} ({len(absent)} of {len(items)} "
            f"images have none).{nearest(absent[0], by_name)} Add lines, or leave the images out."
        )
    return [item._replace(box=box) for item in items for box in by_name[one_form(item.name)]]


@dataclass
class Prepared:
    """Image prepared for a model, or the reason why it cannot be used.

    Attributes:
        item: image, or face in it.
        pixels: input ``(crops, C, S, S)``, uint8 before normalisation, or float32 normalised, of
            bands that are no bytes; ``None`` if the image cannot be used.
        to_original: affine map ``(2, 3)`` from pixels of the input to pixels of the image; ``None``
            for several crops.
        size: width and height of the image, pixels.
        problem: reason why the image cannot be used; empty if it can.
    """

    item: Item
    pixels: Tensor | None = None
    to_original: np.ndarray | None = None
    problem: str = ""
    size: tuple[int, int] = (0, 0)


class Images(Dataset[Prepared]):
    """Dataset of prepared images.

    Args:
        items: images to prepare.
        given: ``input`` of the model's manifest.
    """

    def __init__(self, items: Sequence[Item], given: dict[str, Any]) -> None:
        self.items = list(items)
        self.preprocessing = given["preprocessing"]
        self.side = given["size"][-1]
        self.values = parse_value_range(given.get("value_range"))
        self.crop = None
        if self.preprocessing["kind"] == "crop":
            squeeze, crops = (self.preprocessing[key] for key in ("squeeze", "crops"))
            self.crop = evaluation_transform(self.side, squeeze, crops)
        self.reader = reader_of(given)
        if self.reader is not None and self.crop is not None:
            self.crop = v2.Compose([self.crop, *self.reader.finish()])

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Prepared:
        item = self.items[index]
        try:
            if self.reader is not None:
                return self._prepared(item, self.reader.image(item.path))
            return self._prepared(item, open_rgb(item.path, upright=True, values=self.values))
        except DataError as error:
            return Prepared(item, problem=str(error))
        except (MemoryError, OSError, RuntimeError, ValueError) as error:
            return Prepared(item, problem=unreadable(item.path, error))

    def _prepared(self, item: Item, image: Image.Image | Tensor) -> Prepared:
        if self.crop is not None:
            pixels = self.crop(image)
            if isinstance(image, Image.Image):
                size = image.size
            else:
                size = image.shape[-1], image.shape[-2]
            if pixels.dim() == 4:
                return Prepared(item, pixels, size=size)
            affine = crop_to_original(size, self.side, self.preprocessing["squeeze"])
            return Prepared(item, pixels[None], affine, size=size)
        assert isinstance(image, Image.Image)
        return self._square(item, image)

    def _square(self, item: Item, image: Image.Image) -> Prepared:
        margin = float(self.preprocessing["margin"])
        if item.box is None and margin == 1:
            affine = square_transform(image.size, self.side)
            square = fit_square(image, self.side)
        else:
            left, top, right, bottom = item.box or (0.0, 0.0, *map(float, image.size))
            side = margin * max(right - left, bottom - top)
            region = np.array([(left + right) / 2, (top + bottom) / 2, side])
            if not region_fits(region, image.size):
                return Prepared(
                    item,
                    problem=f"The box {item.box} does not fit the image {item.path} of "
                    f"{image.width}x{image.height} pixels; correct it.",
                )
            affine = region_transform(region, self.side)
            square = crop_region(image, region, self.side)
        pixels = to_chw(np.asarray(square))[None]
        return Prepared(item, pixels, inverse_affine(affine), size=image.size)


def crop_to_original(size: tuple[int, int], side: int, squeeze: int | None) -> np.ndarray:
    """Affine map ``(2, 3)`` from pixels of a centre crop to pixels of its image.

    Args:
        size: width and height of the image, pixels.
        side: side of the crop, pixels.
        squeeze: side of the square that the image was resized to, pixels; ``None`` if its shorter
            side was resized to ``side``.
    """
    scales = [(squeeze or side) / length for length in (size if squeeze else [min(size)] * 2)]
    starts = [(scale * length - side) / 2 for scale, length in zip(scales, size, strict=True)]
    return np.array(
        [[1 / scales[0], 0, starts[0] / scales[0]], [0, 1 / scales[1], starts[1] / scales[1]]]
    )


def batches(
    items: Sequence[Item], given: dict[str, Any], batch_size: int, num_workers: int
) -> Iterator[list[Prepared]]:
    """Yield batches of prepared images in order, read as they are needed.

    Args:
        items: images to prepare.
        given: ``input`` of the model's manifest.
        batch_size: number of images in a batch.
        num_workers: number of processes that read images; 0 reads in this one.
    """
    yield from DataLoader(
        Images(items, given),
        batch_size=batch_size,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=SignalsToParent(),
    )


def normalise(pixels: Tensor, given: dict[str, Any]) -> Tensor:
    """Normalise images ``(B, C, H, W)`` uint8 to the float32 input of the model.

    Args:
        pixels: images, ``(B, C, H, W)`` uint8; float32 ones are normalised already.
        given: ``input`` of the model's manifest, with ``mean`` and ``std`` in [0, 1] units.
    """
    if pixels.is_floating_point():
        return pixels
    mean, std = (
        torch.tensor(given[key], device=pixels.device).view(-1, 1, 1) for key in ("mean", "std")
    )
    return (pixels.float() / 255 - mean) / std
