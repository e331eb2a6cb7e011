"""Data module of torchvision's classification data sets, by name."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch.utils.data import Dataset

from zoo_lightning.data.classification.base import ClassData
from zoo_lightning.data.classification.dataset import Sample
from zoo_lightning.data.labelled import Part
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import ConfigError, DataError, nearest

JOINT = "trainval"
"""torchvision's name of ``train`` and ``val`` together."""


@dataclass(frozen=True)
class KnownSet:
    """Splits of a data set of torchvision.

    Args:
        classes: number of classes.
        argument: argument of torchvision's class that selects the split; ``None`` for data without
            splits.
        train: the argument's value for training.
        test: the argument's value for testing.
        val: the argument's value for validation; ``None`` splits the training images.
        needs: package that torchvision reads the files with, but does not install.
    """

    classes: int
    argument: str | None = "split"
    train: str | bool = "train"
    test: str | bool = "test"
    val: str | None = None
    needs: str | None = None


KNOWN = {
    "CIFAR10": KnownSet(10, "train", True, False),
    "CIFAR100": KnownSet(100, "train", True, False),
    "Country211": KnownSet(211, val="valid"),
    "DTD": KnownSet(47, val="val"),
    "EuroSAT": KnownSet(10, None),
    "FGVCAircraft": KnownSet(100, train="trainval"),
    "FashionMNIST": KnownSet(10, "train", True, False),
    "Flowers102": KnownSet(102, val="val", needs="scipy"),
    "Food101": KnownSet(101),
    "GTSRB": KnownSet(43),
    "Imagenette": KnownSet(10, test="val"),
    "KMNIST": KnownSet(10, "train", True, False),
    "MNIST": KnownSet(10, "train", True, False),
    "OxfordIIITPet": KnownSet(37, train="trainval"),
    "RenderedSST2": KnownSet(2, val="val"),
    "STL10": KnownSet(10),
    "SUN397": KnownSet(397, None),
    "SVHN": KnownSet(10, needs="scipy"),
    "StanfordCars": KnownSet(196, needs="scipy"),
    "USPS": KnownSet(10, "train", True, False),
}


class TorchvisionData(ClassData):
    """Data module of a data set of ``torchvision.datasets``, in torchvision's layout.

    Args:
        name: ``CIFAR10``, ``CIFAR100``, ``Country211``, ``DTD``, ``EuroSAT``, ``FGVCAircraft``,
            ``FashionMNIST``, ``Flowers102``, ``Food101``, ``GTSRB``, ``Imagenette``, ``KMNIST``,
            ``MNIST``, ``OxfordIIITPet``, ``RenderedSST2``, ``STL10``, ``SUN397``, ``SVHN``,
            ``StanfordCars`` or ``USPS``.
        root: folder of the data, the ``root`` of torchvision's class.
        download: download the files if they are absent.
        train_split: torchvision's name of the split to train on, if not the usual one; validation
            images are then split off it, unless ``val_split`` is given as well.
        val_split: torchvision's name of the split to validate on, if not the usual one; with
            ``val``, data that usually train on ``trainval`` train on ``train``.
        test_fraction: fraction of each class's images kept for testing where the data have no
            splits (EuroSAT, SUN397), in (0, 1).
        test_seed: seed of the test split of data without splits. It does not depend on the run's
            seed, so that all runs are tested on the same images and never on training images.
        options: further options of ``ClassData``.

    Raises:
        ConfigError: the name is unknown, an option is out of range, splits share images, or a
            package that the data need is not installed.
        DataError: the files are absent, or cannot be downloaded or read.
    """

    name: str

    def __init__(
        self,
        name: str,
        root: str = "data",
        download: bool = False,
        train_split: str | None = None,
        val_split: str | None = None,
        test_fraction: float = 0.2,
        test_seed: int = 0,
        **options: Any,
    ) -> None:
        if name not in KNOWN:
            raise ConfigError(
                f"unknown data set {name!r}.{nearest(name, KNOWN)} Known are: {', '.join(KNOWN)}."
            )
        needs = KNOWN[name].needs
        if needs and importlib.util.find_spec(needs) is None:
            raise ConfigError(
                f"torchvision reads {name} with {needs}, which is not installed: "
                f"pip install -e '.[torchvision-data]', or pip install {needs}"
            )
        if not 0 < test_fraction < 1:
            raise ConfigError(f"`test_fraction` must be between 0 and 1, got {test_fraction}.")
        self.name = name
        self.root = Path(root)
        self.download = download
        self.test_fraction, self.test_seed = test_fraction, test_seed
        self.parts = _parts(KNOWN[name], name, train_split, val_split)
        self.classes = [str(label) for label in range(KNOWN[name].classes)]
        super().__init__(**options)

    def training_options(self) -> dict[str, Any]:
        """Options of ``ClassData``, the data set's name and its splits."""
        options = super().training_options() | {"name": self.name}
        argument = KNOWN[self.name].argument
        if argument is None:
            return options | {"test_fraction": self.test_fraction, "test_seed": self.test_seed}
        parts = {part: self.parts.get(part, {}).get(argument) for part in ("train", "val")}
        return options | {f"{part}_split": value for part, value in parts.items()}

    def prepare_data(self) -> None:
        """Download missing files if ``download`` is set."""
        for part in self.parts if self.download else ():
            try:
                self._open(part)  # some refuse to download what is there
            except DataError:
                self._open(part, download=True)

    def _open(self, part: Part, download: bool = False) -> Dataset:
        """Open torchvision's data set of a part.

        Raises:
            DataError: the files are absent, or cannot be downloaded or read.
        """
        kind = getattr(torchvision.datasets, self.name)
        try:
            return kind(str(self.root), **self.parts[part], download=download)
        except ImportError as error:
            raise DataError(
                f"{self.name} cannot be read: {error}; install that package."
            ) from error
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            reason = str(error).split("\n")[0].rstrip(".")
            hint = (
                "check the network and the disk, or put the files there by hand"
                if download
                else f"set `download: true`, or `root` to the folder that {self.name} is in"
            )
            what = "downloaded to" if download else "read from"
            message = f"{self.name} cannot be {what} {self.root} ({reason}); {hint}."
            raise DataError(message) from error

    def _read(self, part: Part) -> list[Sample] | None:
        undivided = KNOWN[self.name].argument is None
        if part not in self.parts and not (undivided and part == "test"):
            return None
        dataset = self._open("train" if undivided else part)
        sources, labels = images_and_labels(dataset)
        names = getattr(dataset, "classes", None) or self.classes
        if len(names) != len(self.classes) or not all(0 <= i < len(names) for i in labels):
            raise DataError(
                f"{self.name} in {self.root} has {max(len(names), *labels, 0)} classes, expected "
                f"{len(self.classes)}; the files are not those of {self.name}."
            )
        # Imagenette has several names for a class.
        self.classes = [each if isinstance(each, str) else str(each[0]) for each in names]
        samples: list[Sample] = list(zip(sources, labels, strict=True))
        if not undivided:
            return samples
        # torchvision lists some of these in the file system's order.
        samples.sort(key=lambda sample: str(sample[0]))
        labels = [label for _, label in samples]
        test = held_out(labels, self.test_fraction, self.test_seed)
        return [sample for i, sample in enumerate(samples) if (i in test) == (part == "test")]


def _parts(
    known: KnownSet, name: str, train_split: str | None, val_split: str | None
) -> dict[Part, dict[str, Any]]:
    """Keyword arguments of torchvision's class for each part of the data."""
    if known.argument != "split" and (train_split or val_split):
        raise ConfigError(
            f"{name} has no named splits; remove `train_split` and `val_split`, validation images "
            "are split off by `val_fraction`."
        )
    if known.argument is None:
        return {"train": {}}
    val = val_split or (None if train_split else known.val)
    without_val = known.train == JOINT and val == "val"
    train = train_split or ("train" if without_val else known.train)
    chosen: dict[Part, Any] = {"train": train, "test": known.test}
    if val:
        chosen["val"] = val
    for left, right in combinations(chosen, 2):
        pair = {chosen[left], chosen[right]}
        if len(pair) == 1 or (JOINT in pair and pair & {"train", "val"}):
            raise ConfigError(
                f"{name}: the {left} images ({chosen[left]!r}) and the {right} images "
                f"({chosen[right]!r}) are the same in part; set `train_split` and `val_split` to "
                "parts without common images, neither of them the test part."
            )
    return {part: {known.argument: value} for part, value in chosen.items()}


def images_and_labels(dataset: Dataset) -> tuple[list[Path | np.ndarray], list[int]]:
    """Extract the image files or arrays and the class indices of a torchvision data set."""
    for attribute in ("samples", "_samples"):
        if hasattr(dataset, attribute):
            pairs = getattr(dataset, attribute)
            return [Path(path) for path, _ in pairs], [int(label) for _, label in pairs]
    labels = next(
        getattr(dataset, each)
        for each in ("targets", "labels", "_labels")
        if hasattr(dataset, each)
    )
    labels = [int(label) for label in labels]
    for attribute in ("_image_files", "_images"):
        if hasattr(dataset, attribute):
            return [Path(path) for path in getattr(dataset, attribute)], labels
    pixels = dataset.data  # type: ignore[attr-defined]
    pixels = pixels.numpy() if isinstance(pixels, torch.Tensor) else np.asarray(pixels)
    if pixels.ndim == 4 and pixels.shape[-1] != 3:
        pixels = pixels.transpose(0, 2, 3, 1)
    return list(pixels), labels


def held_out(labels: list[int], fraction: float, seed: int) -> set[int]:
    """Draw the indices of a fraction of each class's samples, reproducibly by seed."""
    chosen: set[int] = set()
    generator = sample_generator(seed, 0, -4)
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        members.setdefault(label, []).append(index)
    for label in sorted(members):
        own = members[label]
        order = torch.randperm(len(own), generator=generator).tolist()
        chosen |= {own[i] for i in order[: round(fraction * len(own))]}
    return chosen
