"""``MultiLabelImages``: parts, labels, unknown states, splits, and mistakes in the files."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from zoo_lightning import MultiLabelImages
from zoo_lightning.errors import DataError


def data(root, **options):
    return MultiLabelImages(str(root), image_size=16, batch_size=4, num_workers=0, **options)


def both(module):
    module.setup("fit")
    module.setup("test")
    return module


def states(dataset):
    return np.stack(dataset.labels)


def test_batches_have_a_state_for_each_label(label_root):
    module = both(data(label_root))
    assert module.classes == ["blue", "green", "red"]
    assert module.num_classes == 3
    batch = next(iter(module.train_dataloader()))
    assert batch["label"].dtype == torch.int8
    assert batch["label"].shape == (4, 3)
    assert set(batch["label"].unique().tolist()) <= {0, 1}
    assert len(module.train_set) + len(module.val_set) == 24
    assert len(module.test_set) == 8
    assert module.facts()["classes"] == module.classes
    # The images' colours are the labels.
    for index in range(4):
        image = module.test_set[index]["image"].float().mean(dim=(1, 2)) > 100
        assert image.flip(0).long().tolist() == module.test_set.labels[index].tolist()


def test_images_are_named_as_in_the_table(label_root):
    module = both(data(label_root))
    listed = [line.split(",")[0] for line in (label_root / "test.csv").read_text().split()[1:]]
    assert module.test_set.names == listed


def test_validation_images_of_ones_own_are_taken(label_root):
    lines = (label_root / "train.csv").read_text().splitlines()
    (label_root / "val.csv").write_text("\n".join([lines[0], *lines[19:]]) + "\n")
    (label_root / "train.csv").write_text("\n".join(lines[:19]) + "\n")
    module = both(data(label_root))
    assert (len(module.train_set), len(module.val_set)) == (18, 6)


def test_empty_cells_are_unknown_and_said_once(label_root, caplog):
    names = [line.split(",")[0] for line in (label_root / "train.csv").read_text().split()[1:]]
    rows = [f"{name},{i % 2},{'' if i == 3 else int(i > 9)}" for i, name in enumerate(names)]
    (label_root / "train.csv").write_text("\n".join(["image,a,b", *rows]) + "\n")
    (label_root / "test.csv").write_text(f"image,b,a\n{names[0]},1,0\n")
    caplog.set_level(logging.INFO)
    module = data(label_root)
    with pytest.warns(UserWarning, match="are training images, too"):
        both(module)
    module.setup("fit")
    assert (states(module.train_set) == -1).sum() + (states(module.val_set) == -1).sum() == 1
    assert module.classes == ["a", "b"]
    assert states(module.test_set).tolist() == [[0, 1]]
    assert sum("1 of 48 cells are empty" in line for line in caplog.messages) == 1


def test_labels_are_chosen_and_ordered_by_name(label_root, caplog):
    with caplog.at_level(logging.INFO):
        module = both(data(label_root, labels=["red", "blue"]))
    assert module.classes == ["red", "blue"]
    assert "left out: green" in caplog.text
    everything = both(data(label_root))
    assert states(module.test_set).tolist() == states(everything.test_set)[:, [2, 0]].tolist()
    for labels, said in ((["rde"], "no label 'rde'"), (["red", "red"], "once each"), ([], "once")):
        with pytest.raises(DataError, match=said):
            data(label_root, labels=labels)


def test_json_is_read_where_there_is_no_table(label_root):
    for part in ("train", "test"):
        lines = (label_root / f"{part}.csv").read_text().splitlines()[1:]
        names = ["blue", "green", "red"]
        images, annotations = [], []
        for number, line in enumerate(lines):
            image, _, labels = line.partition(",")
            images.append({"id": number, "file_name": image})
            for name in labels.split(";") if labels else []:
                found = {"image_id": number, "category_id": names.index(name), "bbox": [0, 0, 1, 1]}
                annotations.append(found)
        content = {"images": images, "annotations": annotations}
        content["categories"] = [{"id": i, "name": name} for i, name in enumerate(names)]
        (label_root / f"{part}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"train\.csv and train\.json"):
        data(label_root)
    table = both(_without(data, label_root, "json"))
    read = both(_without(data, label_root, "csv"))
    assert states(read.test_set).tolist() == states(table.test_set).tolist()
    assert read.train_set.names == table.train_set.names


def _without(make, root, kind):
    """The module of a folder without files of a kind, which are put back."""
    hidden = {path: path.read_bytes() for path in root.glob(f"*.{kind}")}
    for path in hidden:
        path.unlink()
    module = both(make(root))
    for path, content in hidden.items():
        path.write_bytes(content)
    return module


def test_groups_are_never_divided(label_root):
    module = data(label_root, group_pattern=r"_\d+$", val_fraction=0.3)
    module.setup("fit")
    persons = [
        {Path(name).stem.rpartition("_")[0] for name in each.names}
        for each in (module.train_set, module.val_set)
    ]
    assert persons[1]
    assert not persons[0] & persons[1]


def test_a_fraction_of_the_training_images_keeps_every_label(label_root):
    tenth, half = (data(label_root, train_fraction=share) for share in (0.05, 0.5))
    tenth.setup("fit")
    half.setup("fit")
    assert set(tenth.train_set.names) < set(half.train_set.names)
    assert (states(tenth.train_set) == 1).any(0).all()
    assert tenth.val_set.names == half.val_set.names


def test_a_label_without_training_images_is_refused(label_root):
    lines = (label_root / "train.csv").read_text().splitlines()
    images = [line.split(",")[0] for line in lines[1:]]
    rows = [f"{image},{i % 2},0" for i, image in enumerate(images)]
    (label_root / "train.csv").write_text("\n".join(["image,a,b", *rows]) + "\n")
    with pytest.raises(DataError, match=r"no training image has the label 'b'.*--data.labels"):
        data(label_root).setup("fit")
    data(label_root, labels=["a"]).setup("fit")


def test_a_label_that_is_always_there_is_warned_of(label_root):
    lines = (label_root / "train.csv").read_text().splitlines()
    rows = [f"{line};all".replace(",;", ",") for line in lines[1:]]
    (label_root / "train.csv").write_text("\n".join([lines[0], *rows]) + "\n")
    with pytest.warns(UserWarning, match="every training image has the label 'all'"):
        data(label_root).setup("fit")


def test_a_label_that_no_validation_image_has_is_named(label_root, caplog):
    lines = (label_root / "train.csv").read_text().splitlines()
    lines[1] += ";rare"
    (label_root / "train.csv").write_text("\n".join(lines) + "\n")
    with caplog.at_level(logging.INFO):
        data(label_root).setup("fit")
    assert "no validation image has the labels rare" in caplog.text


def test_absent_images_and_files_are_refused(label_root):
    with (label_root / "test.csv").open("a") as stream:
        stream.write("nowhere.png,red\n")
    with pytest.raises(DataError, match=r"test.csv lists 'nowhere.png'"):
        data(label_root).setup("test")
    (label_root / "test.csv").unlink()
    with pytest.raises(DataError, match=r"test.csv does not exist"):
        data(label_root).setup("test")
    (label_root / "train.csv").unlink()
    with pytest.raises(DataError, match=r"train.csv does not exist"):
        data(label_root)
