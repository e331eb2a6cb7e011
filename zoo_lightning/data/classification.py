"""Folders of images, one folder per class; also as the rotation task of self-supervision."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch.utils.data import Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from zoo_lightning.data.images import check_images, open_rgb
from zoo_lightning.data.loading import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageDataModule,
    sample_generator,
)
from zoo_lightning.errors import ConfigError, DataError, nearest

ROTATIONS = 4
"""Quarter turns to tell apart (Gidaris et al., *Unsupervised representation learning by predicting
image rotations*, ICLR 2018)."""


class FolderSet(Dataset):
    """Images with their classes or, in place of classes, the quarter turns they were given.

    Args:
        samples: paths and class indices.
        transform: of a PIL image to uint8 ``(3, S, S)``; its random numbers are reseeded for every
            sample.
        seed: of those random numbers.
        targets: ``class`` or ``rotation``.
    """

    def __init__(
        self,
        samples: list[tuple[str, int]],
        transform: v2.Transform,
        seed: int,
        targets: Literal["class", "rotation"] = "class",
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed
        self.targets = targets

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: tuple[int, int] | int) -> dict[str, Any]:
        epoch, index = position if isinstance(position, tuple) else (0, position)
        path, label = self.samples[index]
        generator = sample_generator(self.seed, epoch, index)
        # torchvision draws from the global generator; it is put back as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            image = self.transform(open_rgb(Path(path)))
        if self.targets == "rotation":
            label = int(torch.randint(ROTATIONS, (), generator=generator))
            image = torch.rot90(image, label, dims=(1, 2)).contiguous()
        return {"image": image, "label": label, "index": index}


class ImageFolders(ImageDataModule):
    """Images in ``root/train/CLASS/`` and ``root/test/CLASS/``.

    Args:
        root: folder of ``train`` and ``test``.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        num_workers: loader processes; ``None`` takes one less than the cores, at most 4.
        seed: of the order, the augmentation and the validation split.
        val_fraction: of each class's training images, kept for validation, in (0, 1).
        targets: ``class``, or ``rotation`` to learn which quarter turn an image was given.
        crop_scale: smallest share of the image's area that a training crop shows, in (0, 1].
        flip: probability of mirroring a training image.
        jitter: strength of brightness, contrast and saturation changes, at least 0.
        mean: subtracted from each channel of an image in [0, 1].
        std: what each channel is then divided by.

    Raises:
        DataError: a folder is absent or has no classes, or ``test`` has a class of its own.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 64,
        batch_size: int = 64,
        num_workers: int | None = None,
        seed: int = 0,
        val_fraction: float = 0.1,
        targets: Literal["class", "rotation"] = "class",
        crop_scale: float = 0.35,
        flip: float = 0.5,
        jitter: float = 0.3,
        mean: tuple[float, float, float] = IMAGENET_MEAN,
        std: tuple[float, float, float] = IMAGENET_STD,
    ) -> None:
        super().__init__(image_size, batch_size, num_workers, seed, mean, std)
        if not 0 < val_fraction < 1:
            raise ConfigError(f"`val_fraction` must be between 0 and 1, found {val_fraction}.")
        self.root = Path(root)
        self.val_fraction = val_fraction
        self.targets = targets
        self.crop_scale, self.flip, self.jitter = crop_scale, flip, jitter
        folder = self.root / "train"
        self.classes = class_names(folder if folder.is_dir() else self.root / "test")

    @property
    def num_classes(self) -> int:
        """Number of classes, known from construction on."""
        return ROTATIONS if self.targets == "rotation" else len(self.classes)

    def setup(self, stage: str) -> None:
        """List and check the images that the stage needs.

        Raises:
            DataError: for a folder or an image that cannot be used.
        """
        if stage in ("fit", "validate") and not hasattr(self, "val_set"):
            train, val = self._split(self._samples("train"))
            self.train_set = self._set(train, self._training_transform())
            self.val_set = self._set(val, self._evaluation_transform())
        if stage in ("test", "predict") and not hasattr(self, "test_set"):
            self.test_set = self._set(self._samples("test"), self._evaluation_transform())

    def _set(self, samples: list[tuple[str, int]], transform: v2.Transform) -> FolderSet:
        return FolderSet(samples, transform, self.seed, self.targets)

    def _samples(self, part: str) -> list[tuple[str, int]]:
        folder = self.root / part
        extra = sorted(set(class_names(folder)) - set(self.classes))
        if extra:
            raise DataError(
                f"{folder} has classes that {self.root / 'train'} lacks: {', '.join(extra[:5])}."
                f"{nearest(extra[0], self.classes)} Rename or remove them."
            )
        try:
            samples = ImageFolder(str(folder)).samples
        except FileNotFoundError as error:
            raise DataError(f"{folder} has a class folder without images: {error}") from error
        check_images([Path(path) for path, _ in samples])
        index = {name: i for i, name in enumerate(self.classes)}
        return [(path, index[Path(path).relative_to(folder).parts[0]]) for path, _ in samples]

    def _split(
        self, samples: list[tuple[str, int]]
    ) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
        """Split every class alike, at least one image of each for training."""
        generator = sample_generator(self.seed, 0, -2)
        train, val = [], []
        for label in range(len(self.classes)):
            members = [sample for sample in samples if sample[1] == label]
            order = torch.randperm(len(members), generator=generator).tolist()
            count = min(round(self.val_fraction * len(members)), len(members) - 1)
            val += [members[i] for i in sorted(order[:count])]
            train += [members[i] for i in sorted(order[count:])]
        if not val:
            raise DataError(
                f"{self.root / 'train'} has too few images to keep any for validation; raise "
                f"`val_fraction`, now {self.val_fraction}, or add images."
            )
        return train, val

    def _training_transform(self) -> v2.Transform:
        strength = self.jitter
        return v2.Compose(
            [
                v2.PILToTensor(),
                v2.RandomResizedCrop(self.image_size, (self.crop_scale, 1.0), antialias=True),
                v2.RandomHorizontalFlip(self.flip),
                v2.ColorJitter(strength, strength, strength),
            ]
        )

    def _evaluation_transform(self) -> v2.Transform:
        return v2.Compose(
            [
                v2.PILToTensor(),
                v2.Resize(self.image_size, antialias=True),
                v2.CenterCrop(self.image_size),
            ]
        )


def class_names(folder: Path) -> list[str]:
    """Names of the class folders in a folder, sorted.

    Raises:
        DataError: the folder is absent or has none.
    """
    if not folder.is_dir():
        raise DataError(
            f"The folder {folder} does not exist; expected it to hold one folder of images per "
            "class. Set `root` to the folder above it."
        )
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    if not names:
        raise DataError(f"{folder} holds no class folders; expected one folder per class in it.")
    return names
