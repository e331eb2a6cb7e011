"""Folders of images, one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchvision.datasets import ImageFolder

from zoo_lightning.data.class_data import ClassData, Part
from zoo_lightning.data.class_set import Sample
from zoo_lightning.errors import DataError, nearest


class ImageFolders(ClassData):
    """Images in ``root/train/CLASS/``, ``root/test/CLASS/`` and perhaps ``root/val/CLASS/``.

    Without ``val``, validation images are split off the training images. Without ``test``, ``val``
    is what is tested on, and validation images are split off as well.

    Args:
        root: folder of ``train`` and ``test``.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        options: of ``ClassData``.

    Raises:
        ConfigError: for options outside their range.
        DataError: a folder is absent or has no classes, a class has no images or none in training,
            an image cannot be read.
    """

    def __init__(
        self, root: str, image_size: int = 64, batch_size: int = 64, **options: Any
    ) -> None:
        self.root = Path(root)
        parts = ("train", self._test_folder())
        folder = next((each for each in parts if (self.root / each).is_dir()), "train")
        self.classes = class_folders(self.root / folder)
        super().__init__(image_size, batch_size, **options)

    def _test_folder(self) -> str:
        only_val = (self.root / "val").is_dir() and not (self.root / "test").is_dir()
        return "val" if only_val else "test"

    def _read(self, part: Part) -> list[Sample] | None:
        test = self._test_folder()
        if part == "val" and (test == "val" or not (self.root / "val").is_dir()):
            return None
        folder = self.root / (test if part == "test" else part)
        extra = sorted(set(class_folders(folder)) - set(self.classes))
        if extra:
            raise DataError(
                f"{folder} has classes that {self.root / 'train'} lacks: {', '.join(extra[:5])}."
                f"{nearest(extra[0], self.classes)} Rename or remove them."
            )
        try:
            samples = ImageFolder(str(folder)).samples
        except FileNotFoundError as error:
            raise DataError(f"{folder} has a class folder without images: {error}") from error
        index = {name: i for i, name in enumerate(self.classes)}
        paths = [Path(path) for path, _ in samples]
        return [(path, index[path.relative_to(folder).parts[0]]) for path in paths]


def class_folders(folder: Path) -> list[str]:
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
