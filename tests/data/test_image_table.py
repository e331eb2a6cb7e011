"""Tables of images: what is read, and what is refused with the line."""

import pytest

from zoo_lightning.data.image_table import read_image_table
from zoo_lightning.errors import DataError


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_commas_semicolons_and_tabs_separate_cells(tmp_path, mark):
    path = tmp_path / "train.csv"
    lines = [f"age{mark}Image{mark}dose", f"3{mark}a\\b.png{mark} 2.5 ", "", f"4{mark}c.png{mark}"]
    path.write_text("\ufeff" + "\n".join(lines) + "\n", encoding="utf-8")
    table = read_image_table(path)
    assert table.columns == ("age", "dose")
    assert [row.image for row in table.rows] == ["a/b.png", "c.png"]
    assert [row.cells for row in table.rows] == [
        {"age": "3", "dose": "2.5"},
        {"age": "4", "dose": ""},
    ]
    assert table.rows[1].place == f"{path}, line 4"


def test_without_a_column_named_image_the_first_one_has_the_images(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("file,age\na.png,3\n")
    assert read_image_table(path).rows[0].image == "a.png"


def test_columns_are_chosen_by_name(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("image,age,dose\na.png,3,1\n")
    table = read_image_table(path)
    assert table.chosen(None) == ["age", "dose"]
    assert table.chosen(["dose"]) == ["dose"]
    with pytest.raises(DataError, match=r"no column 'doze'.*'dose'"):
        table.chosen(["doze"])
    for names in (["age", "age"], []):
        with pytest.raises(DataError, match="once each"):
            table.chosen(names)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("", "first line"),
        ("image\na.png\n", "two columns"),
        ("image,,age\na.png,1,2\n", "first line"),
        ("image,age,age\na.png,1,2\n", "each once"),
        ("image,age\n", "no images"),
        ("image,age\na.png,1,2\n", "line 2"),
        ("image,age\na.png,1\n../b.png,2\n", "line 3"),
        ("image,age\n,2\n", "line 2"),
    ],
)
def test_malformed_tables_are_refused_by_file_and_line(tmp_path, content, named):
    path = tmp_path / "train.csv"
    path.write_text(content)
    with pytest.raises(DataError, match=named) as error:
        read_image_table(path)
    assert str(path) in str(error.value)


def test_an_absent_or_binary_table_is_refused_by_name(tmp_path):
    with pytest.raises(DataError, match=r"train\.csv does not exist"):
        read_image_table(tmp_path / "train.csv")
    path = tmp_path / "train.csv"
    path.write_bytes(b"image,age\n\xff\xfe\x00,3\n")
    with pytest.raises(DataError, match=r"train\.csv.*control character"):
        read_image_table(path)


def test_names_of_columns_are_compared_in_one_unicode_form(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("image,gro\u0308\u00dfe\na.png,3\n", encoding="utf-8")
    table = read_image_table(path)
    assert table.columns == ("gr\u00f6\u00dfe",)
    assert table.chosen(["gro\u0308\u00dfe"]) == ["gr\u00f6\u00dfe"]


def test_separators_in_quoted_names_separate_nothing(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('image;"red, green, blue"\na.png;1\n', encoding="utf-8")
    assert read_image_table(path).columns == ("red, green, blue",)
