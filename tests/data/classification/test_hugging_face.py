"""Data sets of Hugging Face on disk: saved ones and Parquet files, and what is refused of them."""

import io
import json
import multiprocessing
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data.classification.hugging_face import HuggingFaceData, split_of
from zoo_lightning.errors import ConfigError, DataError

datasets = pytest.importorskip("datasets", reason="it is an extra: pip install -e '.[datasets]'")

LABELS = datasets.ClassLabel(names=["ant", "bee", "cat"])


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def encoded(value, kind="PNG"):
    """An image of one brightness."""
    stream = io.BytesIO()
    Image.fromarray(np.full((20, 24, 3), value, np.uint8)).save(stream, kind)
    return stream.getvalue()


def rows(count, of=LABELS, **columns):
    """Images whose brightness is their number and whose class is it modulo 3."""
    content = {
        "image": [{"bytes": encoded(i), "path": None} for i in range(count)],
        "label": [i % 3 for i in range(count)],
    }
    features = datasets.Features({"image": datasets.Image(), "label": of})
    return datasets.Dataset.from_dict(content | columns, features=features)


def saved(root, **splits):
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return root


def module(root, **options):
    small = {"image_size": 16, "batch_size": 4, "num_workers": 0, "val_fraction": 0.25}
    return HuggingFaceData(str(root), **(small | options))


def test_a_saved_data_set_has_its_splits_and_its_classes_names(tmp_path):
    data = module(saved(tmp_path / "set", train=rows(36), test=rows(9)))
    data.setup("fit")
    data.setup("test")
    assert data.class_names == data.facts()["classes"] == ["ant", "bee", "cat"]
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (27, 9, 9)
    assert Counter(data.val_set.labels) == {0: 3, 1: 3, 2: 3}
    assert data.test_set.names[5] == "test/5"
    found = data.test_set[5]
    assert (int(found["image"].unique()), found["label"]) == (5, 2)
    assert not {*data.train_set.names} & {*data.val_set.names}


@pytest.mark.parametrize("name", ["validation", "val", "dev"])
def test_a_validation_split_is_used_and_tested_on_where_there_is_no_other(tmp_path, name):
    data = module(saved(tmp_path / "set", train=rows(36), test=rows(9), **{name: rows(6)}))
    data.setup("fit")
    assert (len(data.train_set), len(data.val_set)) == (36, 6)
    data = module(saved(tmp_path / "other", train=rows(36), **{name: rows(6)}))
    data.setup("fit")
    data.setup("test")
    assert (len(data.train_set), len(data.val_set), len(data.test_set)) == (27, 9, 6)


def test_a_single_saved_split_is_to_train_on_or_what_it_says(tmp_path):
    rows(36).save_to_disk(str(tmp_path / "one"))
    data = module(tmp_path / "one")
    data.setup("fit")
    assert len(data.train_set) == 27
    with pytest.raises(DataError, match=r"no split 'test', it has 'train'.*train_test_split"):
        data.setup("test")
    file = tmp_path / "one" / "state.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"_split": "test"}))
    data = module(tmp_path / "one")
    data.setup("test")
    assert len(data.test_set) == 36
    with pytest.raises(DataError, match="no split 'train'"):
        data.setup("fit")


@pytest.mark.parametrize(
    "files",
    [
        ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"),
        ("data/train-0.parquet", "data/train-1.parquet", "data/test-00000-of-00001-a0b1.parquet"),
        ("train/0000.parquet", "train/0001.parquet", "test/0000.parquet"),
    ],
)
@pytest.mark.parametrize("plain", [False, True], ids=["typed", "plain"])
def test_parquet_files_are_read_by_the_names_of_their_splits(tmp_path, files, plain):
    root = tmp_path / "set"
    for number, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        if plain:  # as other programs write them, which know nothing of images and classes
            import pyarrow
            import pyarrow.parquet

            content = {"image": [encoded(i) for i in range(12)], "label": ["bee", "ant"] * 6}
            pyarrow.parquet.write_table(pyarrow.table(content), root / file)
        else:
            rows(12).to_parquet(str(root / file))
        assert number < 3
    data = module(root)
    data.setup("fit")
    data.setup("test")
    assert data.class_names == (["ant", "bee"] if plain else ["ant", "bee", "cat"])
    assert len(data.train_set) + len(data.val_set) == 24
    found = data.test_set[7]
    assert (int(found["image"].unique()), found["label"]) == (7, 0 if plain else 1)


def test_names_of_parquet_files_say_their_split(tmp_path):
    for name, split in (("train", "train"), ("validation-12", "validation"), ("part_1", "part")):
        assert split_of(tmp_path / f"{name}.parquet") == split


def test_other_columns_and_splits_are_options(tmp_path):
    source = rows(24).rename_columns({"image": "img", "label": "species"})
    data = module(
        saved(tmp_path / "set", all=source, test=source),
        image_column="img",
        label_column="species",
        train_split="all",
    )
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 24
    options = data.training_options()
    assert (options["train_split"], options["label_column"]) == ("all", "species")


def test_numbers_without_names_are_classes_by_themselves(tmp_path):
    data = module(saved(tmp_path / "set", train=rows(36, datasets.Value("int64"))))
    assert data.class_names == ["0", "1", "2"]


def test_classes_are_matched_by_name_where_a_split_orders_them_otherwise(tmp_path):
    turned = rows(9, datasets.ClassLabel(names=["cat", "bee", "ant"]))
    data = module(saved(tmp_path / "set", train=rows(9), test=turned))
    data.setup("test")
    assert data.test_set.labels == [2, 1, 0] * 3


@pytest.mark.parametrize("outside", [None, "../secret.png", "/etc/passwd", "https://a.org/b.png"])
def test_files_that_rows_name_are_read_inside_the_folder_alone(tmp_path, outside):
    import pyarrow
    import pyarrow.parquet

    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(encoded(1))
    for i in range(12):
        (root / "images" / f"{i}.png").write_bytes(encoded(i))
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    paths = [{"bytes": None, "path": f"images/{i}.png"} for i in range(12)]
    paths[4]["path"] = outside or paths[4]["path"]
    columns = {"image": pyarrow.array(paths, kind), "label": [i % 3 for i in range(12)]}
    pyarrow.parquet.write_table(pyarrow.table(columns), root / "train.parquet")
    data = module(root)
    if outside:
        with pytest.raises(DataError, match=r"row 4 of train.*(outside of|does not exist)"):
            data.setup("fit")
        return
    data.setup("fit")
    for index, name in enumerate(data.val_set.names):
        assert int(data.val_set[index]["image"].unique()) == int(name.partition("/")[2])


def read_one(dataset):
    return int(dataset[3]["image"].unique())


def test_loader_processes_that_are_spawned_map_the_tables_themselves(tmp_path):
    data = module(saved(tmp_path / "set", train=rows(12), test=rows(9)))
    data.setup("test")
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_one, (data.test_set,)) == 3


@pytest.mark.parametrize("balanced", [False, True])
def test_a_loader_resumes_with_the_batch_that_was_next(tmp_path, balanced):
    root = saved(tmp_path / "set", train=rows(36))
    data = module(root, balanced=balanced)
    data.setup("fit")
    whole = list(data.train_dataloader())
    loader = module(root, balanced=balanced, num_workers=0)
    loader.setup("fit")
    resumed = loader.train_dataloader()
    resumed.load_state_dict({"position": 2})
    for before, now in zip(whole[2:], resumed, strict=True):
        torch.testing.assert_close(before, now)


def changed(row, column, value):
    content = {"image": [{"bytes": encoded(i), "path": None} for i in range(12)]}
    content["label"] = [i % 3 for i in range(12)]
    content[column][row] = value
    return {column: content[column]}


@pytest.mark.parametrize(
    ("make", "options", "named"),
    [
        (lambda: rows(12), {"image_column": "imge"}, "no column 'imge'.*Did you mean"),
        (lambda: rows(12), {"label_column": "species"}, "no column 'species'.*`label_column`"),
        (lambda: rows(12), {"image_column": "label"}, "type ClassLabel.*expected images"),
        (lambda: rows(12), {"label_column": "image"}, "row 0.*column 'image' has the label"),
        (lambda: rows(12), {"train_split": "trian"}, "no split 'trian'"),
        (lambda: rows(12), {"val_split": "eval"}, "no split 'eval'.*`val_split`"),
        (lambda: rows(12, **changed(4, "label", -1)), {}, "row 4.*label -1, expected 0 to 2"),
        (lambda: rows(12, **changed(4, "label", None)), {}, "row 4.*label None, expected 0 to 2"),
        (
            lambda: rows(12, datasets.Value("int64"), **changed(4, "label", 10**9)),
            {},
            "row 4.*label 1000000000",
        ),
        (
            lambda: rows(12, datasets.Value("float64")),
            {},
            r"row 0.*label 0\.0",
        ),
        (
            lambda: rows(12, **changed(4, "image", {"bytes": b"no image", "path": None})),
            {},
            "row 4 of train in .* cannot be read",
        ),
        (lambda: rows(12, **changed(4, "image", None)), {}, "row 4 of train.*no image"),
        (
            lambda: rows(12, **changed(4, "image", {"bytes": encoded(1)[:-30], "path": None})),
            {},
            "row 4 of train",
        ),
    ],
)
def test_what_cannot_be_used_is_refused_with_split_and_row(tmp_path, make, options, named):
    root = saved(tmp_path / "set", train=make())
    with pytest.raises(DataError, match=f"(?s){named}"):
        module(root, **options).setup("fit")


def test_classes_that_training_lacks_are_refused(tmp_path):
    other = rows(9, datasets.ClassLabel(names=["ant", "bee", "dog"]))
    data = module(saved(tmp_path / "set", train=rows(9), test=other))
    with pytest.raises(DataError, match=r"'test', row 2 is of class 'dog', which 'train' lacks"):
        data.setup("test")


def test_broken_images_are_left_out_if_asked_to(tmp_path):
    images = [{"bytes": encoded(i) * (i != 4), "path": None} for i in range(36)]
    broken = rows(36, image=images)
    data = module(saved(tmp_path / "set", train=broken), skip_broken=True)
    with pytest.warns(UserWarning, match="1 of 36 train images are skipped"):
        data.setup("fit")
    assert "train/4" not in data.train_set.names + data.val_set.names


def test_folders_that_hold_no_data_set_are_refused_and_no_hub_is_asked(tmp_path):
    with pytest.raises(DataError, match=r"ylecun/mnist does not exist.*not looked up"):
        module("ylecun/mnist")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no dataset_dict\.json.*no Parquet files.*notes\.txt"):
        module(tmp_path)
    with pytest.raises(ConfigError, match="group_pattern"):
        module(tmp_path, group_pattern="_[0-9]+$")


@pytest.mark.parametrize("damage", ["arrow", "json", "features", "parquet"])
def test_damaged_files_are_refused_in_one_line(tmp_path, damage):
    root = saved(tmp_path / "set", train=rows(12))
    if damage == "arrow":
        (file,) = root.rglob("*.arrow")
        file.write_bytes(file.read_bytes()[:500])
    elif damage == "json":
        (root / "train" / "state.json").write_text("{")
    elif damage == "features":
        file = root / "train" / "dataset_info.json"
        file.write_text(file.read_text().replace("ClassLabel", "os.system"))
    else:
        root = tmp_path / "files"
        root.mkdir()
        (root / "train.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(DataError, match="cannot be read by datasets") as caught:
        module(root)
    assert "\n" not in str(caught.value)


def test_without_the_package_its_extra_is_named(tmp_path, monkeypatch):
    root = saved(tmp_path / "set", train=rows(12))
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match=r"pip install 'zoo-lightning\[datasets\]'"):
        module(root)


def test_files_of_several_data_sets_are_not_joined(tmp_path):
    for name in ("large", "small"):
        (tmp_path / "set" / name).mkdir(parents=True)
        rows(12).to_parquet(str(tmp_path / "set" / name / "train-00000-of-00001.parquet"))
    with pytest.raises(DataError, match=r"'train' in 2 folders, large, small"):
        module(tmp_path / "set")
    assert module(tmp_path / "set" / "small").class_names == ["ant", "bee", "cat"]


def test_parts_of_a_split_must_be_there_and_have_one_order_of_classes(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    rows(12).to_parquet(str(root / "train-00000-of-00002.parquet"))
    with pytest.raises(DataError, match=r"is one of 2 parts by its name, and there are 1"):
        module(root)
    turned = rows(12, datasets.ClassLabel(names=["cat", "bee", "ant"]))
    turned.to_parquet(str(root / "train-00001-of-00002.parquet"))
    with pytest.raises(DataError, match=r"00001-of-00002.parquet states other columns"):
        module(root)
    rows(12).to_parquet(str(root / "train-00001-of-00002.parquet"))
    assert module(root).class_names == ["ant", "bee", "cat"]
