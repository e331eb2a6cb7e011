"""Splits in which groups stay whole, and validation parts that are found by their names."""

import json
import logging
import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zoo_lightning.data import (
    HRNetCSV,
    ImageNumbers,
    LandmarkCSV,
    ListFiles,
    MultiLabelImages,
)
from zoo_lightning.data.splitting import (
    names_of_validation,
    split_by_group_and_class,
    validation_files,
)
from zoo_lightning.errors import DataError


@given(st.integers(0, 2**31), st.integers(2, 30), st.integers(1, 4), st.floats(0.05, 0.9))
@settings(max_examples=100, deadline=None)
def test_groups_stay_whole_and_every_class_keeps_samples(seed, people, classes, fraction):
    rng = np.random.default_rng(seed)
    size = int(rng.integers(people, 8 * people))
    groups = [str(person) for person in rng.integers(people, size=size)]
    labels = rng.integers(classes, size=size).tolist()
    train, val = split_by_group_and_class(groups, labels, fraction, seed)
    assert sorted([*train, *val]) == list(range(size))
    assert not {groups[i] for i in train} & {groups[i] for i in val}
    assert {labels[i] for i in train} == set(labels)
    again = split_by_group_and_class(groups, labels, fraction, seed)
    assert [each.tolist() for each in again] == [train.tolist(), val.tolist()]


def test_groups_of_one_size_give_each_class_its_fraction():
    groups = [f"{person}" for person in range(40) for _ in range(5)]
    labels = [person % 2 for person in range(40) for _ in range(5)]
    _, val = split_by_group_and_class(groups, labels, 0.2, 3)
    assert [labels[i] for i in val].count(0) == [labels[i] for i in val].count(1) == 20
    other = split_by_group_and_class(groups, labels, 0.2, 4)[1]
    assert val.tolist() != other.tolist()


def test_a_group_larger_than_the_fraction_is_taken_where_there_is_no_other():
    groups, labels = ["a"] * 10 + ["b"] * 10, [0, 1] * 10
    train, val = split_by_group_and_class(groups, labels, 0.1, 0)
    assert len(train) == len(val) == 10


# Validation parts


NAMES = ["val", "valid", "validation", "dev", "Val", "DEV"]

SMALL = {"image_size": 16, "batch_size": 4, "num_workers": 0}


def unread(caplog, data):
    """The lines on what is not read, of a set-up for training."""
    with caplog.at_level(logging.INFO):
        data.setup("fit")
    return [line for line in caplog.messages if "not read" in line]


@pytest.mark.parametrize("name", NAMES)
def test_tables_of_numbers_and_labels_are_read_under_any_usual_name(number_root, label_root, name):
    for kind, root in ((ImageNumbers, number_root), (MultiLabelImages, label_root)):
        shutil.copy(root / "test.csv", root / f"{name}.csv")
        data = kind(str(root), **SMALL)
        data.setup("fit")
        assert {each.split("/")[-1][:4] for each in data.val_set.names} == {"test"}
        assert all(each.split("/")[-1].startswith("train") for each in data.train_set.names)


def test_two_tables_of_validation_are_not_chosen_between(number_root, label_root):
    for kind, root in ((ImageNumbers, number_root), (MultiLabelImages, label_root)):
        for name in ("val", "dev"):
            shutil.copy(root / "test.csv", root / f"{name}.csv")
        with pytest.raises(DataError, match=r"has dev\.csv and val\.csv, .* leave one"):
            kind(str(root), **SMALL).setup("fit")
    (label_root / "dev.csv").unlink()
    (label_root / "valid.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"has val\.csv and valid\.json"):
        MultiLabelImages(str(label_root), **SMALL).setup("fit")


@pytest.mark.parametrize("name", NAMES)
def test_a_list_of_validation_that_is_not_given_is_named(class_root, name, caplog):
    lists = {"train_list.txt": "train", "test_list.txt": "test", f"{name}_list.txt": "test"}
    for file, part in lists.items():
        paths = sorted((class_root / part).glob("*/*.png"))
        lines = [path.relative_to(class_root).as_posix() for path in paths]
        (class_root / file).write_text("\n".join(lines))
    given = {"train_list": "train_list.txt", "test_list": "test_list.txt"}
    (line,) = unread(caplog, ListFiles(str(class_root), **given, **SMALL))
    assert f"--data.val_list {name}_list.txt" in line
    caplog.clear()
    data = ListFiles(str(class_root), **given, val_list=f"{name}_list.txt", **SMALL)
    assert not unread(caplog, data)
    assert len(data.val_set) == 6


@pytest.mark.parametrize("name", NAMES)
def test_faces_of_validation_that_are_not_read_are_named(landmark_root, name, caplog):
    shutil.copy(landmark_root / "test.csv", landmark_root / f"{name}.csv")
    options = SMALL | {"check_annotations": False}
    (line,) = unread(caplog, LandmarkCSV(str(landmark_root), **options))
    assert line.startswith(f"{landmark_root / name}.csv is not read")
    caplog.clear()
    tested = LandmarkCSV(str(landmark_root), test_csv=f"{name}.csv", **options)
    assert not unread(caplog, tested)


def test_files_of_subsets_are_not_called_unread(tmp_path):
    columns = ["image_name", "scale", "center_w", "center_h"]
    columns += [f"original_{point}_{axis}" for point in range(5) for axis in "xy"]
    (tmp_path / "train.csv").write_text(",".join(columns) + "\na.png" + ",9" * 13 + "\n")
    data = HRNetCSV(str(tmp_path), subsets={"hard": "val.csv"})
    assert list(data._further_files()) == [tmp_path / "val.csv"]


def test_only_what_is_named_like_the_training_file_is_its_validation_part(tmp_path):
    assert names_of_validation("labels.csv") == []
    assert names_of_validation("training.txt")[0] == "val.txt"
    assert names_of_validation("train_list_train.txt")[1] == "train_list_valid.txt"
    for name in ("val.csv", "validate.csv", "val.txt", "my_val.csv", "Training.csv"):
        (tmp_path / name).touch()
    (tmp_path / "dev.csv").mkdir()
    assert validation_files(tmp_path / "train.csv") == [tmp_path / "val.csv"]
    assert validation_files(tmp_path / "absent" / "train.csv") == []
