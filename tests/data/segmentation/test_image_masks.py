"""Images with masks: which files are read, how both are augmented, and what is refused."""

import shutil
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data import ImageMasks
from zoo_lightning.data.segmentation.dataset import evaluation_pair, training_pair
from zoo_lightning.data.segmentation.label_files import IGNORED, LabelFile
from zoo_lightning.errors import ConfigError, DataError


def masks(root, **options) -> ImageMasks:
    return ImageMasks(str(root), image_size=32, batch_size=4, num_workers=0, **options)


def read(root, **options) -> ImageMasks:
    data = masks(root, **options)
    data.setup("fit")
    return data


def rewrite(path, change) -> None:
    """Replace a mask by what a function makes of its values."""
    Image.fromarray(change(np.array(Image.open(path)))).save(path)


def test_samples_are_images_with_a_label_for_every_pixel(mask_root):
    data = read(mask_root, crop_scale=1.0, flip=0.0, jitter=0.0)
    assert data.class_names == ["ground", "red", "blue"]
    assert data.num_classes == 3
    data.setup("test")
    sample = data.test_set[0]
    assert sample["image"].shape == (3, 32, 32)
    assert sample["image"].dtype == torch.uint8
    assert sample["labels"].shape == (32, 32)
    assert sample["labels"].dtype == torch.int64
    # The image is 40x30: an eighth of the square is padding at the top, and at the bottom.
    assert (sample["labels"][:4] == IGNORED).all()
    assert (sample["labels"][28:] == IGNORED).all()
    assert (sample["labels"][4:28] < 3).all()
    assert (sample["image"][:, :3] == 0).all()
    red, blue = sample["labels"] == 1, sample["labels"] == 2
    means = sample["image"].float()
    assert means[0][red].mean() > 180 > means[0][blue].mean()
    assert means[2][blue].mean() > 180 > means[2][red].mean()


def test_the_labels_of_a_crop_lie_where_its_image_lies():
    """The image's values are those of its mask, so that they must agree after augmentation."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 6, (7, 9))
    mask = np.kron(coarse, np.ones((12, 12))).astype(np.uint8)
    pair = Image.fromarray(np.stack([40 * mask] * 3, -1)), Image.fromarray(mask)
    torch.manual_seed(0)
    for transform in (*[training_pair(64, 0.2, 0.5, 0.0)] * 8, evaluation_pair(64)):
        pixels, labels = transform(*pair)
        known = labels != IGNORED
        away = (pixels[0].float() / 40 - labels.float()).abs()
        # Only where the image was interpolated across an edge do they differ.
        inner = torch.nn.functional.max_pool2d(labels[None].float(), 5, 1, 2)[0] == labels
        inner &= -torch.nn.functional.max_pool2d(-labels[None].float(), 5, 1, 2)[0] == labels
        assert (known & inner).sum() > 200
        assert away[known & inner].max() < 0.05
        # Edges agree to less than half a pixel, on average.
        assert away[known].mean() < 0.25


def test_a_sample_is_the_same_whenever_it_is_read(mask_root):
    data = read(mask_root)
    first, again = data.train_set[3, 1], data.train_set[3, 1]
    assert torch.equal(first["image"], again["image"])
    assert torch.equal(first["labels"], again["labels"])
    assert not torch.equal(first["labels"], data.train_set[4, 1]["labels"])


def test_classes_are_numbers_up_to_the_largest_without_names(mask_root):
    (mask_root / "classes.txt").unlink()
    assert masks(mask_root).class_names == ["0", "1", "2"]
    assert masks(mask_root, classes=["a", "b", "c", "d"]).class_names == ["a", "b", "c", "d"]


def test_unlabelled_pixels_do_not_count(mask_root):
    for path in (mask_root / "train" / "masks").iterdir():
        rewrite(path, lambda mask: np.where(mask == 2, 7, mask).astype(np.uint8))
    data = read(mask_root, ignore_index=7, crop_scale=1.0, flip=0.0, jitter=0.0)
    assert set(data.train_set[0, 0]["labels"].unique().tolist()) == {0, 1, IGNORED}
    assert data.class_pixels[2] == 0
    assert data.class_pixels[1] == 120 * len(data.train_set)


def test_palette_masks_mean_their_indices(mask_root):
    for path in (mask_root / "train" / "masks").iterdir():
        image = Image.fromarray(np.array(Image.open(path)))
        image.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 200])
        image.save(path)
    assert read(mask_root).class_pixels.min() > 0


def test_groups_are_not_divided_and_val_is_read_if_there_is_one(mask_root):
    data = read(mask_root, group_pattern="[02468]$", val_fraction=0.4)
    even = {name for name in data.train_set.names if int(name[-5]) % 2 == 0}
    assert len(even) in (0, 4)
    shutil.copytree(mask_root / "test", mask_root / "valid")
    assert len(read(mask_root).val_set) == 4
    shutil.rmtree(mask_root / "test")
    data = masks(mask_root)
    data.setup("fit")
    data.setup("test")
    assert len(data.test_set) == 4
    assert len(data.train_set) == 7


def test_an_image_turned_by_exif_has_a_mask_of_what_is_seen(mask_root):
    path = mask_root / "train" / "images" / "train0.jpg"
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif)
    with pytest.raises(DataError, match=r"train0\.png has 40x30 pixels, its image 30x40"):
        read(mask_root)
    rewrite(mask_root / "train" / "masks" / "train0.png", lambda mask: np.rot90(mask, -1).copy())
    assert len(read(mask_root).train_set) == 7


def colour(mask):
    return np.stack([200 * (mask == 1), 0 * mask, 200 * (mask == 2)], -1).astype(np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda mask: mask[:20], r"train3\.png has 40x20 pixels, its image 40x30"),
        (lambda mask: mask + 1, r"train3\.png has the value 3, expected 0 to 2"),
        (colour, r"train3\.png has colours.*#000000, #[0c]+8?[0c]8?.*Give each colour an index"),
        (lambda mask: np.stack([mask] * 3, -1), r"train3\.png has grey values in three channels"),
        (lambda mask: mask.astype(np.uint16), r"train3\.png has Pillow's mode I;16"),
    ],
)  # fmt: skip
def test_masks_that_cannot_be_used_are_named(mask_root, change, words):
    rewrite(mask_root / "train" / "masks" / "train3.png", change)
    with pytest.raises(DataError, match=words):
        read(mask_root)


def test_missing_lonely_and_lossy_masks_are_named(mask_root):
    folder = mask_root / "train" / "masks"
    (folder / "train3.png").rename(folder / "train33.png")
    with pytest.raises(DataError, match=r"train3\.jpg has no mask .*train3\.png.*Did you mean"):
        read(mask_root)
    shutil.copy(folder / "train33.png", folder / "train3.png")
    with pytest.raises(DataError, match=r"mask .*train33\.png has no image of its name"):
        read(mask_root)
    (folder / "train33.png").unlink()
    Image.open(folder / "train3.png").save(folder / "x.jpg")
    (folder / "x.jpg").rename(folder / "train3.png")
    with pytest.raises(DataError, match=r"train3\.png is a JPEG file, expected a PNG"):
        read(mask_root)


def test_masks_of_0_and_255_are_not_trained_on_by_mistake(mask_root):
    for path in (mask_root / "train" / "masks").iterdir():
        rewrite(path, lambda mask: (255 * (mask > 0)).astype(np.uint8))
    with pytest.raises(DataError, match=r"show no class but ground.*save it as 1"):
        read(mask_root)
    (mask_root / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"there is one class.*255 on 0"):
        read(mask_root)


def test_other_folders_and_options_are_refused(mask_root, class_root):
    with pytest.raises(DataError, match=r"train/images does not exist; .*It has ant, bee, cat"):
        masks(class_root)
    with pytest.raises(ConfigError, match=r"ignore_index.*got 256"):
        masks(mask_root, ignore_index=256)
    with pytest.raises(ConfigError, match=r"different names, got a, a"):
        masks(mask_root, classes=["a", "a"])
    shutil.rmtree(mask_root / "train" / "masks")
    with pytest.raises(DataError, match=r"neither masks/ nor annotations\.json"):
        read(mask_root)


@pytest.mark.parametrize("bits", [2, 4])
def test_grey_masks_of_few_bits_mean_their_values(mask_root, bits):
    path = next((mask_root / "train" / "masks").iterdir())
    values = np.array(Image.open(path)) % 3
    places = np.unpackbits(values[..., None], axis=-1)[..., -bits:].reshape(len(values), -1)
    rows = np.packbits(places, axis=-1)
    height, width = values.shape
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = [(b"IHDR", header), (b"IDAT", pixels), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(c)) + name + c + struct.pack(">I", zlib.crc32(name + c))
            for name, c in chunks
        )
    )
    assert (LabelFile(path).read((width, height)) == values).all()


def test_without_a_test_folder_training_images_need_not_be_moved(mask_root):
    shutil.rmtree(mask_root / "test")
    with pytest.raises(DataError, match=r"has train: move some of their images into such a test"):
        masks(mask_root).setup("test")
