"""Example image folders and checkpoints, written from the shipped data and sources."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from zoo_lightning.data.classification.fashion_mnist import FashionMNISTSubset
from zoo_lightning.data.labelled import Part
from zoo_lightning.sources.shipped import shipped_path


def write_image_folders(folder: Path, per_class: int, test_per_class: int = 10) -> None:
    """Write images of clothes as ``train/CLASS/NUMBER.png`` and ``test/CLASS/NUMBER.png``.

    Args:
        folder: folder to write to; existing ``train`` and ``test`` in it are replaced.
        per_class: training images of each of the ten classes, at most 600.
        test_per_class: test images of each class, at most 200.
    """
    data = FashionMNISTSubset()
    counts: dict[Part, int] = {"train": per_class, "test": test_per_class}
    for part, count in counts.items():
        shutil.rmtree(folder / part, ignore_errors=True)
        written = dict.fromkeys(range(len(data.classes)), 0)
        for pixels, label in data._read(part) or ():
            if written[label] == count:
                continue
            name = data.classes[label].replace("/", " or ")
            path = folder / part / name / f"{written[label]:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.asarray(pixels)).save(path)
            written[label] += 1


def write_checkpoints(folder: Path, names: Sequence[str]) -> list[str]:
    """Write shipped sources as checkpoint files of the layout common to training scripts.

    Args:
        folder: folder to write to.
        names: names of shipped sources.

    Returns:
        Paths of the files: ``NAME.pth``, a dictionary whose ``model`` holds the weights under
        ``module.``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        state = load_file(shipped_path(name))
        path = folder / f"{name}.pth"
        torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 90}, path)
        paths.append(str(path))
    return paths
