"""HRNet's CSV files: both layouts, subsets, and how each fault is named."""

import numpy as np
import pytest

from zoo_lightning.data.landmarks.formats.hrnet_csv import (
    read_hrnet_csv,
    read_hrnet_header,
    rows_of_subset,
)
from zoo_lightning.errors import DataError

PLAIN = "image_name,scale,center_w,center_h,original_0_x,original_0_y,original_1_x,original_1_y\n"
AFLW = PLAIN.replace("scale,", "scale,box_size,")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "face_landmarks.csv"


def test_squares_are_200_scales_around_the_centre(path):
    path.write_text(PLAIN + "helen/a.jpg,1.5,100,80.5,90,70,110,91.25\nb.jpg,.1,5,6,1,2,3,4\n")
    assert read_hrnet_header(path).num_points == 2
    assert not read_hrnet_header(path).sized
    table = read_hrnet_csv(path)
    assert table.names == ["helen/a.jpg", "b.jpg"]
    assert table.regions.tolist() == [[100, 80.5, 300], [5, 6, 20]]
    assert table.points.tolist() == [[[90, 70], [110, 91.25]], [[1, 2], [3, 4]]]
    assert table.points.dtype == np.float32
    assert table.sizes is None
    assert table.labelled.all()


def test_the_layout_of_aflw_is_recognised_by_its_header(path):
    path.write_text(AFLW + "0/image1.jpg,0.5,87.5,50,60,40,50,60,70\n")
    assert read_hrnet_header(path).sized
    table = read_hrnet_csv(path)
    assert table.sizes.tolist() == [87.5]
    assert table.regions.tolist() == [[50, 60, 100]]
    assert table.points.tolist() == [[[40, 50], [60, 70]]]


@pytest.mark.parametrize(
    ("header", "line", "words"),
    [
        (PLAIN, "a,0,5,6,1,2,3,4", r"line 2: `scale` is 0, expected a number above 0"),
        (PLAIN, "a,nan,5,6,1,2,3,4", r"line 2, scale: found 'nan', expected a number"),
        (PLAIN, "a,1,5,6,1,2,3,x", r"line 2, original_1_y: found 'x'"),
        (PLAIN, "a,1,5,6,1,2,3", r"line 2: found 7 values, expected 8"),
        (PLAIN, "../a,1,5,6,1,2,3,4", r"line 2: the image name"),
        (PLAIN, "", "no images"),
        (AFLW, "a,1,0,5,6,1,2,3,4", r"line 2: `box_size` is 0"),
        ("image,x0,y0,x1,y1\n", "", "column 1 of the header is 'image', expected 'image_name'"),
        ("image_name,scale\n", "", "column 3 of the header is nothing, expected 'center_w'"),
        (PLAIN.replace(",original_1_y", ""), "", "3 columns follow"),
    ],
)
def test_faults_name_file_and_line(path, header, line, words):
    path.write_text(header + line + "\n")
    with pytest.raises(DataError, match=words) as error:
        read_hrnet_csv(path)
    assert str(path) in str(error.value)


def test_an_absent_file_names_the_near_one(tmp_path):
    (tmp_path / "train.csv").touch()
    with pytest.raises(DataError, match=r"Did you mean 'train\.csv'"):
        read_hrnet_csv(tmp_path / "trian.csv")


def test_faces_of_a_subset_are_told_apart_by_their_points(tmp_path):
    (tmp_path / "test.csv").write_text(
        PLAIN + "a,1,5,6,1,2,3,4\na,1,5,6,11,12,13,14\nb,1,5,6,1,2,3,4\n"
    )
    (tmp_path / "blur.csv").write_text(PLAIN + "b,1,5,6,1,2,3,4\na,1,5,6,11,12,13,14\n")
    (tmp_path / "other.csv").write_text(PLAIN + "a,1,5,6,21,22,23,24\n")
    table = read_hrnet_csv(tmp_path / "test.csv")
    blur = read_hrnet_csv(tmp_path / "blur.csv")
    assert rows_of_subset(table, blur, tmp_path / "blur.csv").tolist() == [False, True, True]
    with pytest.raises(DataError, match=r"other\.csv lists a face of 'a'"):
        rows_of_subset(table, read_hrnet_csv(tmp_path / "other.csv"), tmp_path / "other.csv")
