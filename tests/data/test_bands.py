"""Images of chosen bands: what is read of files, what stands for it in the network, refusals."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image

from zoo_lightning.data.band_files import read_bands
from zoo_lightning.data.bands import BandJitter, BandReader, colour_of, parse_bands, reader_from
from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.errors import ConfigError, DataError

NAMES = ("blue", "green", "red", "nir")

GDAL = "".join(
    f'<Item name="DESCRIPTION" sample="{i}" role="description">{name}</Item>'
    for i, name in enumerate(NAMES)
)


def write_tiff(path, pixels, names=True, nodata=None, **options):
    """A TIFF of planes, with the names and the nodata value that GDAL writes."""
    tags = [(42112, 2, 0, f"<GDALMetadata>{GDAL}</GDALMetadata>", True)] if names else []
    tags += [] if nodata is None else [(42113, 2, 0, str(nodata), True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"photometric": "minisblack", "planarconfig": "separate"} | options
    tifffile.imwrite(path, pixels, extratags=tags, metadata=None, **options)


def pixels_of(label, rng, kind=np.uint16):
    """Four bands of 20x24 pixels, of which one is brighter by class."""
    pixels = rng.normal(1000, 100, (4, 20, 24))
    pixels[label] += 2000
    return pixels.astype(kind)


@pytest.fixture
def root(tmp_path):
    """Image folders of three classes in TIFF files of four bands."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for label, name in enumerate("abc"):
            for i in range(count):
                write_tiff(tmp_path / "data" / part / name / f"{i}.tif", pixels_of(label, rng))
    return tmp_path / "data"


def folders(root, **options):
    """The data module, without augmentation and workers."""
    plain = {"crop_scale": 1, "flip": 0, "jitter": 0, "val_fraction": 0.34, "num_workers": 0}
    return ImageFolders(str(root), image_size=16, batch_size=4, **plain | options)


PIXELS = np.arange(5 * 40 * 24, dtype=np.uint16).reshape(5, 40, 24)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: tifffile.imwrite(path, PIXELS, photometric="minisblack"),
        lambda path: tifffile.imwrite(
            path, PIXELS, photometric="minisblack", planarconfig="separate", compression="lzw"
        ),
        lambda path: tifffile.imwrite(
            path, PIXELS.transpose(1, 2, 0), photometric="minisblack", planarconfig="contig"
        ),
        lambda path: tifffile.imwrite(path, PIXELS.transpose(1, 2, 0)),
        lambda path: tifffile.imwrite(path, PIXELS.astype(">u2"), byteorder=">"),
        lambda path: np.save(path.with_suffix(".npy"), PIXELS),
        lambda path: np.save(path.with_suffix(".npy"), PIXELS.transpose(1, 2, 0)),
    ],
    ids=["pages", "planes", "interleaved", "array", "big endian", "npy", "npy, bands last"],
)
def test_bands_are_found_whatever_their_axis(tmp_path, write):
    write(tmp_path / "a.tif")
    [file] = tmp_path.iterdir()
    found = read_bands(file)
    assert np.array_equal(found.pixels, PIXELS)
    assert found.pixels.dtype == np.uint16
    assert not found.names


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        ("L", ("grey",)),
        ("LA", ("grey", "alpha")),
        ("RGB", ("red", "green", "blue")),
        ("RGBA", ("red", "green", "blue", "alpha")),
        ("I;16", ("grey",)),
    ],
)
def test_png_names_its_bands_by_its_mode(tmp_path, mode, names):
    image = Image.effect_noise((9, 7), 50).convert("RGBA")
    image = Image.fromarray(np.full((7, 9), 3000, np.uint16)) if mode == "I;16" else image
    (image if mode == "I;16" else image.convert(mode)).save(tmp_path / "a.png")
    found = read_bands(tmp_path / "a.png")
    assert found.names == names
    assert found.pixels.shape == (len(names), 7, 9)


def test_names_and_nodata_come_from_what_gdal_writes(tmp_path):
    write_tiff(tmp_path / "a.tif", pixels_of(0, np.random.default_rng(0)), nodata=-9999)
    found = read_bands(tmp_path / "a.tif")
    assert found.names == NAMES
    assert found.nodata == -9999


def test_a_npy_file_is_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy"):
        read_bands(tmp_path / "a.npy")


@pytest.mark.parametrize("kind", [np.complex64, "M8[s]"])
def test_values_that_are_no_numbers_are_refused(tmp_path, kind):
    np.save(tmp_path / "a.npy", np.zeros((2, 4, 4), kind))
    with pytest.raises(DataError, match=r"a\.npy has values of type"):
        read_bands(tmp_path / "a.npy")


def test_colours_of_16_bits_in_png_are_refused(tmp_path):
    import zlib

    def chunk(kind, data):
        body = kind + data
        return len(data).to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")

    head = chunk(b"IHDR", bytes([0, 0, 0, 1, 0, 0, 0, 1, 16, 2, 0, 0, 0]))
    data = chunk(b"IDAT", zlib.compress(bytes(7)))
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + head + data + chunk(b"IEND", b""))
    with pytest.raises(DataError, match=r"a\.png is a colour PNG of 16 bits"):
        read_bands(path)


def test_a_compression_without_its_library_says_what_to_install(tmp_path):
    write_tiff(tmp_path / "a.tif", PIXELS, names=False, compression="zstd")
    code = (
        "import sys; sys.modules['imagecodecs'] = None\n"
        "from pathlib import Path\n"
        "from zoo_lightning.data.band_files import read_bands\n"
        "from zoo_lightning.errors import DataError\n"
        "try: read_bands(Path(sys.argv[1]))\n"
        "except DataError as error: print(error)\n"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "a.tif")]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "a.tif has the compression ZSTD" in said
    assert "pip install imagecodecs" in said


def test_mean_and_deviation_are_those_of_the_training_pixels(root):
    data = folders(root, bands="all")
    data.setup("fit")
    files = [source for source, _ in data.train_set.samples]
    pixels = np.concatenate([read_bands(f).pixels.reshape(4, -1) for f in files], axis=1)
    low, high = data.value_range
    assert low == 0
    assert np.allclose(data.mean, pixels.mean(axis=1) / high)
    assert np.allclose(data.std, pixels.std(axis=1) / high)
    assert len(files) < 18  # those of validation are left out


def test_deep_images_leave_the_data_set_normalised_and_exact(root):
    data = folders(root, bands=["nir", "red"], resize=20)
    data.setup("test")
    data.image_size = 16
    image = data.test_set[0]["image"]
    assert image.dtype == torch.float32
    assert image.shape == (2, 16, 16)
    assert data.channel_names == ["nir", "red"]
    assert data.in_chans == 2
    batch = data.on_after_batch_transfer({"image": image[None]}, 0)
    assert torch.equal(batch["image"][0], image)
    reader = data.test_set.reader
    raw = read_bands(data.test_set.sources[0]).pixels[[3, 2]]
    opened = reader.image(data.test_set.sources[0]).double().numpy()
    assert np.abs(opened * data.value_range[1] - raw).max() < 1e-3  # of 16 bits nothing is lost


def test_bytes_stay_bytes_and_are_normalised_on_the_device(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in "ab":
            for i in range(4):
                file = tmp_path / part / name / f"{i}.npy"
                file.parent.mkdir(parents=True, exist_ok=True)
                np.save(file, rng.integers(0, 256, (6, 16, 16), dtype=np.uint8))
    data = folders(tmp_path, bands="all", jitter=0.3)
    data.setup("fit")
    image = data.train_set[(0, 0)]["image"]
    assert image.dtype == torch.uint8
    assert image.shape == (6, 16, 16)
    batch = data.on_after_batch_transfer({"image": image[None]}, 0)["image"]
    assert batch.shape == (1, 6, 16, 16)
    assert float(batch.mean().abs()) < 0.5


def test_statistics_that_are_given_are_taken(root):
    given = {"mean": (0.1, 0.2), "std": (0.3, 0.4), "value_range": (0, 5000)}
    data = folders(root, bands=[0, 1], **given)
    data.setup("fit")
    assert (data.mean, data.std) == ((0.1, 0.2), (0.3, 0.4))
    with pytest.raises(ConfigError, match="`mean` must be 2 numbers"):
        folders(root, bands=[0, 1], **given | {"mean": (0.1, 0.2, 0.3)}).setup("fit")
    with pytest.raises(ConfigError, match="units of `value_range`"):
        folders(root, bands=[0, 1], mean=(0.1, 0.2), std=(0.3, 0.4)).setup("fit")


def test_a_file_with_bands_in_another_order_is_read_by_their_names(root, tmp_path):
    file = root / "train" / "a" / "0.tif"
    before = read_bands(file)
    names = "".join(
        f'<Item name="DESCRIPTION" sample="{i}">{name}</Item>' for i, name in enumerate(NAMES[::-1])
    )
    tags = [(42112, 2, 0, f"<GDALMetadata>{names}</GDALMetadata>", True)]
    tifffile.imwrite(
        file, before.pixels[::-1], photometric="minisblack", planarconfig="separate",
        extratags=tags, metadata=None,
    )  # fmt: skip
    reader = BandReader(("red", "nir")).settled(root / "train" / "b" / "0.tif")
    assert np.array_equal(reader.raw(file).pixels, before.pixels[[2, 3]])


def missing_in(root, value, kind=np.float32, **options):
    """All files with one missing value each, or an infinite one."""
    rng = np.random.default_rng(1)
    for path in sorted(root.rglob("*.tif")):
        pixels = pixels_of("abc".index(path.parent.name), rng, kind)
        if path.name == "1.tif":
            pixels[2, 3, 4] = value
        write_tiff(path, pixels, **options)


@pytest.mark.parametrize(
    ("value", "options", "said"),
    [
        (np.nan, {}, "1.tif has 1 values NaN in band 'red'; set `nodata: nan`"),
        (-9999, {"nodata": -9999}, "-9999, which the file calls nodata, in band 'red'"),
        (np.inf, {}, "1.tif has infinite values in band 'red'"),
    ],
)
def test_missing_and_infinite_values_are_refused_before_training(root, value, options, said):
    missing_in(root, value, **options)
    with pytest.raises(DataError) as error:
        folders(root, bands="all").setup("fit")
    assert said in str(error.value)
    data = folders(root, bands="all", skip_broken=True)
    with pytest.warns(UserWarning, match="3 of 18 train images are skipped"):
        data.setup("fit")


@pytest.mark.parametrize(
    ("value", "nodata", "options"),
    [(np.nan, "nan", {}), (-9999, -9999, {}), (-9999, "nan", {"nodata": -9999})],
)
def test_missing_values_become_the_mean_of_their_band(root, value, nodata, options):
    missing_in(root, value, **options)
    data = folders(root, bands="all", nodata=nodata)
    data.setup("fit")
    assert min(data.mean) > 0  # the value itself is not in it
    reader = data.train_set.reader
    image = reader.image(root / "train" / "a" / "1.tif")
    assert float(image[2, 3, 4]) == pytest.approx(data.mean[2])
    assert torch.isfinite(data.train_set[(0, 0)]["image"]).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: write_tiff(p, PIXELS, names=False), "has 5 bands, the first of the data has 4"),
        (lambda p: write_tiff(p, np.zeros((4, 8, 8), np.uint8)), "has values of 8 bits"),
        (lambda p: p.write_bytes(b"II*\0 no image"), "cannot be read"),
    ],
    ids=["another number", "another type", "damaged"],
)
def test_a_file_unlike_the_first_is_named(root, change, said):
    file = root / "train" / "b" / "3.tif"
    change(file)
    with pytest.raises(DataError) as error:
        folders(root, bands="all").setup("fit")
    assert said in str(error.value)
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bands": ["red", "swir"]}, "has no band 'swir'; it has blue, green, red, nir"),
        ({"bands": [4]}, "has no band 4"),
        ({"bands": ["red", 2]}, "each band once"),
        ({"bands": "all", "band_names": ["a", "b"]}, "has 4, got 2 names"),
        ({"bands": "all", "rgb_bands": ["red", "x", "nir"]}, "'x' is none of the bands in use"),
        ({"bands": "all", "rgb_bands": ["red", "nir"]}, "three bands or one"),
        ({"bands": []}, "`bands` must be grey, all, or names"),
        ({"bands": "all", "nodata": "none"}, "`nodata` must be a number or nan"),
        ({"nodata": 0}, "give `bands`"),
        ({"mean": (0.5,) * 4}, "give `bands`"),
    ],
)
def test_options_that_fit_no_file_are_refused(root, options, said):
    with pytest.raises(ConfigError) as error:
        folders(root, **options).setup("fit")
    assert said in str(error.value)


def test_grey_images_are_one_channel_and_look_as_they_did(tmp_path):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in "ab":
            for i in range(4):
                file = tmp_path / part / name / f"{i}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (20, 30), dtype=np.uint8)).save(file)
    usual, grey = folders(tmp_path), folders(tmp_path, bands="grey")
    for data in (usual, grey):
        data.setup("fit")
        data.setup("test")
    assert grey.in_chans == 1
    assert grey.channel_names is None
    assert torch.equal(grey.test_set[0]["image"], usual.test_set[0]["image"][:1])
    assert grey.mean[0] == pytest.approx(0.5, abs=0.02)
    assert torch.equal(grey.test_set.picture(grey.test_set[0]["image"]), usual.test_set[0]["image"])


def test_colour_files_are_read_as_grey(class_root):
    data = folders(class_root, bands="grey")
    data.setup("test")
    image = Image.open(data.test_set.sources[0]).convert("L")
    assert data.test_set.reader.image(data.test_set.sources[0]).tobytes() == image.tobytes()


def test_deep_grey_keeps_its_depth(tmp_path):
    for part in ("train", "test"):
        for label, name in enumerate("ab"):
            for i in range(4):
                file = tmp_path / part / name / f"{i}.tif"
                write_tiff(file, PIXELS[0] + np.uint16(1000 * label), names=False)
    data = folders(tmp_path, bands="grey")
    data.setup("test")
    assert data.test_set[0]["image"].shape == (1, 16, 16)
    assert len(torch.unique(data.test_set[0]["image"])) > 250


def test_pictures_show_the_bands_that_are_asked_for(root):
    data = folders(root, bands="all", rgb_bands=["nir"])
    data.setup("test")
    picture = data.test_set.picture(data.test_set[0]["image"])
    assert picture.dtype == torch.uint8
    assert torch.equal(picture[0], picture[2])
    assert folders_shown(root, "all") == [2, 1, 0]  # red, green, blue by their names
    assert folders_shown(root, ["nir", "green"]) == [0]


def folders_shown(root, bands):
    """Numbers of the channels that pictures show."""
    data = folders(root, bands=bands)
    data.setup("test")
    return data.shown


def test_facts_are_enough_to_read_images_again(root):
    data = folders(root, bands=["nir", "red"], nodata="nan")
    data.setup("test")
    facts = json.loads(json.dumps(data.facts()))
    reader = reader_from(facts["bands"], facts["value_range"], facts["mean"], facts["std"])
    file = data.test_set.sources[0]
    assert torch.equal(reader.image(file), data.test_set.reader.image(file))


def test_jitter_keeps_relations_between_bands():
    torch.manual_seed(0)
    image = torch.rand(5, 8, 8)
    image[1] = 2 * image[0]
    changed = BandJitter(0.3)(image)
    assert torch.allclose(changed[1], 2 * changed[0])
    assert not torch.allclose(changed, image)


def test_words_of_the_command_line_are_parsed():
    assert parse_bands("red, nir,3") == ("red", "nir", 3)
    assert parse_bands("[0,1]") == (0, 1)
    assert parse_bands("gray") == "grey"
    assert colour_of("R") == "red"


def test_data_that_read_images_themselves_refuse_bands(root):
    class Other(ImageFolders):
        reads_bands = False

    with pytest.raises(ConfigError, match="`bands` is not for Other"):
        Other(str(root), bands="all")
    assert Other(str(root)).in_chans == 3


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("red,nir,red,blue", "each band once"),
        ("nir,red,green,blue", "must have the order of the files' bands.*states blue, green"),
    ],
)
def test_names_that_contradict_the_files_or_themselves_are_refused(tmp_path, names, said):
    for number, label in enumerate(("ant", "bee")):
        for part in ("train", "test"):
            (tmp_path / part / label).mkdir(parents=True)
            for each in range(4):
                pixels = np.full((4, 12, 12), 100 * number + each, np.uint16)
                path = tmp_path / part / label / f"{each}.tif"
                write_tiff(path, pixels)
    with pytest.raises(ConfigError, match=said):
        folders(tmp_path, bands="red,nir", band_names=names).setup("fit")
