"""Large folders and files: listed and checked, not decoded, and in little memory."""

import json
import tracemalloc
from pathlib import Path

import pytest

from benchmarks import large_data
from zoo_lightning.data import images
from zoo_lightning.data.images import SquareImages
from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv

BOUNDS = {
    "image folder": (10, 1024),
    "images with landmarks": (10, 1024),
    "landmark CSV, 5 points": (20, 1024),
    "class list": (20, 1024),
}
"""Seconds of a core and megabytes that the cases of the benchmark may take."""


@pytest.mark.slow
@pytest.mark.parametrize("name", BOUNDS)
def test_large_data_are_read_within_bounds(name):
    found = large_data.measure(name, large_data.CASES[name][2])
    seconds, megabytes = BOUNDS[name]
    assert found["cpu_seconds"] < seconds, found
    assert found["memory_mb"] < megabytes, found


@pytest.mark.parametrize("name", large_data.CASES)
def test_the_cases_are_made_and_measured(tmp_path, name, capsys):
    make, _, _ = large_data.CASES[name]
    make(tmp_path, 1000)
    assert large_data.main(["--here", name, "--output", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["seconds"] >= 0
    assert 0 <= found["memory_mb"] < 500


def test_a_landmark_file_takes_little_more_memory_than_its_numbers(tmp_path):
    large_data.make_landmarks(tmp_path, 20_000, 5, images=False)
    tracemalloc.start()
    table = read_landmark_csv(tmp_path / "train.csv")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.points.shape == (20_000, 5, 2)
    # 40 bytes of numbers and the image's name; as Python's numbers it would be some 500.
    assert peak / len(table) < 200


def test_more_images_than_a_minute_allows_are_not_decoded_at_the_start(tmp_path, monkeypatch):
    paths = [large_data.make_image(tmp_path / f"{number}.jpg") for number in range(5)]
    opened, real = [], images.open_rgb

    def noted(path, **options):
        opened.append(path)
        return real(path, **options)

    monkeypatch.setattr(images, "open_rgb", noted)
    assert SquareImages(paths, 8, 1024).kept is not None
    assert sorted(opened) == sorted(paths)
    opened.clear()
    monkeypatch.setattr(images, "MOST_KEPT", 4)
    many = SquareImages(paths, 8, 1024)
    assert many.kept is None
    assert many.sizes == [(64, 64)] * 5
    assert opened == []
    assert many[3].shape == (8, 8, 3)
    assert opened == [Path(paths[3])]
