"""The landmark file: what is read, and how each fault is named."""

import numpy as np
import pytest

from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv, read_num_points
from zoo_lightning.errors import DataError

GOOD = "image,x0,y0,x1,y1\na.png,1,2,3.5,4\nsub/b.png,-1,2e1,3,4\n"


def test_names_and_points_are_read_in_order(tmp_path):
    (tmp_path / "t.csv").write_text(GOOD)
    table = read_landmark_csv(tmp_path / "t.csv")
    assert table.names == ["a.png", "sub/b.png"]
    assert table.points.dtype == np.float32
    assert table.points.tolist() == [[[1, 2], [3.5, 4]], [[-1, 20], [3, 4]]]
    assert len(table) == 2


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + GOOD.encode(),
        GOOD.replace("\n", "\r\n").encode(),
        GOOD.replace("\n", "\n\n").encode(),
        GOOD.rstrip().encode(),
        GOOD.replace("a.png", '"a.png"').encode(),
        GOOD.replace(",", ", ").encode(),
    ],
    ids=["byte order mark", "CRLF", "empty lines", "no last line end", "quotes", "spaces"],
)
def test_harmless_variants_of_the_file_read_alike(tmp_path, data):
    (tmp_path / "plain.csv").write_text(GOOD)
    (tmp_path / "t.csv").write_bytes(data)
    table = read_landmark_csv(tmp_path / "t.csv")
    plain = read_landmark_csv(tmp_path / "plain.csv")
    assert table.names == plain.names
    assert (table.points == plain.points).all()
    assert read_num_points(tmp_path / "t.csv") == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (GOOD, "", r"line 1: column 1 of the header is nothing, expected 'image'"),
        (GOOD, "image,x0,y0,x1,y1\n", "no images"),
        ("image,", "file,", "column 1 of the header is 'file', expected 'image'"),
        (",y1\n", "\n", "column 5 of the header is nothing, expected 'y1'"),
        ("x1", "x7", "column 4 of the header is 'x7', expected 'x1'"),
        ("y1\n", "y1,z\n", "column 6 of the header is 'z', expected nothing"),
        (GOOD, GOOD.replace(",", ";"), "column 1 of the header is 'image;x0;y0;x1;y1'"),
        ("x1,y1", "", "column 4"),
        (",3.5,4", ",3.5", "line 2: found 4 values, expected 5"),
        (",3,4", ",3,4,5", "line 3: found 6 values, expected 5"),
        ("3.5", "abc", "line 2, column x1: found 'abc', expected a number"),
        ("2e1", "", "line 3, column y0: found ''"),
        ("2e1", "nan", "line 3, column y0: found 'nan'"),
        ("2e1", "inf", "line 3, column y0: found 'inf'"),
        ("3.5,4", "inf,-inf", "line 2, column x1: found 'inf'"),
        ("3.5,4", "4,1.0000001e30", "line 2, column y1: found '1.0000001e30'"),
        ("3.5,4", "-2e30,2e30", "line 2, column x1: found '-2e30'"),
        ("3.5,4", "nan,4\n../c.png,1,2,3", "line 2, column x1: found 'nan'"),
        ("a.png", "", "line 2: the image name ''"),
        ("a.png", "../a.png", "line 2: the image name '../a.png' .* leads out"),
        ("a.png", "/etc/a.png", "leads out"),
        ("a.png", r"x\..\..\a.png", "leads out"),
        ("a.png", r"C:\a.png", "leads out"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tmp_path, old, new, words):
    path = tmp_path / "t.csv"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(DataError, match=words) as error:
        read_landmark_csv(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("empty", [",", " , ", "nan,NaN", "-nan,"])
def test_two_empty_fields_are_a_point_that_nobody_annotated(tmp_path, empty):
    (tmp_path / "t.csv").write_text(GOOD.replace("-1,2e1", empty))
    table = read_landmark_csv(tmp_path / "t.csv")
    assert table.labelled.tolist() == [[True, True], [False, True]]
    assert table.points.tolist() == [[[1, 2], [3.5, 4]], [[0, 0], [3, 4]]]


def test_the_largest_numbers_are_read(tmp_path):
    (tmp_path / "t.csv").write_text("image,x0,y0,x1,y1\na.png,1e30,-1e30,1e25,1e19\n")
    expected = np.float32([[[1e30, -1e30], [1e25, 1e19]]])
    assert (read_landmark_csv(tmp_path / "t.csv").points == expected).all()


def test_an_absent_file_is_named_with_its_neighbours(tmp_path):
    (tmp_path / "trian.csv").write_text(GOOD)
    with pytest.raises(DataError, match=r"Did you mean 'trian.csv'"):
        read_landmark_csv(tmp_path / "train.csv")
    with pytest.raises(DataError, match=r"folder .* does not exist"):
        read_landmark_csv(tmp_path / "nowhere" / "train.csv")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"image,x0,y0,x1,y1\n\xff\xfe\x00,1,2,3,4\n")
    with pytest.raises(DataError, match=r"t\.csv.*control character"):
        read_landmark_csv(tmp_path / "t.csv")


def test_real_files_read(real_data):
    table = read_landmark_csv(real_data("faces68") / "train.csv")
    assert table.points.shape == (2295, 68, 2)
