"""Files of several labels an image: what is read, and what is refused with its place."""

import json

import pytest

from zoo_lightning.data.multi_label.label_files import read_label_file, refuse_unknown
from zoo_lightning.errors import DataError


def table(tmp_path, text, name="train.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def content(found):
    return {row.image: (set(row.present), set(row.unknown)) for row in found.rows}


def test_a_column_for_each_label_has_ones_zeros_and_unknown_cells(tmp_path):
    path = table(tmp_path, "image,dog,cat\na.png,1,0\nb.png,Yes,\nc.png,0.0,TRUE\n")
    found = read_label_file(path)
    assert found.labels == ("dog", "cat")
    assert content(found) == {
        "a.png": ({"dog"}, set()),
        "b.png": ({"dog"}, {"cat"}),
        "c.png": ({"cat"}, set()),
    }
    assert found.notes == (
        f"{path}: 1 of 6 cells are empty, so that these labels of an image are unknown; they are "
        "left out of loss and metrics",
    )


@pytest.mark.parametrize("cell", ['"dog;cat"', '"dog, cat"', "cat dog dog", '"cat;dog;"'])
def test_listed_labels_are_separated_by_spaces_commas_or_semicolons(tmp_path, cell):
    found = read_label_file(table(tmp_path, f"image,labels\na.png,{cell}\nb.png,\n"))
    assert found.labels == ("cat", "dog")
    assert content(found) == {"a.png": ({"cat", "dog"}, set()), "b.png": (set(), set())}
    assert any("1 of 2 images have no label" in note for note in found.notes)


def test_labels_may_have_spaces_where_the_file_has_commas_or_training_had(tmp_path):
    found = read_label_file(table(tmp_path, 'image,labels\na.png,"red car,dog"\nb.png,red car\n'))
    assert found.labels == ("dog", "red car")
    test = table(tmp_path, "image,labels\na.png,red car\n")
    assert read_label_file(test, marks=True).labels == ("red car",)
    assert read_label_file(test).labels == ("car", "red")


def test_other_columns_beside_a_list_are_left_out_and_named(tmp_path):
    found = read_label_file(table(tmp_path, "image,age,tags\na.png,old,dog\nb.png,3,cat dog\n"))
    assert found.labels == ("cat", "dog")
    assert "not read: age" in found.notes[0]


def test_columns_of_ones_and_zeros_are_chosen_beside_others(tmp_path):
    path = table(tmp_path, "image,age,dog\na.png,3,1\nb.png,4,0\n")
    with pytest.raises(DataError, match=r"line 2, column 'age': found '3'.*--data.labels"):
        read_label_file(path)
    assert read_label_file(path, ["dog"]).labels == ("dog",)
    with pytest.raises(DataError, match=r"no column 'dogs'.*'dog'"):
        read_label_file(path, ["dogs"])


def test_minus_one_is_no_state_of_a_label(tmp_path):
    path = table(tmp_path, "image,dog,cat\na.png,1,0\nb.png,-1,1\n")
    with pytest.raises(DataError, match=r"line 3, column 'dog': found '-1'"):
        read_label_file(path)


@pytest.mark.parametrize(("second", "how"), [("dog", "with the same"), ("cat", "with other")])
def test_an_image_that_is_listed_twice_is_refused_with_both_lines(tmp_path, second, how):
    path = table(tmp_path, f"image,labels\na.png,dog\nb.png,cat\na.png,{second}\n")
    with pytest.raises(DataError, match=rf"line 4: 'a.png' is there already.*line 2, {how}"):
        read_label_file(path)


def test_a_list_without_any_label_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"found ';'|lists no labels"):
        read_label_file(table(tmp_path, "image,labels\na.png,;\n"))


def coco(**changes):
    found = {
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 4]},
            {"id": 2, "image_id": 1, "category_id": 7, "bbox": [1, 1, 4, 4]},
            {"id": 3, "image_id": 1, "category_id": 3},
        ],
    }
    return json.dumps(found | changes)


def test_in_json_an_image_has_the_categories_of_its_annotations(tmp_path):
    found = read_label_file(table(tmp_path, coco(), "train.json"))
    assert found.labels == ("dog", "cat")
    assert content(found) == {"a.png": ({"dog", "cat"}, set()), "b.png": (set(), set())}
    assert "boxes and masks are not read" in found.notes[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"annotations": [{"image_id": 9, "category_id": 7}]}, "no entry of `images` has this id"),
        ({"annotations": [{"image_id": 1, "category_id": 5}]}, "no entry of `categories` has"),
        ({"annotations": [{"image_id": 1}]}, "lacks `image_id` or `category_id`"),
        ({"annotations": ["dog"]}, "lacks `image_id` or `category_id`: 'dog'"),
        ({"images": [{"id": 1}]}, "lacks `id` or `file_name`"),
        ({"images": []}, "no entry in `images`"),
        ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, "two entries"),
        ({"images": [{"id": 1, "file_name": "../a"}]}, "leads out of the image folder"),
        ({"images": [{"id": i, "file_name": "a"} for i in (1, 2)]}, "is there already"),
        ({"categories": [{"name": "dog"}]}, "of `categories` lacks `id`"),
        ({"categories": None}, "no list `categories`"),
    ],
)
def test_malformed_json_is_refused_with_what_is_wrong(tmp_path, changes, said):
    path = table(tmp_path, coco(**changes), "train.json")
    with pytest.raises(DataError, match=said) as refused:
        read_label_file(path)
    assert str(path) in str(refused.value)


def test_what_is_no_json_is_refused(tmp_path):
    with pytest.raises(DataError, match="is no JSON text"):
        read_label_file(table(tmp_path, "{", "train.json"))


def test_labels_of_a_test_that_training_lacks_are_refused(tmp_path):
    test = read_label_file(table(tmp_path, "image,labels\na.png,dog dogs\n", "test.csv"))
    with pytest.raises(DataError, match=r"test.csv has the label 'dogs'.*'dog'"):
        refuse_unknown(test, ["cat", "dog"], tmp_path / "train.csv")
    columns = read_label_file(table(tmp_path, "image,dog,cow\na.png,1,0\n", "test.csv"))
    with pytest.raises(DataError, match=r"no column 'cat'.*Add it, with empty cells"):
        refuse_unknown(columns, ["cat", "dog", "cow"], tmp_path / "train.csv")
    refuse_unknown(columns, ["dog", "cow"], tmp_path / "train.csv")


def test_listed_labels_may_be_separated_by_bars(tmp_path):
    path = table(tmp_path, "image,labels\na.png,red car|dog\nb.png,dog\n")
    assert read_label_file(path).labels == ("dog", "red car")


@pytest.mark.parametrize("cell", ["\"['cat', 'dog']\"", "[]", "nan", "None", "<NA>"])
def test_what_programs_write_for_lists_and_nothing_is_no_label(tmp_path, cell):
    path = table(tmp_path, f"image,labels\na.png,dog\nb.png,{cell}\n")
    with pytest.raises(DataError, match=r"line 3, column 'labels': found .* expected labels"):
        read_label_file(path)


@pytest.mark.parametrize(
    ("category", "words"),
    [
        ({"id": 1, "name": "cow"}, "have the id 1, 'dog' and 'cow'"),
        ({"id": 2, "name": None}, "lacks `id` or `name`"),
        ({"id": 2, "name": " "}, "lacks `id` or `name`"),
    ],
)
def test_categories_have_ids_and_names_of_their_own(tmp_path, category, words):
    content = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [],
        "categories": [{"id": 1, "name": "dog"}, category],
    }
    with pytest.raises(DataError, match=words):
        read_label_file(table(tmp_path, json.dumps(content), "train.json"))
