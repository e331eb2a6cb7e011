"""Small data sets that the tests make for themselves."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SHARED = Path(__file__).resolve().parents[2].parent / "shared/data"


def header(num_points):
    return ",".join(["image", *(f"{axis}{k}" for k in range(num_points) for axis in "xy")])


def write_csv(path, names, points):
    """Write a landmark file; points (N, K, 2)."""
    lines = [header(points.shape[1])]
    for name, row in zip(names, points.reshape(len(points), -1), strict=True):
        lines.append(",".join([name, *(f"{value:.3f}" for value in row)]))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(name="write_csv")
def _write_csv():
    return write_csv


@pytest.fixture
def shared_data():
    """Folder of the real data sets, which exist beside development checkouts only."""
    if not SHARED.is_dir():
        pytest.skip("real data are absent: ../shared/data")
    return SHARED


@pytest.fixture
def landmark_root(tmp_path):
    """Ten persons with two images of 40x40 pixels and five points each, and four test images."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for table, people, each in (("train", 10, 2), ("test", 2, 2)):
        names = [f"{table}{chr(97 + p)}_{i:02d}.png" for p in range(people) for i in range(each)]
        for name in names:
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name)
        write_csv(tmp_path / f"{table}.csv", names, rng.uniform(5, 35, (len(names), 5, 2)))
    return tmp_path
