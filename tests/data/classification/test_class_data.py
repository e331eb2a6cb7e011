"""What all data modules of classification do: modes of images, broken ones, crops, refusals."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.data.labelled_set import broken_images, open_source
from zoo_lightning.errors import ConfigError, DataError

PUBLISHED = [f"train/{name}.png" for name in ("ant/0", "ant/5", "bee/1", "bee/5", "cat/1", "cat/2")]
"""What is validated by of the three classes, with the default seed and a third of the images."""


@pytest.fixture
def folders(class_root):
    """Function that makes the data module over the three classes."""

    def make(**options):
        options = {"image_size": 16, "batch_size": 4, "num_workers": 0} | options
        return ImageFolders(str(class_root), **options)

    return make


def parts(dataset) -> set[str]:
    """First folder of the samples' names."""
    return {name.split("/")[0] for name in dataset.names}


def test_a_folder_val_is_what_validation_takes(folders, class_root):
    shutil.copytree(class_root / "test", class_root / "val")
    module = folders()
    module.setup("fit")
    module.setup("test")
    assert [parts(each) for each in (module.train_set, module.val_set, module.test_set)] == [
        {"train"},
        {"val"},
        {"test"},
    ]
    assert len(module.train_set) == 18


def test_without_test_the_folder_val_is_tested_on_and_never_validated_by(folders, class_root):
    (class_root / "test").rename(class_root / "val")
    module = folders(val_fraction=0.34)
    module.setup("fit")
    module.setup("test")
    assert parts(module.val_set) == parts(module.train_set) == {"train"}
    assert parts(module.test_set) == {"val"}
    shutil.rmtree(class_root / "train")
    assert folders().num_classes == 3


def films(root, lengths):
    """Frames ``FILM_FRAME.png`` of so many films of each class."""
    for name in ("ant", "bee"):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for film, length in enumerate(lengths):
            for frame in range(length):
                Image.new("RGB", (20, 20)).save(folder / f"{film}_{frame}.png")
    return ImageFolders(str(root), image_size=16, val_fraction=0.25, group_pattern=r"_\d+$")


def films_of(dataset):
    return {name.partition("_")[0] for name in dataset.names}


def test_images_that_belong_together_are_on_one_side(tmp_path):
    module = films(tmp_path, [3] * 8)
    module.setup("fit")
    train, val = films_of(module.train_set), films_of(module.val_set)
    assert not train & val
    assert len(train | val) == 16
    for name in ("ant", "bee"):
        own = [each for each in module.val_set.names if f"/{name}/" in each]
        assert len(own) == 6  # a quarter of 24, in whole films
    assert len(module.train_set) + len(module.val_set) == 48


def test_a_film_longer_than_the_fraction_still_leaves_one_to_train_on(tmp_path):
    module = films(tmp_path, [10, 10])
    module.setup("fit")
    assert len(module.train_set) == len(module.val_set) == 20


def test_a_class_of_one_film_is_refused_by_name(tmp_path):
    module = films(tmp_path, [4])
    with pytest.raises(DataError, match=r"single training group .*group_pattern.* class 'ant'"):
        module.setup("fit")


@pytest.mark.parametrize("targets", ["class", "rotation"])
def test_pictures_of_a_patient_are_on_one_side_whatever_their_classes(tmp_path, targets):
    rng = np.random.default_rng(0)
    for patient in range(20):
        for number in range(6):
            name = ("ill", "well")[int(rng.integers(2))]
            folder = tmp_path / "train" / name / "clinic"
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20)).save(folder / f"p{patient}_{number}.png")
    options = {"val_fraction": 0.2, "group_pattern": r"_\d+$", "targets": targets}
    module = ImageFolders(str(tmp_path), image_size=16, **options)
    module.setup("fit")
    sides = [
        {name.split("/")[-1].partition("_")[0] for name in each.names}
        for each in (module.train_set, module.val_set)
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 20
    labels = [label for _, label in module.val_set.samples]
    assert 20 <= len(labels) <= 28
    assert all(9 <= labels.count(label) <= 17 for label in (0, 1))


def test_a_pattern_that_finds_nothing_keeps_equal_names_together(folders):
    module = folders(val_fraction=0.34, group_pattern="nothing like it")
    module.setup("fit")
    names = [name.split("/") for name in module.val_set.names]
    assert sorted(name for _, name, _ in names) == ["ant", "ant", "bee", "bee", "cat", "cat"]
    assert len({file for _, _, file in names}) == 2


def test_without_a_pattern_the_split_is_the_one_that_was_published(folders):
    module = folders(val_fraction=0.34)
    module.setup("fit")
    assert module.val_set.names == PUBLISHED


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "YCbCr"])
def test_images_of_any_mode_become_rgb(folders, class_root, mode):
    folder = class_root / "train" / "bee"
    shutil.rmtree(folder)
    folder.mkdir()
    ramp = np.tile(np.linspace(0, 255, 40, dtype=np.uint8), (30, 1))
    if mode == "I;16":
        image = Image.fromarray(ramp.astype(np.uint16) * 257)
        assert image.mode == "I;16"
    else:
        image = Image.fromarray(np.stack([ramp] * 3, axis=-1)).convert(mode)
    kind = {"CMYK": "tif", "YCbCr": "tif"}.get(mode, "png")
    # Of YCbCr, Pillow 10.0 to 11.2 cannot read back what they write without compression.
    options = {"compression": "tiff_lzw"} if mode == "YCbCr" else {}
    for index in range(4):
        image.save(folder / f"{index}.{kind}", **options)
    module = folders(val_fraction=0.3, flip=0.0, jitter=0.0, crop_scale=1.0)
    module.setup("fit")
    index = next(i for i, (_, label) in enumerate(module.val_set.samples) if label == 1)
    pixels = module.val_set[index]["image"].float()
    assert pixels.shape == (3, 16, 16)
    assert pixels[:, :, 0].mean() < 60
    assert pixels[:, :, -1].mean() > 190
    if mode != "1":
        assert 110 < pixels.mean() < 145


def test_a_tiff_of_uncompressed_ycbcr_is_read_or_refused_by_name(tmp_path):
    file = tmp_path / "a.tif"
    colour = Image.new("RGB", (40, 30), (200, 100, 50))
    colour.convert("YCbCr").save(file)
    try:
        with Image.open(file) as image:
            image.load()
    except OSError:  # of Pillow 10.0 to 11.2
        with pytest.raises(DataError, match=r"a\.tif"):
            open_source(file)
    else:
        assert np.allclose(np.asarray(open_source(file)), (200, 100, 50), atol=2)


def test_32_bit_integers_are_scaled_where_they_hold_16_bit(tmp_path):
    for scale in (1, 257):
        file = tmp_path / f"{scale}.tif"
        Image.fromarray(np.full((4, 4), 100 * scale, np.int32)).save(file)
        assert np.asarray(open_source(file)).tolist() == [[[100] * 3] * 4] * 4


def cut(path, share=0.6):
    """Cut a file short."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "webp"])
def test_an_image_that_was_cut_short_is_found_before_training(folders, class_root, suffix):
    file = class_root / "train" / "bee" / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    folders().setup("fit")
    cut(file)
    with pytest.raises(DataError, match=rf"bee/cut\.{suffix} cannot be read.*skip_broken"):
        folders().setup("fit")


def test_a_jpeg_with_something_after_its_end_is_no_broken_image(tmp_path):
    file = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(file)
    file.write_bytes(file.read_bytes() + b"more")
    assert broken_images([file]) == {}


def test_broken_images_are_skipped_and_counted_if_that_is_wanted(folders, class_root):
    for name in ("0", "3"):
        (class_root / "train" / "bee" / f"{name}.png").write_bytes(b"no image")
    module = folders(skip_broken=True)
    with pytest.warns(UserWarning, match=r"2 of 18 train images are skipped.*bee/0\.png"):
        module.setup("fit")
    assert len(module.train_set) + len(module.val_set) == 16
    assert "train/bee/0.png" not in module.train_set.names + module.val_set.names
    with pytest.raises(DataError, match=r"bee/0\.png cannot be read.*So are 1 others"):
        folders().setup("fit")


def test_a_class_of_broken_images_alone_is_named(folders, class_root):
    for file in (class_root / "train" / "bee").iterdir():
        file.write_bytes(b"no image")
    with (
        pytest.warns(UserWarning, match="6 of 18"),
        pytest.raises(DataError, match=r"no training image of class 'bee'"),
    ):
        folders(skip_broken=True).setup("fit")


def test_a_class_of_one_image_is_named_unless_validation_images_are_given(folders, class_root):
    for index in range(1, 6):
        (class_root / "train" / "cat" / f"{index}.png").unlink()
    with pytest.raises(DataError, match=r"single training image of class 'cat'"):
        folders().setup("fit")
    folders(targets="rotation").setup("fit")
    shutil.copytree(class_root / "test", class_root / "val")
    folders().setup("fit")


def test_ten_crops_are_corners_centre_and_their_mirror_images(folders):
    module = folders(image_size=16, resize=24, test_crops=10)
    module.setup("test")
    module.setup("fit")
    crops = module.test_set[0]["image"]
    assert crops.shape == (10, 3, 16, 16)
    assert torch.equal(crops[4].flip(-1), crops[9])
    single = folders(image_size=16, resize=24)
    single.setup("test")
    assert torch.equal(single.test_set[0]["image"], crops[4])
    assert module.val_set[0]["image"].shape == (3, 16, 16)
    batch = next(iter(module.test_dataloader()))
    normalised = module.on_after_batch_transfer(batch, 0)["image"]
    assert normalised.shape == (4, 10, 3, 16, 16)
    one = module.on_after_batch_transfer({"image": batch["image"][:, 4]}, 0)["image"]
    assert torch.equal(normalised[:, 4], one)


def test_resize_squeezes_the_whole_image(folders, class_root):
    pixels = np.zeros((30, 90, 3), np.uint8)
    pixels[:, :30, 0] = pixels[:, 30:60, 1] = pixels[:, 60:, 2] = 255
    for file in (class_root / "test").rglob("*.png"):
        Image.fromarray(pixels).save(file)
    seen = {}
    for resize in (None, 18):
        module = folders(image_size=18, resize=resize)
        module.setup("test")
        seen[resize] = module.test_set[0]["image"].float().mean(dim=(1, 2))
    assert seen[None][1] > 250  # the middle third alone
    assert (seen[18] - 85).abs().max() < 3  # all thirds


def test_rotated_crops_are_all_turned_alike(folders):
    module = folders(image_size=16, resize=24, test_crops=10, targets="rotation")
    module.setup("test")
    plain = folders(image_size=16, resize=24, test_crops=10)
    plain.setup("test")
    for index in range(3):
        turned, upright = module.test_set[index], plain.test_set[index]
        expected = torch.rot90(upright["image"], turned["label"], dims=(2, 3))
        assert torch.equal(turned["image"], expected)
    assert module.class_names == [f"turned by {angle}°" for angle in (0, 90, 180, 270)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"resize": 8}, "resize.*at least .image_size., 16"),
        ({"test_crops": 10}, "needs `resize` above"),
        ({"test_crops": 10, "resize": 16}, "needs `resize` above"),
        ({"test_crops": 5, "resize": 20}, "must be 1 or 10"),
        ({"crop_scale": 0.0}, "crop_scale"),
        ({"flip": 1.5}, "flip"),
        ({"jitter": -1}, "jitter"),
    ],
)
def test_options_outside_their_range_are_refused(folders, options, words):
    with pytest.raises(ConfigError, match=words):
        folders(**options)
