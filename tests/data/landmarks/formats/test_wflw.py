"""WFLW's lists of 207 columns."""

import numpy as np
import pytest

from zoo_lightning.data.landmarks.formats.wflw import ATTRIBUTES, read_wflw
from zoo_lightning.errors import DataError


def line(name="37--Soccer/a_1.jpg", box=(10, 20, 50, 40), flags="010010"):
    coordinates = [f"{value:.6f}" for value in np.arange(196) / 4]
    return " ".join([*coordinates, *map(str, box), *flags, name])


def test_points_boxes_and_attributes_are_read(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text(line() + "\n" + line("b.jpg", (0, 0, 3, 8), "100001") + "\n")
    table = read_wflw(path)
    assert table.names == ["37--Soccer/a_1.jpg", "b.jpg"]
    assert table.points.shape == (2, 98, 2)
    assert table.points[0, 1].tolist() == [0.5, 0.75]
    assert table.regions.tolist() == [[30, 30, 40], [1.5, 4, 8]]
    assert tuple(table.subsets) == ATTRIBUTES
    assert {name for name in ATTRIBUTES if table.subsets[name][0]} == {"expression", "occlusion"}
    assert {name for name in ATTRIBUTES if table.subsets[name][1]} == {"largepose", "blur"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty; expected lines of 196"),
        (line().partition(" ")[2], "line 2: found 206 columns, expected 207"),
        (line(name=""), "line 2: found 206 columns"),
        (line(box=(10, 20, 10, 40)), r"line 2: the box 10 20 10 40 .* is empty"),
        (line(box=(10, 20, "x", 40)), "line 2, x_max: found 'x'"),
        (line(flags="010012"), "line 2: the attribute blur is '2'"),
        (line(name="/a.jpg"), "line 2: the image name"),
        (line().replace("0.250000", "nan", 1), "line 2, y0: found 'nan'"),
    ],
)
def test_faults_name_file_and_line(tmp_path, text, words):
    path = tmp_path / "list.txt"
    path.write_text("\n" + text + "\n")
    with pytest.raises(DataError, match=words):
        read_wflw(path)
