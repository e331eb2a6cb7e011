"""Squares from image files: geometry, modes, caching, unreadable files."""

import numpy as np
import pytest
from PIL import Image

from zoo_lightning.data.images import (
    SquareImages,
    crop_region,
    fit_square,
    inverse_affine,
    open_rgb,
    region_transform,
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


def marker(size, centre, half=3):
    """A white square of 2 * half pixels around a corner of pixels, on grey."""
    width, height = size
    pixels = np.full((height, width, 3), 60, np.uint8)
    x, y = centre
    pixels[y - half : y + half, x - half : x + half] = 255
    return pixels


def brightest(pixels):
    """Centre of mass of what is brighter than the ground."""
    weight = np.clip(np.asarray(pixels, float)[..., 0] - 70, 0, None)
    centres = np.arange(len(weight)) + 0.5
    return np.array([weight.sum(0) @ centres, weight.sum(1) @ centres]) / weight.sum()


@pytest.mark.parametrize("side", [24, 64, 200])
@pytest.mark.parametrize(
    "region", [(60, 40, 50), (57.3, 44.8, 61.7), (10, 10, 130), (60, 40, 20.5), (60, 40, 250)]
)
def test_points_stay_on_their_features_when_a_face_is_cut_out(side, region):
    pixels = marker((120, 80), (60, 40))
    cut = crop_region(Image.fromarray(pixels), np.array(region), side)
    assert cut.size == (side, side)
    expected = transform_points(np.array([60, 40]), region_transform(np.array(region), side))
    assert np.allclose(brightest(cut), expected, atol=0.03 * side**0.5)


def test_what_lies_outside_the_image_is_black():
    cut = np.asarray(crop_region(Image.new("RGB", (20, 20), "white"), np.array([0, 20, 20]), 40))
    assert (cut[:18, 22:] == 255).all()
    assert (cut[:, :18] == 0).all()
    assert (cut[22:] == 0).all()


def test_shrinking_a_face_does_not_alias():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 255
    cut = np.asarray(crop_region(Image.fromarray(stripes), np.array([200, 200, 300]), 30))
    assert np.ptp(cut) < 30
    assert abs(cut.mean() - 127.5) < 5


def test_a_whole_square_image_is_the_same_as_its_own_region():
    pixels = np.random.default_rng(0).integers(0, 255, (50, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    cut = np.asarray(crop_region(image, np.array([25, 25, 50]), 50))
    assert (cut == pixels).all()


@pytest.mark.parametrize("cache_mb", [0, 1])
def test_faces_are_cut_out_of_files_and_arrays_alike(paths, cache_mb):
    regions = np.array([[8.5 + i, 9, 12.5] for i in range(len(paths))])
    files = SquareImages(paths, 16, cache_mb, regions=regions)
    arrays = SquareImages(
        [np.asarray(Image.open(path)) for path in paths], 16, cache_mb, regions=regions
    )
    assert files.sizes == arrays.sizes
    for i in range(len(paths)):
        assert (files[i] == arrays[i]).all()
        assert np.allclose(files.transform(i), region_transform(regions[i], 16))


def test_grey_arrays_become_rgb():
    images = SquareImages([np.full((6, 8), 7, np.uint8)], 8, 1)
    assert images.sizes == [(8, 6)]
    assert images[0].shape == (8, 8, 3)
    assert images[0][4].tolist() == [[7, 7, 7]] * 8


def test_small_faces_keep_their_side_unless_enlarged(paths):
    regions = np.full((len(paths), 3), 10.2)
    small = SquareImages(paths, 16, 1, enlarge=False, regions=regions)
    assert small[0].shape == (11, 11, 3)
    assert np.allclose(small.transform(0), region_transform(regions[0], 11))


@pytest.mark.parametrize("cache_mb", [0, 1])
@pytest.mark.parametrize("region", [(100, 10, 20), (10, -30, 20), (10, 10, 1e6)])
def test_a_face_outside_its_image_is_named(paths, cache_mb, region):
    regions = np.full((len(paths), 3), 10.0)
    regions[3] = region
    with pytest.raises(DataError, match=r"3\.png of 23x20 pixels"):
        SquareImages(paths, 16, cache_mb, regions=regions)
