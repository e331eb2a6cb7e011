"""One scale for images of more than 8 bits: in all data modules, and after training."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data import values
from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.data.classification.lists import ListFiles
from zoo_lightning.data.landmarks.published import LandmarkCSV
from zoo_lightning.data.synthetic.scenes import PhotoMosaics
from zoo_lightning.data.values import Extent, find_value_range, parse_value_range, scale_of
from zoo_lightning.deployment.exporting import export
from zoo_lightning.errors import ConfigError, DataError
from zoo_lightning.prediction.inputs import Images, Item
from zoo_lightning.runs.run_folder import read_checkpoint


@pytest.mark.parametrize(
    ("extent", "scale"),
    [
        (Extent(0, 255, False), (0, 255)),
        (Extent(3, 256, False), (0, 1023)),
        (Extent(0, 3900, False), (0, 4095)),
        (Extent(0, 4096, False), (0, 16383)),
        (Extent(0, 65535, False), (0, 65535)),
        (Extent(0, 0, False), (0, 255)),
        (Extent(0, 900, False), (0, 1023)),
        (Extent(900, 10_000, False), (0, 16383)),
        (Extent(-1000, 3071, False), (-1000, 3071)),
        (Extent(-1, 255, False), (-1, 255)),
        (Extent(-8, -3, False), (-8, -3)),
        (Extent(0, 70000, False), (0, 70000)),
        (Extent(0, 0.4, True), (0, 1)),
        (Extent(0, 0, True), (0, 1)),
        (Extent(-0.02, 1.01, True), (0, 1)),
        (Extent(0, 1.04, True), (0, 1)),
        (Extent(0, 1.2, True), (0, 1.2)),
        (Extent(0, 0.001, True), (0, 0.001)),
        (Extent(0, 1e-4, True), (0, 1e-4)),
        (Extent(0, 231.5, True), (0, 255)),
        (Extent(-3, 258.1, True), (0, 255)),
        (Extent(0, 1000.5, True), (0, 1023)),
        (Extent(0, 4100, True), (0, 4095)),
        (Extent(0, 16000, True), (0, 16383)),
        (Extent(0, 65535, True), (0, 65535)),
        (Extent(-1, 1, True), (-1, 1)),
        (Extent(0, 3.5, True), (0, 3.5)),
        (Extent(-0.05, 3.5, True), (0, 3.5)),
        (Extent(5e5, 5e5, True), (0, 5e5)),
    ],
)
def test_values_have_the_smallest_usual_scale_that_holds_them(extent, scale):
    assert scale_of(extent) == scale


@pytest.mark.parametrize("given", ["0,4095", [0, 4095], (0.0, 4095.0)])
def test_the_option_is_two_numbers(given):
    assert parse_value_range(given) == (0, 4095)


@pytest.mark.parametrize("given", ["4095", "0,1,2", "a,b", [5, 5], "0,inf", "nan,1", [None, 1]])
def test_another_option_is_refused(given):
    with pytest.raises(ConfigError, match="value_range"):
        parse_value_range(given)


def deep(level, kind):
    """An image whose left half is black and whose right half has a level."""
    pixels = np.zeros((24, 24))
    pixels[:, 12:] = level
    return Image.fromarray(pixels.astype(kind))


def write_folders(root, levels, kind, suffix):
    """Two classes, whose images have the given levels in turn; returns the test images."""
    for part, count in (("train", 6), ("test", 1)):
        for name in "ab":
            (root / part / name).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                level = levels[i % len(levels)] if part == "train" else levels[0]
                deep(level, kind).save(root / part / name / f"{part}{name}{i}{suffix}")
    return sorted((root / "test").rglob(f"*{suffix}"))


PLAIN = {"image_size": 24, "num_workers": 0, "val_fraction": 0.3}
PLAIN_CLASSES = {"crop_scale": 1, "flip": 0, "jitter": 0} | PLAIN


def folders(root, **options):
    return ImageFolders(str(root), **PLAIN_CLASSES, **options)


def mosaics(root, **options):
    return PhotoMosaics(str(root), **PLAIN_CLASSES, **options)


def lists(root, **options):
    for part in ("train", "test"):
        files = sorted(path.relative_to(root) for path in (root / part).rglob("*.*"))
        (root / f"{part}.txt").write_text("\n".join(map(str, files)))
    return ListFiles(str(root), **PLAIN_CLASSES, **options)


def landmarks(root, **options):
    points = ",".join(f"x{i},y{i}" for i in range(2))
    for part in ("train", "test"):
        files = sorted(path.relative_to(root) for path in (root / part).rglob("*.*"))
        rows = [f"{file},4,4,20,20" for file in files]
        (root / f"{part}.csv").write_text("\n".join([f"image,{points}", *rows]))
    options = {"augment": False, "group_pattern": ""} | PLAIN | options
    return LandmarkCSV(str(root), images="", **options)


@pytest.mark.parametrize("make", [folders, lists, landmarks, mosaics])
@pytest.mark.parametrize(
    ("levels", "kind", "suffix", "scale"),
    [
        ((1000, 3900), np.uint16, ".png", (0, 4095)),
        ((1000, 3900), np.uint16, ".tif", (0, 4095)),
        ((0.5, 1.01), np.float32, ".tiff", (0, 1)),
        ((50, 200), np.uint8, ".png", None),
    ],
)
def test_all_data_modules_have_one_scale(tmp_path, make, levels, kind, suffix, scale):
    write_folders(tmp_path, levels, kind, suffix)
    module = make(tmp_path)
    module.setup("fit")
    assert module.value_range == scale
    assert module.facts().get("value_range") == (scale and list(scale))
    alone = make(tmp_path)  # a test by itself looks at the training images
    alone.setup("test")
    white = scale[1] if scale else 255
    steps = 256 / (white + 1) if kind is np.uint16 else 255 / white
    expected = [min(int(level * steps + (kind is np.float32) / 2), 255) for level in levels]
    for data_set, draw in ((module.train_set, lambda i: (0, i)), (module.val_set, int)):
        found = {int(data_set[draw(i)]["image"].max()) for i in range(len(data_set))}
        assert found <= set(expected)
    assert int(alone.test_set[0]["image"].max()) == expected[0]
    assert int(alone.test_set[0]["image"].min()) == 0


@pytest.mark.parametrize("make", [folders, lists, landmarks, mosaics])
def test_the_option_holds_for_all_parts(tmp_path, make, monkeypatch):
    write_folders(tmp_path, (1000,), np.uint16, ".png")
    module = make(tmp_path, value_range="0,2000")
    with monkeypatch.context() as patch:
        patch.setattr(values, "_extent_of_file", None)  # nothing is looked for
        module.setup("fit")
    module.setup("test")
    assert int(module.train_set[0, 0]["image"].max()) == 127
    assert int(module.test_set[0]["image"].max()) == 127


def test_of_suffixes_with_8_bits_no_header_is_read(tmp_path, monkeypatch):
    write_folders(tmp_path, (200,), np.uint8, ".jpg")
    monkeypatch.setattr(values, "opened", None)
    module = folders(tmp_path)
    module.setup("fit")
    module.setup("test")
    assert module.value_range is None


def test_integers_and_fractions_have_no_common_scale(tmp_path):
    deep(3000, np.uint16).save(tmp_path / "a.png")
    deep(0.5, np.float32).save(tmp_path / "b.tif")
    with pytest.raises(DataError, match="value_range"):
        find_value_range([tmp_path / "a.png", tmp_path / "b.tif"], "images")


def test_images_of_8_bits_among_others_keep_their_values(tmp_path):
    write_folders(tmp_path, (4000,), np.uint16, ".png")
    for path in (tmp_path / "train" / "a").glob("*.png"):
        deep(100, np.uint8).save(path)
    module = folders(tmp_path)
    module.setup("fit")
    assert module.value_range == (0, 4095)
    found = {int(module.train_set[0, i]["image"].max()) for i in range(len(module.train_set))}
    assert found == {100, 4000 // 16}


def test_the_scale_is_said_in_one_line(tmp_path, caplog):
    write_folders(tmp_path, (1000, 3900), np.uint16, ".png")
    module = folders(tmp_path)
    module.setup("fit")
    module.setup("test")
    lines = [each.getMessage() for each in caplog.records if "value_range" in each.getMessage()]
    assert len(lines) == 1
    assert "0 is taken for black and 4095 for white" in lines[0]


def write_signed(path, pixels, order):
    """A TIFF of signed numbers of 16 bits, which Pillow reads but does not write."""
    image = Image.frombytes("I;16" if order == "<" else "I;16B", pixels.shape[::-1],
                            pixels.astype(f"{order}i2").tobytes())  # fmt: skip
    image.save(path, tiffinfo={339: 2})  # SampleFormat


@pytest.mark.parametrize("make", [folders, lists, landmarks, mosaics])
@pytest.mark.parametrize("kind", ["signed", "signed, big-endian", "32 bits", "floating"])
def test_values_below_0_are_refused_with_their_file(tmp_path, make, kind):
    write_folders(tmp_path, (1000,), np.float32 if kind == "floating" else np.int32, ".tif")
    odd = sorted((tmp_path / "train" / "b").iterdir())[2]
    pixels = np.full((24, 24), 500)
    pixels[3, 4] = -1000
    if kind.startswith("signed"):
        write_signed(odd, pixels, ">" if "big" in kind else "<")
    else:
        kind = np.float32 if kind == "floating" else np.int32
        Image.fromarray(pixels.astype(kind)).save(odd)
    with pytest.raises(DataError, match="values below 0, down to -1000") as refused:
        make(tmp_path).setup("fit")
    assert str(odd) in str(refused.value)
    assert "--data.value_range=-1000,1000" in str(refused.value)
    with pytest.raises(DataError, match="values below 0"):  # of the training, in a test by itself
        make(tmp_path).setup("test")
    module = make(tmp_path, value_range="-1000,1000")
    module.setup("fit")
    seen = {int(value) for i in range(len(module.train_set))
            for value in module.train_set[0, i]["image"].unique()}  # fmt: skip
    assert {127, 255} <= seen or {128, 255} <= seen


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_black_images_are_black(tmp_path, kind):
    write_folders(tmp_path, (0,), kind, ".tif")
    module = folders(tmp_path)
    module.setup("fit")
    module.setup("test")
    assert not module.train_set[0, 0]["image"].any()
    assert not module.test_set[0]["image"].any()


@pytest.mark.parametrize("make", [folders, lists, landmarks, mosaics])
@pytest.mark.parametrize(("kind", "white"), [(np.uint16, 4000), (np.float32, 0.9)])
def test_test_images_beyond_the_trainings_values_are_clipped_and_counted(
    tmp_path, make, kind, white
):
    bright, *_ = write_folders(tmp_path, (white,), kind, ".tif")
    deep(white * 10, kind).save(bright)
    for alone in (False, True):
        module = make(tmp_path)
        if not alone:
            module.setup("fit")
        with pytest.warns(UserWarning, match="beyond those of the training") as caught:
            module.setup("test")
        (line,) = [str(each.message) for each in caught if "beyond" in str(each.message)]
        assert "1 of 2 images" in line
        assert str(bright) in line
        if make is not mosaics:
            assert int(module.test_set[0]["image"].max()) == 255


def test_a_little_beyond_1_is_clipped_and_said(tmp_path, caplog):
    write_folders(tmp_path, (0.5, 1.03), np.float32, ".tif")
    module = folders(tmp_path)
    module.setup("fit")
    module.setup("test")
    assert module.value_range == (0, 1)
    assert {int(module.train_set[0, i]["image"].max()) for i in range(8)} == {128, 255}
    (line,) = [m.getMessage() for m in caplog.records if "value_range" in m.getMessage()]
    assert "values from 0 to 1.03; 0 is taken for black and 1 for white, and what lies" in line


@pytest.fixture
def run(tiny, tmp_path, command):
    """A run on images of 12 bits whose test images are darker; returns the test images."""
    files = write_folders(tmp_path / "deep", (1000, 3900), np.uint16, ".png")
    init = PLAIN_CLASSES | {"root": str(tmp_path / "deep"), "batch_size": 4}
    tiny(
        **{
            "trainer.max_steps": 2,
            "trainer.val_check_interval": 2,
            "model.class_path": "ClassificationTask",
            "model.init_args.schedule": "constant",
            "data": {"class_path": "ImageFolders", "init_args": init},
        }
    )
    done = command("fit", "--experiment", "tiny", "--run_dir", "run")
    assert done.status == 0, done.err
    return files


def test_the_scale_is_kept_with_the_run_and_used_by_all_that_follows(run, command, tmp_path):
    best = Path("run/checkpoints/best.ckpt")
    assert read_checkpoint(best)["zoo_lightning"]["data"]["value_range"] == [0, 4095]
    # Without training images a test would find another scale.
    for path in (tmp_path / "deep" / "train").rglob("*.png"):
        deep(255, np.uint16).save(path)
    again = command("test", "--ckpt_path", "run", "--output", "again")
    assert again.status == 0, again.err
    summaries = [json.loads(Path(f"{name}/summary.json").read_text()) for name in ("run", "again")]
    assert summaries[0]["test"] == summaries[1]["test"]
    other = command("test", "--ckpt_path", "run", "--data.value_range", "0,65535")
    other.refused("value_range is [0.0, 4095.0] in the checkpoint, [0.0, 65535.0] here")

    folder = export("run", "timm", "out")
    config = json.loads((folder / "config.json").read_text())
    given = config["zoo_lightning"]["input"]
    assert given["value_range"] == [0, 4095]
    assert "4095 becomes 1" in (folder / "README.md").read_text()
    prepared = Images([Item(run[0], "a")], given)[0]
    assert torch.equal(prepared.pixels.amax(), torch.tensor(62, dtype=torch.uint8))  # 1000 of 4095
    found = command("predict", "--ckpt_path", "run", "--images", run[0], "--output", "predicted")
    assert found.status == 0, found.err
    deep(5000, np.uint16).save("bright.png")
    with pytest.warns(UserWarning, match=r"1 of 2 images .* beyond .*, 0 to 4095: 0 to 5000, "):
        command("predict", "--ckpt", "run", "--images", run[0], "bright.png", "--output", "more")


def test_a_resumed_run_keeps_its_scale(run, command, tmp_path):
    for path in (tmp_path / "deep" / "train").rglob("*.png"):
        deep(255, np.uint16).save(path)
    goes_on = ("fit", "--experiment", "tiny", "--ckpt_path", "run/checkpoints/last.ckpt")
    done = command(*goes_on, "--trainer.max_steps", 4)
    assert done.status == 0, done.err
    last = read_checkpoint(Path("run/checkpoints/last.ckpt"))
    assert last["global_step"] == 4
    assert last["zoo_lightning"]["data"]["value_range"] == [0, 4095]
