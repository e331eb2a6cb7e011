"""Squares from image files: geometry, modes, caching, unreadable files."""

import numpy as np
import pytest
from PIL import Image

from zoo_lightning.data.images import (
    SquareImages,
    fit_square,
    inverse_affine,
    open_rgb,
    square_transform,
    transform_points,
)
from zoo_lightning.errors import DataError


def test_points_stay_on_their_features_when_an_image_is_padded_and_resized():
    pixels = np.zeros((50, 121, 3), np.uint8)
    pixels[18:24, 70:78] = 255  # centre at x = 74, y = 21
    square = np.asarray(fit_square(Image.fromarray(pixels), 60), float)[..., 0]
    centres = np.arange(60) + 0.5
    x, y = (square.sum(0) @ centres, square.sum(1) @ centres)
    expected = transform_points(np.array([74, 21]), square_transform((121, 50), 60))
    assert np.allclose(np.array([x, y]) / square.sum(), expected, atol=0.1)


def test_square_images_are_only_resized():
    affine = square_transform((160, 160), 64)
    assert np.allclose(affine, [[0.4, 0, 0], [0, 0.4, 0]])


def test_inverse_affine_undoes_the_affine():
    affine = np.array([[0.3, -0.2, 5], [0.1, 0.7, -2]])
    points = np.random.default_rng(0).normal(size=(9, 2))
    assert np.allclose(
        transform_points(transform_points(points, affine), inverse_affine(affine)), points
    )


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK", "I;16"])
def test_every_kind_of_image_opens_as_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((4, 4), 200 * 256, np.uint16)).save(path)
        assert (np.asarray(open_rgb(path)) == 200).all()
    else:
        Image.new("RGB", (4, 4), "white").convert(mode).save(path)
        assert np.asarray(open_rgb(path)).min() > 250


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.integers(0, 255, (20, 20 + i, 3), dtype=np.uint8)).save(path)
    return paths


def test_images_are_the_same_whether_kept_or_decoded_on_demand(paths):
    kept, on_demand = SquareImages(paths, 16, cache_mb=1), SquareImages(paths, 16, cache_mb=0)
    assert kept.kept is not None
    assert on_demand.kept is None
    assert kept.sizes == on_demand.sizes == [(20 + i, 20) for i in range(6)]
    for i in range(len(paths)):
        assert kept[i].shape == (16, 16, 3)
        assert (kept[i] == on_demand[i]).all()


def test_small_images_keep_their_side_unless_enlarged(paths):
    assert SquareImages(paths, 50, 1, enlarge=False)[2].shape == (22, 22, 3)
    assert SquareImages(paths, 50, 1)[2].shape == (50, 50, 3)


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_all_unreadable_images_are_counted_and_the_first_is_named(paths, cache_mb):
    paths[2].write_bytes(b"no image")
    paths[4].write_bytes(b"")
    with pytest.raises(DataError, match=r"2\.png cannot be read .* 1 more images"):
        SquareImages(paths, 16, cache_mb)


def test_a_truncated_image_is_named(paths):
    paths[1].write_bytes(paths[1].read_bytes()[:-200])
    with pytest.raises(DataError, match=r"1\.png cannot be read"):
        SquareImages(paths, 16, 1)
