"""Image files that are damaged, oversized or something else than they say: refused by name."""

import io
import os
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from zoo_lightning.data import image_files
from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.data.image_files import list_images
from zoo_lightning.data.images import (
    SquareImages,
    check_images,
    crop_region,
    fit_square,
    image_size,
    open_rgb,
    region_transform,
    square_transform,
    transform_points,
)
from zoo_lightning.data.transforms import evaluation_transform
from zoo_lightning.errors import DataError
from zoo_lightning.prediction.inputs import Images, Item

NOISE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
BLACK = Image.new("RGB", (60, 40))


def encoded(kind: str, **options) -> bytes:
    """A small image in a format."""
    stream = io.BytesIO()
    Image.fromarray(NOISE).save(stream, kind, **options)
    return stream.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A black PNG of a bit a pixel: a few kilobytes for a thousand million pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    whole = (1 + (width + 7) // 8) * height
    # Of large ones only the beginning is there: nobody must get so far as to miss the rest.
    rows = packer.compress(bytes(min(whole, 1_000_000))) + packer.flush()
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def png_with_text(size: int) -> bytes:
    """A PNG with so many bytes of compressed comment."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * size, zip=True)
    return encoded("PNG", pnginfo=info)


def bmp_of_size(width: int, height: int) -> bytes:
    """A BMP whose header lies about its size."""
    content = bytearray(encoded("BMP"))
    content[18:26] = struct.pack("<ii", width, height)
    return bytes(content)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(x) print\n%%EOF\n"

HOSTILE = {
    "nothing": b"",
    "one byte": b"\x89",
    "text": b"no image at all",
    "zeros": bytes(5000),
    "wrong magic": b"GIF89a" + encoded("PNG")[6:],
    "JPEG cut in half": encoded("JPEG")[:1500],
    "PNG cut in half": encoded("PNG")[:3000],
    "GIF cut in its header": encoded("GIF")[:9],
    "TIFF cut in half": encoded("TIFF")[:3000],
    "WebP cut in half": encoded("WEBP")[:500],
    "decompression bomb": png_of_size(50_000, 50_000),
    "largest PNG there is": png_of_size(2**31 - 1, 2**31 - 1),
    "no pixels": png_of_size(0, 5),
    "lying BMP": bmp_of_size(30_000, 30_000),
    "negative BMP": bmp_of_size(-5, -(2**31)),
    "bomb in a comment": png_with_text(80_000_000),
    "program of PostScript": EPS,
    "archive": b"PK\x03\x04" + bytes(60),
    "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'></svg>",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_a_hostile_image_is_refused_by_name(tmp_path, name, suffix):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=rf"a\.{suffix} cannot be read \(.+\); replace it"):
        open_rgb(path, upright=True)


@pytest.mark.parametrize("name", ["decompression bomb", "largest PNG there is", "lying BMP"])
def test_a_bomb_is_found_by_its_header_before_training(tmp_path, name):
    path = tmp_path / "a.png"
    path.write_bytes(HOSTILE[name])
    with pytest.raises(DataError, match=r"a\.png cannot be read .*exceeds limit"):
        check_images([path])
    with pytest.raises(DataError, match=r"a\.png cannot be read .*exceeds limit"):
        SquareImages([path], 16, cache_mb=0)


def test_a_bomb_in_a_folder_of_classes_stops_the_run_or_is_skipped(class_root):
    (class_root / "train/bee/0.png").write_bytes(HOSTILE["decompression bomb"])
    with pytest.raises(DataError, match=r"bee/0\.png cannot be read .*exceeds limit"):
        ImageFolders(root=str(class_root), image_size=16).setup("fit")
    data = ImageFolders(root=str(class_root), image_size=16, skip_broken=True, val_fraction=0.3)
    with pytest.warns(UserWarning, match="1 of 18 train images are skipped"):
        data.setup("fit")


@pytest.mark.parametrize("kind", ["EPS", "WMF"])
def test_no_format_is_decoded_that_another_program_would_run(kind):
    assert kind not in image_files.decoded_kinds()
    assert {"JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM"} <= {*image_files.decoded_kinds()}


def test_ghostscript_is_never_called(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(os, "system", called.append)
    monkeypatch.setattr("subprocess.Popen.__init__", lambda *args, **options: called.append(args))
    (tmp_path / "a.png").write_bytes(EPS)
    with pytest.raises(DataError, match="cannot be read"):
        open_rgb(tmp_path / "a.png")
    assert not called


def test_a_pipe_in_place_of_an_image_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    found = []

    def read():
        for look in (open_rgb, image_size):
            try:
                look(tmp_path / "a.png")
            except DataError as error:
                found.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(20)
    assert len(found) == 2, "reading waits for the pipe"
    assert all("a.png cannot be read (it is no regular file)" in each for each in found)


@pytest.mark.parametrize("target", ["/dev/zero", "/etc/passwd", "."])
def test_a_link_to_what_is_no_image_is_refused_and_shows_nothing_of_it(tmp_path, target):
    (tmp_path / "a.png").symlink_to(target)
    with pytest.raises(DataError, match=r"a\.png cannot be read") as refused:
        open_rgb(tmp_path / "a.png")
    assert "root:" not in str(refused.value)


def test_a_link_to_an_image_elsewhere_is_followed(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/x.png").write_bytes(encoded("PNG"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.png").symlink_to(tmp_path / "store/x.png")
    (tmp_path / "images/gone.png").symlink_to(tmp_path / "store/gone.png")
    assert (np.asarray(open_rgb(tmp_path / "images/a.png")) == NOISE).all()
    with pytest.raises(DataError, match=r"gone\.png does not exist"):
        open_rgb(tmp_path / "images/gone.png")


def test_folders_that_are_links_count_once_and_circles_are_refused(class_root, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    (store / "x.png").write_bytes(encoded("PNG"))
    bee = class_root / "train/bee"
    for name in ("one", "two"):
        (bee / name).symlink_to(store)
    assert len(list_images(bee).images) == 7
    (store / "back").symlink_to(bee)  # a circle of two, which ends after one round
    assert len(list_images(bee).images) == 7
    (bee / "up").symlink_to("..")
    with pytest.raises(DataError, match=r"The link .*bee/up leads back to .*train, which it lies"):
        list_images(bee)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("GIF", {"append_images": [BLACK] * 3}),
        ("WEBP", {"append_images": [BLACK], "lossless": True}),
        ("PNG", {"append_images": [BLACK] * 2}),
        ("TIFF", {"append_images": [Image.new("RGB", (9, 9))] * 2}),
    ],
)
def test_of_an_animated_image_the_first_picture_is_taken(tmp_path, kind, options):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(kind, save_all=True, **options))
    found = np.asarray(open_rgb(path)).astype(int)
    assert found.shape == NOISE.shape
    assert np.abs(found - NOISE).mean() < (30 if kind == "GIF" else 1)


def test_a_palette_with_several_transparencies_is_put_on_white(tmp_path):
    image = Image.new("P", (4, 1))
    image.putpalette([0, 0, 0, 100, 100, 100, 200, 200, 200, 9, 9, 9])
    image.putdata([0, 1, 2, 3])
    image.save(tmp_path / "a.png", transparency=bytes([0, 255, 128, 0]))
    found = np.asarray(open_rgb(tmp_path / "a.png"))[0, :, 0].astype(float)
    assert np.abs(found - [255, 100, 227, 255]).max() < 2


@pytest.fixture
def small_canvas(monkeypatch):
    """A limit that a small image reaches, so that the arithmetic is what a large one gets."""
    monkeypatch.setattr(image_files, "LARGEST_CANVAS", 100**2)


def brightest(pixels) -> np.ndarray:
    """Centre of mass of the brightness."""
    weight = np.asarray(pixels, float)[..., 0]
    centres = np.arange(len(weight)) + 0.5
    return np.array([weight.sum(0) @ centres, weight.sum(1) @ centres]) / weight.sum()


def test_a_long_strip_does_not_fill_the_memory_and_keeps_its_points(small_canvas):
    pixels = np.zeros((20, 400, 3), np.uint8)
    pixels[8:12, 296:304] = 255
    square = fit_square(Image.fromarray(pixels), 50)
    assert square.size == (50, 50)
    expected = transform_points(np.array([300, 10]), square_transform((400, 20), 50))
    # Half a pixel of the canvas, which is 160 times as large outside of this test.
    assert np.allclose(brightest(square), expected, atol=0.3)


@pytest.mark.parametrize("length", [150, 700])
def test_a_square_far_larger_than_its_image_keeps_its_points(small_canvas, length):
    pixels = np.zeros((60, 80, 3), np.uint8)
    pixels[28:36, 50:58] = 255
    region = np.array([50.0, 20.0, length])
    cut = crop_region(Image.fromarray(pixels), region, 60)
    expected = transform_points(np.array([54, 32]), region_transform(region, 60))
    assert np.allclose(brightest(cut), expected, atol=0.3)


def test_a_strip_of_a_kilobyte_takes_no_gigabytes(tmp_path):
    path = tmp_path / "strip.png"
    path.write_bytes(png_of_size(400_000, 2))
    assert path.stat().st_size < 2000
    made = []
    real = Image.new

    def watched(mode, size, *args):
        made.append(size[0] * size[1])
        return real(mode, size, *args)

    Image.new = watched
    try:
        [square] = SquareImages([path], 32, cache_mb=1)
    finally:
        Image.new = real
    assert square.shape == (32, 32, 3)
    assert max(made) <= image_files.LARGEST_CANVAS


@pytest.mark.parametrize("upright", [False, True])
def test_of_a_strip_the_middle_is_classified(monkeypatch, upright):
    pixels = np.zeros((2, 400_000, 3), np.uint8)
    pixels[:, 199_998:200_002] = 200
    pixels[0, 199_998:200_002] = 100
    image = Image.fromarray(pixels.transpose(1, 0, 2) if upright else pixels)
    made = []
    real = Image.Image.resize

    def watched(self, size, *args, **options):
        made.append(size[0] * size[1])
        return real(self, size, *args, **options)

    monkeypatch.setattr(Image.Image, "resize", watched)
    found = evaluation_transform(64, None)(image)
    assert found.shape == (3, 64, 64)
    assert max(made) <= image_files.LARGEST_CANVAS
    first = found[0].T if upright else found[0]
    assert (first[0] == 100).all()
    assert (first[-1] == 200).all()


@pytest.mark.parametrize("size", [(40, 30), (500, 2), (501, 2), (1, 500)])
def test_the_middle_of_a_strip_is_what_was_seen_of_the_whole(monkeypatch, size):
    image = Image.fromarray(NOISE).resize(size)
    expected = evaluation_transform(16, None)(image)
    monkeypatch.setattr("zoo_lightning.data.transforms.LARGEST_CANVAS", 1)
    assert torch.equal(evaluation_transform(16, None)(image), expected)


@pytest.mark.parametrize("box", [(-9e9, -9e9, 9e9, 9e9), (500, 500, 600, 600), (1, 1, 1.1, 1.1)])
def test_a_face_box_that_does_not_fit_is_reported_with_its_image(tmp_path, box):
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    given = {"size": [3, 8, 8]}
    given["preprocessing"] = {"kind": "square", "around": "face", "margin": 1.0}
    [prepared] = Images([Item(tmp_path / "a.png", "a.png", box)], given)
    assert prepared.pixels is None
    assert "a.png of 60x40 pixels" in prepared.problem
