"""Folders of images, one folder per class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.data.class_data import ClassData, Part
from zoo_lightning.data.class_set import Sample
from zoo_lightning.data.listing import is_hidden, left_out, list_images
from zoo_lightning.errors import DataError, nearest

VALIDATION = ("val", "valid", "validation", "dev")
"""Names of the folder of validation images."""


class ImageFolders(ClassData):
    """Images in ``root/train/CLASS/``, ``root/test/CLASS/`` and perhaps ``root/val/CLASS/``.

    ``val`` may also be called ``valid``, ``validation`` or ``dev``. Folders inside a class folder
    belong to the class. Hidden files and folders are left out, and so are files that are no images,
    whose number is said. Classes are in the order of their names; names that are all integers are
    in the order of the numbers.

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
        self._val = self._val_folder()
        parts = ("train", self._test_folder())
        folder = next((each for each in parts if (self.root / each).is_dir()), "train")
        self.classes = class_folders(self.root / folder)
        super().__init__(image_size, batch_size, **options)

    def _val_folder(self) -> str | None:
        found = [name for name in VALIDATION if (self.root / name).is_dir()]
        if len(found) > 1:
            raise DataError(
                f"{self.root} has {' and '.join(found)}, each of which may be the validation "
                "images; leave one of them."
            )
        return found[0] if found else None

    def _test_folder(self) -> str:
        only_val = self._val is not None and not (self.root / "test").is_dir()
        return self._val if only_val else "test"

    def _read(self, part: Part) -> list[Sample] | None:
        test = self._test_folder()
        if part == "val" and self._val in (None, test):
            return None
        folder = self.root / {"train": "train", "val": self._val, "test": test}[part]
        names = class_folders(folder)
        extra = sorted(set(names) - set(self.classes))
        if extra:
            raise DataError(
                f"{folder} has classes that {self.root / 'train'} lacks: {', '.join(extra[:5])}."
                f"{nearest(extra[0], self.classes)} Rename or remove them."
            )
        found = {name: list_images(folder / name) for name in names}
        others = left_out(each.others for each in found.values())
        empty = [name for name in names if not found[name].images]
        if empty:
            raise DataError(
                f"{folder} has a class folder without images: {', '.join(empty[:5])}. "
                f"{f'In {folder} {others}. ' if others else ''}Add images such as .jpg and .png, "
                "or remove the folder."
            )
        if others:
            rank_zero_info(f"{folder}: {others}")
        index = {name: i for i, name in enumerate(self.classes)}
        return [(path, index[name]) for name in names for path in found[name].images]


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in a folder, sorted: as numbers if all of them are integers.

    Raises:
        DataError: the folder is absent or has none; the message says where such folders are.
    """
    if not folder.is_dir():
        raise DataError(
            f"The folder {folder} does not exist; expected it to hold one folder of images per "
            f"class, and `root` to be the folder above it.{layout_hint(folder)}"
        )
    names = sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
    if not names:
        raise DataError(f"{folder} holds no class folders; expected one folder per class in it.")
    return sorted(names, key=int) if all(map(is_integer, names)) else names


def is_integer(name: str) -> bool:
    """Whether a folder's name is a number as it is written: ``7`` or ``007``, but not ``+7``."""
    return name.isascii() and name.isdigit()


def layout_hint(absent: Path) -> str:
    """What is probably meant where a ``train`` or ``test`` folder is absent.

    Returns:
        A sentence with a leading space, or nothing.
    """
    root, part = absent.parent, absent.name
    if not root.is_dir():
        return ""
    above = [p for p in list(root.absolute().parents)[:2] if (p / part).is_dir()]
    if above and root.absolute().is_relative_to(above[0] / part):
        return f" `root` is too low: set it to {above[0]}."
    inside = sorted(p for p in root.iterdir() if p.is_dir() and not is_hidden(p.name))
    below = [path for path in inside if (path / part).is_dir()]
    if below:
        return f" `root` is too high: set it to {below[0]}."
    if similar := nearest(part, [path.name for path in inside]):
        return f"{similar} Rename it."
    with_images = [path.name for path in inside if list_images(path).images]
    if with_images:
        return (
            f" {root} itself holds folders of images ({', '.join(with_images[:3])}): move them "
            f"into {root / 'train'}, and some of their images into such folders of {root / 'test'}."
        )
    return ""
