"""Images with numbers: what is read, how it is standardised, and what is refused with its place."""

import logging
import shutil
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data import ImageNumbers
from zoo_lightning.errors import ConfigError, DataError


def module(root, **options):
    options = {"image_size": 16, "batch_size": 4, "num_workers": 0, **options}
    return ImageNumbers(str(root), **options)


def ready(root, stage="fit", **options):
    data = module(root, **options)
    data.setup(stage)
    return data


def change(root, old, new, part="train"):
    """Replace text in a table; the text must be there."""
    path = root / f"{part}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def line(root, number, part="train"):
    return (root / f"{part}.csv").read_text().splitlines()[number - 1]


def put(root, number, cells, part="train"):
    """Replace the numbers of a line."""
    whole = line(root, number, part)
    change(root, whole, ",".join([whole.split(",")[0], *cells]), part)


def test_batches_have_images_and_numbers_in_the_tables_units(number_root):
    data = ready(number_root)
    assert data.target_names == ["bright", "red"]
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape[1:] == (3, 16, 16)
    assert batch["numbers"].dtype == torch.float32
    assert "label" not in batch
    rows = [each.split(",") for each in (number_root / "train.csv").read_text().splitlines()[1:]]
    wanted = {name: [float(cell) for cell in cells] for name, *cells in rows}
    for name, numbers in zip(data.val_set.names, batch["numbers"].tolist(), strict=False):
        assert numbers == pytest.approx(wanted[name])
    # The image's brightness is the number, so that images and lines belong together.
    image = data.val_set[0]
    assert image["image"].float().mean() == pytest.approx(float(image["numbers"][0]), abs=1)


def test_the_scale_is_that_of_the_images_that_are_trained_on(number_root):
    data = ready(number_root, val_fraction=0.25, train_fraction=0.5)
    numbers = torch.stack([label for _, label in data.train_set.samples]).double().numpy()
    assert len(numbers) < 9
    assert data.target_mean == pytest.approx(numbers.mean(0))
    assert data.target_std == pytest.approx(numbers.std(0))
    assert not {*data.train_set.names} & {*data.val_set.names}


def test_targets_are_chosen_and_ordered_by_name(number_root):
    for targets in (["red", "bright"], "red, bright"):
        data = ready(number_root, targets=targets)
        assert data.target_names == data.facts()["targets"] == ["red", "bright"]
        assert data.target_mean[0] > 900 > data.target_mean[1]
        assert data.training_options()["targets"] == ["red", "bright"]
    assert ready(number_root, targets="red").train_set[0, 0]["numbers"].shape == (1,)
    with pytest.raises(DataError, match=r"no column 'rad'.*'red'"):
        module(number_root, targets="rad")


def test_a_test_reads_its_own_table_alone_whose_columns_may_be_others(number_root):
    change(number_root, "image,bright,red", "red,bright,image", "test")
    lines = (number_root / "test.csv").read_text().splitlines()
    turned = [",".join(reversed(each.split(","))) for each in lines[1:]]
    (number_root / "test.csv").write_text("\n".join([lines[0], *turned]) + "\n")
    assert ready(number_root, "test").test_set.samples[0][1][1] > 900
    (number_root / "train.csv").unlink()
    data = ready(number_root, "test", targets=["bright", "red"])
    assert len(data.test_set) == 4
    with pytest.raises(DataError, match=r"train\.csv does not exist"):
        data.setup("fit")


def test_validation_images_have_a_table_or_are_split_off(number_root):
    shutil.copyfile(number_root / "test.csv", number_root / "val.csv")
    data = ready(number_root)
    assert (len(data.train_set), len(data.val_set)) == (12, 4)
    (number_root / "val.csv").unlink()
    data = ready(number_root, val_fraction=0.25)
    assert (len(data.train_set), len(data.val_set)) == (9, 3)
    for seed in range(6):
        grouped = ready(number_root, val_fraction=0.25, group_pattern="[0-4]$", seed=seed)
        kept = {*grouped.val_set.names} & {f"train0{digit}.png" for digit in range(5)}
        assert len(kept) in (0, 5)


def test_images_are_not_mirrored_unless_that_is_asked_for(number_root):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:, :8] = 255
    for path in (number_root / "images").glob("train*.png"):
        Image.fromarray(pixels).save(path)
    data = ready(number_root, crop_scale=1.0, jitter=0.0)
    assert not data.varies_training_images()
    left = [data.train_set[epoch, 0]["image"][0, 8, 0] for epoch in range(12)]
    assert {int(each) for each in left} == {255}
    mirrored = ready(number_root, crop_scale=1.0, jitter=0.0, flip=0.5)
    left = [mirrored.train_set[epoch, 0]["image"][0, 8, 0] for epoch in range(12)]
    assert {int(each) for each in left} == {0, 255}
    with pytest.raises(ConfigError, match=r"test_crops.*flip"):
        module(number_root, test_crops=10, resize=20)
    crops = ready(number_root, "test", test_crops=10, resize=20, flip=0.5)
    assert crops.test_set[0]["image"].shape == (10, 3, 16, 16)


@pytest.mark.parametrize("cell", ["", "nan", "NA", "null"])
def test_absent_numbers_are_refused_or_left_out_target_by_target(number_root, cell, caplog):
    whole = line(number_root, 3).split(",")
    put(number_root, 3, [whole[1], cell])
    put(number_root, 5, [cell, cell])
    with pytest.raises(DataError, match=r"train\.csv, line 3, red: .*missing: skip"):
        ready(number_root)
    with caplog.at_level(logging.INFO):
        data = ready(number_root, missing="skip", val_fraction=0.1)
    assert "bright 1, red 2; 1 images have no number" in caplog.text
    assert len(data.train_set) + len(data.val_set) == 11
    labels = [label for _, label in [*data.train_set.samples, *data.val_set.samples]]
    assert torch.stack(labels).isnan().sum(0).tolist() == [0, 1]
    assert all(np.isfinite([*data.target_mean, *data.target_std]))
    with pytest.raises(ConfigError, match="missing"):
        module(number_root, missing="drop")


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("old", "'old', expected a number"),
        ("12%", "'12%', expected a number"),
        ('"3,5"', r"'3,5'.*point, 3\.5"),
        ("inf", "'inf', expected a number between"),
        ("-1e20", "'-1e20', expected a number between"),
    ],
)
def test_a_cell_that_is_no_number_is_refused_with_its_place(number_root, cell, said):
    put(number_root, 4, ["1.0", cell])
    with pytest.raises(DataError, match=rf"train\.csv, line 4, red: found {said}"):
        ready(number_root)
    ready(number_root, targets="bright")  # the column is not looked at


def test_a_target_that_does_not_vary_is_refused_by_name(number_root):
    for number in range(2, 14):
        put(number_root, number, [str(number), "7"])
    with pytest.raises(DataError, match=r"train\.csv: 'red' is 7 for all images"):
        ready(number_root)
    for number in range(2, 14):
        put(number_root, number, [str(number), f"{1.7e9 + number:.0f}"])
    with pytest.raises(DataError, match=r"'red'.*subtract a constant"):
        ready(number_root)
    for number in range(2, 14):
        put(number_root, number, [str(number), ""])
    with pytest.raises(DataError, match="no image has a number of 'red'"):
        ready(number_root, missing="skip")


def test_images_that_are_there_twice_or_not_at_all_are_refused(number_root):
    first = line(number_root, 2)
    with (number_root / "train.csv").open("a") as stream:
        stream.write("./" + first + "\n")
    with pytest.raises(DataError, match=r"line 14: the image .*train00\.png has a line .* line 2"):
        ready(number_root)
    change(number_root, "./" + first, "train99.png,1,2")
    with pytest.raises(DataError, match=r"line 14: the image .*train99\.png does not exist \(1 of"):
        ready(number_root)
    change(number_root, "train99.png,1,2\n", "")
    with (number_root / "test.csv").open("a") as stream:
        stream.write(first + "\n")
    with pytest.warns(UserWarning, match=r"1 of 5 images of .*test\.csv are training images"):
        ready(number_root, "test")


def test_digits_with_underscores_are_no_number(number_root):
    put(number_root, 2, ["1_5", "3"])
    with pytest.raises(DataError, match=r"line 2, bright: found '1_5', expected a number"):
        ready(number_root)


@pytest.mark.parametrize("first", [0, 1])
def test_a_column_that_counts_the_lines_is_not_learned_unsaid(number_root, first):
    for part in ("train", "test"):
        header, *lines = (number_root / f"{part}.csv").read_text().splitlines()
        numbered = [f"{number},{each}" for number, each in enumerate(lines, first)]
        (number_root / f"{part}.csv").write_text("\n".join([f"id,{header}", *numbered]))
    with pytest.warns(UserWarning, match=r"'id' counts the lines.*--data.targets bright,red"):
        module(number_root)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module(number_root, targets="bright,red")
