"""Files like a user's own, made from what is shipped: for notebooks and for trying things out."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from zoo_lightning.data import FashionMNISTSubset
from zoo_lightning.sources.shipped import shipped_path


def write_image_folders(folder: Path, per_class: int, test_per_class: int = 10) -> None:
    """Write images of clothes as ``train/CLASS/NUMBER.png`` and ``test/CLASS/NUMBER.png``.

    Args:
        folder: to write; what was there of ``train`` and ``test`` goes.
        per_class: training images of each of the ten classes, at most 600.
        test_per_class: likewise to test, at most 200.
    """
    data = FashionMNISTSubset()
    for part, count in (("train", per_class), ("test", test_per_class)):
        shutil.rmtree(folder / part, ignore_errors=True)
        written = dict.fromkeys(range(len(data.classes)), 0)
        for pixels, label in data._read(part):
            if written[label] == count:
                continue
            name = data.classes[label].replace("/", " or ")
            path = folder / part / name / f"{written[label]:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            written[label] += 1


def write_checkpoints(folder: Path, names: Sequence[str]) -> list[str]:
    """Write shipped sources as a training script of somebody else might have saved them.

    Args:
        folder: to write to.
        names: of shipped sources.

    Returns:
        The files: ``NAME.pth``, a dictionary whose ``model`` holds the weights under ``module.``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name in names:
        state = load_file(shipped_path(name))
        path = folder / f"{name}.pth"
        torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 90}, path)
        paths.append(str(path))
    return paths
