"""Folders of images, one folder per class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torchvision.datasets.folder import IMG_EXTENSIONS as SUFFIXES

from zoo_lightning.data.class_data import ClassData, Part
from zoo_lightning.data.class_set import Sample
from zoo_lightning.errors import DataError, nearest


class ImageFolders(ClassData):
    """Images in ``root/train/CLASS/``, ``root/test/CLASS/`` and perhaps ``root/val/CLASS/``.

    Folders inside a class folder belong to the class. Hidden files and folders are left out.

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
        names = class_folders(folder)
        extra = sorted(set(names) - set(self.classes))
        if extra:
            raise DataError(
                f"{folder} has classes that {self.root / 'train'} lacks: {', '.join(extra[:5])}."
                f"{nearest(extra[0], self.classes)} Rename or remove them."
            )
        files = {name: image_files(folder / name) for name in names}
        empty = [name for name in names if not files[name]]
        if empty:
            raise DataError(
                f"{folder} has a class folder without images: {', '.join(empty[:5])}. Images end "
                f"in {', '.join(SUFFIXES)}; add some, or remove the folder."
            )
        index = {name: i for i, name in enumerate(self.classes)}
        return [(path, index[name]) for name in names for path in files[name]]


def image_files(folder: Path) -> list[Path]:
    """Image files in a folder and the folders in it, sorted; hidden ones are left out.

    Links are followed. A folder that several of them lead to counts once.

    Raises:
        DataError: a link leads back to a folder that it lies in.
    """
    found: list[Path] = []
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
        named = (name for name in files if name.lower().endswith(SUFFIXES))
        found += [Path(place, name) for name in named if not is_hidden(name)]
    return sorted(found, key=lambda path: (str(path.parent), path.name))


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a system's own, such as macOS's ``._1.jpg``."""
    return name.startswith(".") or name in ("__MACOSX", "@eaDir", "$RECYCLE.BIN")


def class_folders(folder: Path) -> list[str]:
    """Names of the class folders in a folder, sorted.

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
    return names


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
    with_images = [path.name for path in inside if image_files(path)]
    if with_images:
        return (
            f" {root} itself holds folders of images ({', '.join(with_images[:3])}): move them "
            f"into {root / 'train'}, and some of their images into such folders of {root / 'test'}."
        )
    return ""
