"""Time and memory until the first batch of large data.

    python -m benchmarks.large_data --output results/robustness

Measured, each in a process of its own, are a folder of 100,000 images in 100 classes (hard links to
JPEGs of 64×64 pixels, so that the disk's speed is left out), the same images with a landmark file
of five points, a landmark CSV of 1,000,000 rows of five points and of sixty-eight, and a list of
1,000,000 images with their classes. Folders of images are measured until their first batch of 64,
files until they are read. Seconds are of the clock and of all threads of the process; memory is the
peak resident set less the one after all imports.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.memory import CLEAR, RESET_PEAK, status
from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.data.classification.lists import read_list
from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv
from zoo_lightning.data.landmarks.published import LandmarkCSV
from zoo_lightning.data.loading import ImageDataModule
from zoo_lightning.files.atomic import atomic_file

CLASSES = 100


def make_image(path: Path) -> Path:
    """Make a JPEG of 64×64 pixels."""
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((64, 64)).save(path)
    return path


def make_folders(root: Path, count: int) -> None:
    """Make ``root/train/CLASS/NUMBER.jpg``."""
    for label in range(CLASSES):  # file systems allow some ten thousand links to a file
        folder = root / "train" / f"class{label:02d}"
        one = make_image(folder / f"{label:06d}.jpg")
        for number in range(label + CLASSES, count, CLASSES):
            os.link(one, folder / f"{number:06d}.jpg")


def make_landmarks(root: Path, count: int, num_points: int = 5, images: bool = True) -> None:
    """Make ``root/train.csv`` and, if wanted, its images."""
    one: Path | None = None
    rng = np.random.default_rng(0)
    # 997 different lines, so that nothing repeats too often.
    cells = [",".join(f"{v:.2f}" for v in row) for row in rng.uniform(5, 60, (997, 2 * num_points))]
    with (root / "train.csv").open("w") as file:
        header = (f"{axis}{k}" for k in range(num_points) for axis in "xy")
        file.write(f"image,{','.join(header)}\n")
        for number in range(count):
            name = f"{number:07d}.jpg"
            file.write(f"{name},{cells[number % 997]}\n")
            if not images:
                continue
            if one is None or number % 10_000 == 0:
                one = make_image(root / "images" / name)
            else:
                os.link(one, root / "images" / name)


def make_list(root: Path, count: int) -> None:
    """Make ``root/train.txt`` of lines ``CLASS/NUMBER.jpg LABEL``."""
    with (root / "train.txt").open("w") as file:
        for number in range(count):
            label = number % CLASSES
            file.write(f"class{label:02d}/{number:07d}.jpg {label}\n")


def first_batch(data: ImageDataModule) -> None:
    """Prepare a training and read its first batch."""
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    if len(batch["image"]) != 64:
        raise RuntimeError("the first batch is incomplete")


def read_landmarks(root: Path) -> None:
    """Read the landmark file."""
    read_landmark_csv(root / "train.csv")


CASES: dict[str, tuple[Callable[[Path, int], None], Callable[[Path], Any], int]] = {
    "image folder": (
        make_folders,
        lambda root: first_batch(ImageFolders(str(root), 64, 64, num_workers=0)),
        100_000,
    ),
    "images with landmarks": (
        make_landmarks,
        lambda root: first_batch(LandmarkCSV(str(root), batch_size=64, num_workers=0)),
        100_000,
    ),
    "landmark CSV, 5 points": (
        lambda root, count: make_landmarks(root, count, 5, images=False), read_landmarks, 1_000_000,
    ),
    "landmark CSV, 68 points": (
        lambda root, count: make_landmarks(root, count, 68, images=False),
        read_landmarks,
        1_000_000,
    ),
    "class list": (make_list, lambda root: read_list(root / "train.txt"), 1_000_000),
}  # fmt: skip
"""Functions that make the data and that are measured, and the number of images or rows."""


def measure_here(name: str, root: Path) -> dict[str, float]:
    """Seconds and megabytes of one case in this process."""
    CLEAR.write_text(RESET_PEAK)
    before, start, used = status("VmRSS"), time.monotonic(), time.process_time()
    CASES[name][1](root)
    return {
        "seconds": round(time.monotonic() - start, 2),
        "cpu_seconds": round(time.process_time() - used, 2),
        "memory_mb": round((status("VmHWM") - before) / 2**20),
    }


def measure(name: str, count: int) -> dict[str, Any]:
    """Make the data of a case, and measure it in a process of its own."""
    with tempfile.TemporaryDirectory() as root:
        CASES[name][0](Path(root), count)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.large_data", "--here", name, "--output", root],
            cwd=Path(__file__).resolve().parents[1], check=True, capture_output=True, text=True,
        )  # fmt: skip
    return {"case": name, "count": count, **json.loads(done.stdout.splitlines()[-1])}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write ``large_data.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--case", choices=CASES, help="measure only this case")
    parser.add_argument("--here", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.here:
        print(json.dumps(measure_here(options.here, options.output)))
        return 0
    found = []
    for name in [options.case] if options.case else CASES:
        found.append(measure(name, CASES[name][2]))
        print(found[-1], flush=True)
        with atomic_file(options.output / "large_data.json") as part:
            part.write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
