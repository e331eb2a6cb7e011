"""Data module of image folders, one per class."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from zoo_lightning.data.band_files import NPY
from zoo_lightning.data.classification.base import ClassData, in_class_order, say_order
from zoo_lightning.data.classification.dataset import Sample
from zoo_lightning.data.image_files import is_hidden, left_out, list_images, on_disk, one_form
from zoo_lightning.data.labelled import Part
from zoo_lightning.data.splitting import VALIDATION
from zoo_lightning.errors import DataError, nearest


class ImageFolders(ClassData):
    """Data module of image folders: ``root/{train,val,test}/CLASS/``, ``val`` optional.

    ``val`` may also be called ``valid``, ``validation`` or ``dev``. Folders inside a class folder
    belong to the class. Hidden files and folders are left out, and so are files that are no images,
    whose number is logged. Classes are in the order of their names; names that are all integers are
    in the order of the numbers.

    Without ``val``, validation images are split off the training images. Without ``test``, ``val``
    is the test part, and validation images are split off the training images as well.

    Args:
        root: folder that contains ``train`` and ``test``.
        image_size: side of the network's input, pixels.
        batch_size: samples per step and process.
        options: further options of ``ClassData``.

    Raises:
        ConfigError: an option is out of range.
        DataError: a folder is absent or has no classes, a class has no images or none in training,
            an image cannot be read.
    """

    def __init__(
        self, root: str, image_size: int = 64, batch_size: int = 64, **options: Any
    ) -> None:
        self.root = Path(root)
        self._val = validation_folder(self.root)
        parts = ("train", self._test_folder())
        folder = next((each for each in parts if (self.root / each).is_dir()), "train")
        self.classes = class_folders(self.root / folder)
        super().__init__(image_size, batch_size, **options)

    def _test_folder(self) -> str:
        if self._val is not None and not (self.root / "test").is_dir():
            return self._val
        return "test"

    def _read(self, part: Part) -> list[Sample] | None:
        test = self._test_folder()
        inside = {"train": "train", "val": self._val, "test": test}[part]
        if inside is None or (part == "val" and inside == test):
            return None
        folder = self.root / inside
        names = class_folders(folder)
        extra = sorted(set(names) - set(self.classes))
        if extra:
            raise DataError(
                f"{folder} has classes that {self.root / 'train'} lacks: {', '.join(extra[:5])}."
                f"{nearest(extra[0], self.classes)} Rename or remove them."
            )
        found = {name: list_images(on_disk(folder, name), self._also()) for name in names}
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
        if part != "val":
            self._log_assumptions()
        index = {name: i for i, name in enumerate(self.classes)}
        return [(path, index[name]) for name in names for path in found[name].images]

    def _also(self) -> tuple[str, ...]:
        """Suffixes of files that are images where bands are read."""
        return () if self.reader is None else (NPY,)

    def _log_assumptions(self) -> None:
        """Log assumptions: folders that are not read, and the numerical order of classes."""
        used = {"train", "test", self._val}
        beside = sorted(p for p in self.root.iterdir() if p.is_dir() and p.name not in used)
        unread = [p.name for p in beside if not is_hidden(p.name) and list_images(p).images]
        if unread:
            rank_zero_info(
                f"{self.root}: folders of images beside train and test are not read: "
                f"{', '.join(unread[:5])}{', ...' * (len(unread) > 5)} (validation images are in "
                f"one of {', '.join(VALIDATION)})"
            )
        say_order(self.root, self.classes)


def validation_folder(root: Path) -> str | None:
    """Name of the folder of validation images, one of ``VALIDATION``; ``None`` without one.

    Raises:
        DataError: there are several.
    """
    folders = root.iterdir() if root.is_dir() else ()
    found = sorted(p.name for p in folders if p.name.lower() in VALIDATION and p.is_dir())
    if len(found) > 1:
        raise DataError(
            f"{root} has {' and '.join(found)}, each of which may be the validation "
            "images; leave one of them."
        )
    return found[0] if found else None


def class_folders(folder: Path) -> list[str]:
    """List the class folders in a folder, sorted numerically if all names are integers.

    Returns:
        The names in composed Unicode form (NFC), whichever form the disk has;
        :func:`~zoo_lightning.data.image_files.on_disk` finds the folders.

    Raises:
        DataError: the folder is absent or has no class folders, or two folders have the same name
            in two Unicode forms.
    """
    if not folder.is_dir():
        raise DataError(
            f"The folder {folder} does not exist; expected it to hold one folder of images per "
            f"class, and `root` (--data.root) to be the folder above it.{layout_hint(folder)}"
        )
    there = (p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name))
    names = sorted(map(one_form, there))
    if twice := [name for name, after in itertools.pairwise(names) if name == after]:
        raise DataError(
            f"{folder} has two folders {twice[0]!r}, one composed and one decomposed as macOS "
            "writes names; move the images into one of them."
        )
    if not names:
        raise DataError(f"{folder} holds no class folders; expected one folder per class in it.")
    return in_class_order(names)


def layout_hint(absent: Path) -> str:
    """Suggest the right ``root`` where a ``train`` or ``test`` folder is absent.

    Returns:
        A sentence with a leading space, or an empty string.
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
    if parts := [path.name for path in inside if path.name in ("train", "test", *VALIDATION)]:
        return f" {root} has {', '.join(parts)}: move some of their images into such a {part}."
    with_images = [path.name for path in inside if list_images(path).images]
    if with_images:
        return (
            f" {root} itself holds folders of images ({', '.join(with_images[:3])}): move them "
            f"into {root / 'train'}, and some of their images into such folders of {root / 'test'}."
        )
    return ""
