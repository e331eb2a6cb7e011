"""Scenes composed of photographs, whose dense labels or counts are known exactly.

They make segmentation and counting tasks of photographs without masks or boxes; two of the shipped
sources are trained on such scenes.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.data.image_files import on_disk
from zoo_lightning.data.images import check_present, open_rgb
from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv
from zoo_lightning.data.loading import SizedDataset, sample_generator
from zoo_lightning.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zoo_lightning.data.classification.dataset import ClassSet

GRID = 3
"""Objects to count are placed in different cells of a grid of so many rows and columns, so that
none hides another."""


def scene_generator(seed: int, epoch: int, index: int) -> torch.Generator:
    """Random generator of a scene, distinct from that of the photograph with the same index."""
    return sample_generator(seed, epoch, -1000 - index)


class MosaicSet(SizedDataset):
    """Data set of photograph mosaics, labelled with the class at each cell of a coarse grid.

    The regions are the Voronoi cells of random sites, each filled with the same part of another
    photograph.

    Args:
        photos: photographs to compose; sample ``i`` shows a part of photograph ``i``.
        pieces: photographs in a scene.
        stride: pixels that a cell of the labels spans.
    """

    def __init__(self, photos: ClassSet, pieces: int, stride: int) -> None:
        self.photos = photos
        self.pieces = pieces
        self.stride = stride
        self.names = photos.names

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, position: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        generator = scene_generator(self.photos.seed, epoch, index)
        others = torch.randint(len(self), (self.pieces - 1,), generator=generator).tolist()
        samples = [self.photos[epoch, i] for i in (index, *others)]
        images = torch.stack([sample["image"] for sample in samples])
        sites = torch.rand(self.pieces, 2, generator=generator)
        owner = nearest_site(sites, images.shape[-1])
        image = images.gather(0, owner.expand(1, 3, *owner.shape))[0]
        classes = torch.tensor([sample["label"] for sample in samples])
        middle = self.stride // 2
        labels = classes[owner[middle :: self.stride, middle :: self.stride]]
        return {"image": image, "labels": labels, "index": index}


def nearest_site(sites: Tensor, side: int) -> Tensor:
    """Index of the site that is nearest to each pixel: int64 ``(side, side)``.

    Args:
        sites: ``(n, 2)`` as x and y, fractions of the side.
        side: side of the square, pixels.
    """
    places = (torch.arange(side) + 0.5) / side
    across = (places[None, None, :] - sites[:, 0, None, None]) ** 2
    down = (places[None, :, None] - sites[:, 1, None, None]) ** 2
    return (across + down).argmin(0)


class CountingSet(SizedDataset):
    """Data set of photographs with small pictures pasted on, of which one kind is counted.

    Each photograph shows a random number of objects and a random number of other photographs of the
    same size as distractors, so that edges alone do not reveal the count.

    Args:
        photos: backgrounds and distractors.
        objects: image files of the counted objects.
        most: largest number of objects, and of distractors, in a scene.
    """

    def __init__(self, photos: ClassSet, objects: Sequence[Path], most: int) -> None:
        self.photos = photos
        self.objects = list(objects)
        self.most = most
        self.names = photos.names

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, position: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        generator = scene_generator(self.photos.seed, epoch, index)

        def draw(stop: int) -> int:
            return int(torch.randint(stop, (), generator=generator))

        image = self.photos[epoch, index]["image"].clone()
        count, distractors = draw(self.most + 1), draw(self.most + 1)
        objects = [self.objects[draw(len(self.objects))] for _ in range(count)]
        pictures = [F.pil_to_tensor(open_rgb(path, values=self.photos.values)) for path in objects]
        pictures += [self.photos[epoch, draw(len(self))]["image"] for _ in range(distractors)]
        cells = torch.randperm(GRID**2, generator=generator).tolist()
        for picture, cell in zip(pictures, cells, strict=False):
            self._paste(image, picture, cell, generator)
        return {"image": image, "label": count, "index": index}

    @staticmethod
    def _paste(image: Tensor, picture: Tensor, cell: int, generator: torch.Generator) -> None:
        pitch = image.shape[-1] // GRID
        size = int(torch.randint(round(0.7 * pitch), pitch + 1, (), generator=generator))
        left, top = torch.randint(pitch - size + 1, (2,), generator=generator).tolist()
        left, top = left + cell % GRID * pitch, top + cell // GRID * pitch
        small = F.resize(picture, [size, size], antialias=True)
        image[:, top : top + size, left : left + size] = small


class PhotoMosaics(ImageFolders):
    """Data module of segmentation mosaics, composed of photographs in ``root/train/CLASS/``.

    Samples have ``labels`` int64 ``(h, w)``, the class of every ``stride``-th pixel.

    Args:
        root: folder that contains ``train`` and ``test``, as in :class:`ImageFolders`.
        image_size: side of a scene, pixels.
        batch_size: samples per step and process.
        pieces: photographs in a scene, at least 2.
        stride: pixels that a cell of the labels spans.
        options: further options of ``ClassData``.

    Raises:
        ConfigError: an option is out of range.
        DataError: images are missing or malformed.
    """

    target_kind = "a class for each pixel"
    """Kind of the targets, by which tasks know whether the data are for them."""

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        batch_size: int = 64,
        pieces: int = 4,
        stride: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(root, image_size, batch_size, **options)
        if pieces < 2:
            raise ConfigError(f"`pieces` must be at least 2, got {pieces}.")
        if not 1 <= stride <= image_size:
            raise ConfigError(f"`stride` must lie in 1 to {image_size}, got {stride}.")
        self.pieces = pieces
        self.stride = stride

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`ImageFolders`, the number of pieces and the stride."""
        return super().training_options() | {"pieces": self.pieces, "stride": self.stride}

    def setup(self, stage: str) -> None:
        """Read and check the images that the stage needs, and compose scenes of them."""
        super().setup(stage)
        for part in ("train_set", "val_set", "test_set"):
            photos = getattr(self, part, None)
            if photos is not None and not isinstance(photos, MosaicSet):
                setattr(self, part, MosaicSet(photos, self.pieces, self.stride))


class CountedFaces(ImageFolders):
    """Data module of counting faces on photographs, with classes 0 to ``most``.

    Photographs come from ``root/train/CLASS/`` and so on, whose classes do not matter; faces are
    the images of ``faces/train.csv`` and ``faces/test.csv`` in the layout of ``LandmarkCSV``, every
    tenth of the training ones kept for validation.

    Args:
        root: folder of the photographs, which contains ``train`` and ``test``.
        faces: folder of ``train.csv``, ``test.csv`` and ``images`` with the faces.
        image_size: side of a scene, pixels.
        batch_size: samples per step and process.
        most: largest number of faces, in 1 to 4.
        options: further options of ``ClassData``.

    Raises:
        ConfigError: an option is out of range.
        DataError: files are missing or malformed.
    """

    def __init__(
        self,
        root: str,
        faces: str,
        image_size: int = 64,
        batch_size: int = 64,
        most: int = 4,
        **options: Any,
    ) -> None:
        super().__init__(root, image_size, batch_size, **options)
        # As many distractors as faces must find room beside them.
        if not 1 <= most <= GRID**2 // 2:
            raise ConfigError(f"`most` must lie in 1 to {GRID**2 // 2}, got {most}.")
        self.faces = Path(faces)
        if not self.faces.is_dir():
            raise DataError(
                f"The folder {faces} does not exist; set `faces` to one with train.csv, test.csv "
                "and images/."
            )
        self.most = most

    def training_options(self) -> dict[str, Any]:
        """Options of :class:`ImageFolders` and the largest number of faces."""
        return super().training_options() | {"most": self.most}

    @property
    def class_names(self) -> list[str]:
        """Class names, such as ``3 faces``."""
        return [f"{count} faces" for count in range(self.most + 1)]

    def setup(self, stage: str) -> None:
        """Read and check the images that the stage needs, and compose scenes of them."""
        super().setup(stage)
        for part in ("train", "val", "test"):
            photos = getattr(self, f"{part}_set", None)
            if photos is not None and not isinstance(photos, CountingSet):
                scenes = CountingSet(photos, self._face_files(part), self.most)
                setattr(self, f"{part}_set", scenes)

    def _face_files(self, part: str) -> list[Path]:
        table = self.faces / ("test.csv" if part == "test" else "train.csv")
        folder = self.faces / "images"
        names = read_landmark_csv(table).names
        check_present(names, folder, table)
        if part == "val":
            names = names[::10]
        elif part == "train":
            names = [name for i, name in enumerate(names) if i % 10]
        return [on_disk(folder, name) for name in names]
