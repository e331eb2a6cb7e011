"""Squares from image files: geometry, modes, caching, unreadable files."""

import struct
import zlib

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
from zoo_lightning.data.values import find_value_range
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


RAMP = np.linspace(0, 65535, 64).round().astype(np.uint16).reshape(1, 64).repeat(8, axis=0)
"""Sixteen bit, from black to white."""


def write_ramp(path, kind):
    """The ramp in a form of 16 bit or of floating numbers."""
    if kind == "big-endian":
        height, width = RAMP.shape
        Image.frombytes("I;16B", (width, height), RAMP.astype(">u2").tobytes()).save(path)
    elif kind == "32 bit":
        Image.fromarray(RAMP.astype(np.int32)).save(path)
    elif kind == "fractions":
        Image.fromarray((RAMP / 65535).astype(np.float32)).save(path)
    elif kind == "floating bytes":
        Image.fromarray((RAMP / 257).astype(np.float32)).save(path)
    else:
        Image.fromarray(RAMP).save(path)


@pytest.mark.parametrize(
    ("suffix", "kind"),
    [
        ("png", "16 bit"),
        ("tif", "16 bit"),
        ("tif", "big-endian"),
        ("tif", "32 bit"),
        ("tif", "fractions"),
        ("tif", "floating bytes"),
    ],
)
def test_deep_images_are_scaled_and_not_clipped(tmp_path, suffix, kind):
    path = tmp_path / f"a.{suffix}"
    write_ramp(path, kind)
    found = np.asarray(open_rgb(path)).astype(int)
    assert found.shape == (8, 64, 3)
    assert np.abs(found - (RAMP / 257)[..., None]).max() <= 1


def write_png16(path, pixels):
    """An RGB PNG of 16 bit, which Pillow cannot write."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize(("bits", "warned"), [(12, True), (14, True), (16, False)])
def test_a_colour_png_of_16_bit_that_holds_fewer_is_named(tmp_path, recwarn, bits, warned):
    pixels = np.stack([RAMP >> (16 - bits)] * 3, axis=-1)
    write_png16(tmp_path / "a.png", pixels)
    Image.new("RGB", (4, 4)).save(tmp_path / "dark.png")
    assert find_value_range([tmp_path / "a.png", tmp_path / "dark.png"], "data") is None
    lines = [str(each.message) for each in recwarn if "1 colour PNGs" in str(each.message)]
    assert len(lines) == warned


def test_a_colour_png_of_16_bit_is_scaled(tmp_path):
    pixels = np.stack([RAMP, RAMP[:, ::-1], RAMP // 2], axis=-1)
    write_png16(tmp_path / "a.png", pixels)
    found = np.asarray(open_rgb(tmp_path / "a.png")).astype(int)
    assert np.abs(found - pixels / 257).max() <= 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
def test_what_is_transparent_is_put_on_white(tmp_path, mode):
    path = tmp_path / "a.png"
    image = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    image.paste((90, 90, 90, 255), (0, 0, 2, 2))
    if mode in ("RGB", "L"):  # one colour that counts as transparent
        image = Image.new(mode, (4, 2), 0)
        image.paste(90 if mode == "L" else (90, 90, 90), (0, 0, 2, 2))
        image.save(path, transparency=0 if mode == "L" else (0, 0, 0))
    else:
        (image.quantize() if mode == "P" else image.convert(mode)).save(path)
    assert np.asarray(open_rgb(path))[:, :, 0].tolist() == [[90, 90, 255, 255]] * 2


def test_half_transparent_colours_are_mixed_with_white(tmp_path):
    Image.new("RGBA", (2, 2), (0, 100, 255, 128)).save(tmp_path / "a.png")
    found = np.asarray(open_rgb(tmp_path / "a.png"))[0, 0].astype(int)
    assert np.abs(found - [127, 177, 255]).max() <= 1


def test_cmyk_jpegs_have_their_colours(tmp_path):
    for name, colour in {"red": (220, 20, 20), "blue": (20, 20, 220)}.items():
        path = tmp_path / f"{name}.jpg"
        Image.new("RGB", (16, 16), colour).convert("CMYK").save(path, quality=95)
        assert np.abs(np.asarray(open_rgb(path))[8, 8].astype(int) - colour).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_applies_the_rotation_of_exif_and_nothing_else_does(tmp_path, orientation):
    pixels = np.arange(6, dtype=np.uint8).reshape(2, 3)[..., None].repeat(3, -1) * 40
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path, exif=exif)
    seen = {
        1: pixels,
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: np.rot90(pixels, -1),
        7: np.rot90(pixels, 2).transpose(1, 0, 2),
        8: np.rot90(pixels),
    }
    assert (np.asarray(open_rgb(path, upright=True)) == seen[orientation]).all()
    assert (np.asarray(open_rgb(path)) == pixels).all()


def test_a_damaged_exif_header_leaves_the_image_as_it_is_stored(tmp_path):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 6)).save(path, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12")
    assert open_rgb(path, upright=True).size == (8, 6)


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tif", "webp", "ppm"])
def test_damaged_files_open_or_are_named(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for _ in range(60):
        damaged = bytearray(whole)
        start = int(rng.integers(0, len(whole)))
        count = int(rng.integers(1, 100))
        damaged[start : start + count] = rng.integers(0, 256, count, dtype=np.uint8).tobytes()
        path.write_bytes(damaged)
        try:
            assert open_rgb(path, upright=True).mode == "RGB"
        except DataError as error:
            assert f"a.{suffix} cannot be read" in str(error)  # noqa: PT017


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
