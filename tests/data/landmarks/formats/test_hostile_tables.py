"""Tables of other encodings and delimiters, with names that lead out, with a million rows."""

import json
import os
import time
import tracemalloc
from pathlib import Path

import pytest

from zoo_lightning.data.classification.lists import ListFiles, classes_of, read_list, split_label
from zoo_lightning.data.images import check_present
from zoo_lightning.data.landmarks.formats.coco import read_coco
from zoo_lightning.data.landmarks.formats.hrnet_csv import read_hrnet_csv
from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv
from zoo_lightning.data.landmarks.formats.wflw import read_wflw
from zoo_lightning.data.landmarks.published import LandmarkCSV
from zoo_lightning.errors import DataError

HRNET = "image_name,scale,center_w,center_h,original_0_x,original_0_y,original_1_x,original_1_y\n"


def coco(name: str) -> str:
    face = {"id": 1, "image_id": 7, "keypoints": [1, 2, 2, 3, 4, 2]}
    return json.dumps({"images": [{"id": 7, "file_name": name}], "annotations": [face]})


TABLES = {
    "plain": (read_landmark_csv, lambda name: f'image,x0,y0,x1,y1\n"{name}",1,2,3,4\n'),
    "hrnet": (read_hrnet_csv, lambda name: f'{HRNET}"{name}",1,5,6,1,2,3,4\n'),
    "wflw": (
        read_wflw,
        lambda name: " ".join(
            [*["1"] * 196, *["0", "0", "9", "9", "0", "1", "0", "1", "0", "1"], name]
        ),
    ),
    "coco": (read_coco, coco),
    "list": (read_list, lambda name: f"{name} 0\n"),
}

OUT = {
    "dots": "../secret.png",
    "dots inside": "a/../../secret.png",
    "backslashes": "..\\secret.png",
    "absolute": "/etc/secret.png",
    "absolute on Windows": "C:\\secret.png",
    "network share": "\\\\server\\secret.png",
    "of a drive": "C:secret.png",
    "dots at the end": "a/..",
    "control character": "a\x1b[2J.png",
}


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("kind", OUT)
def test_an_image_outside_its_folder_is_refused_with_its_line(tmp_path, table, kind):
    read, write = TABLES[table]
    path = tmp_path / "train.txt"
    path.write_text(write(OUT[kind]), encoding="utf-8")
    with pytest.raises(DataError, match=r"train\.txt.*(leads out of|control character)"):
        read(path)


@pytest.mark.parametrize("table", TABLES)
def test_names_are_the_bytes_of_the_file_whatever_their_encoding(tmp_path, table):
    read, write = TABLES[table]
    path, name = tmp_path / "train.txt", os.fsdecode("ä.png".encode("latin-1"))
    # JSON may also escape such a name, which gives the same.
    path.write_text(write(name), encoding="utf-8", errors="surrogateescape")
    found = read(path)
    names = [each for each, _ in found] if table == "list" else found.names
    assert list(names) == [name]
    with pytest.raises(DataError, match="no UTF-8 text, and no image has its very bytes"):
        check_present(names, tmp_path, path)
    (tmp_path / name).touch()
    check_present(names, tmp_path, path)


@pytest.mark.parametrize("table", ["plain", "hrnet", "list"])
@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-16-le"),
        lambda text: bytes(200),
        lambda text: b"\x1f\x8b\x08" + bytes(50),
    ],
    ids=["UTF-16", "UTF-16 without mark", "zeros", "gzip"],
)
def test_another_encoding_is_refused_by_name(tmp_path, table, encode):
    read, write = TABLES[table]
    path = tmp_path / "train.txt"
    path.write_bytes(encode(write("a.png")))
    with pytest.raises(DataError, match=r"train\.txt"):
        read(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 200_000,
        '{"images": ' + "[" * 200_000,
        '{"a":' * 100_000,
        coco("a.png").replace("[1, 2, 2", f"[{10**400}, 2, 2"),
        coco("a.png").replace("[1, 2, 2", "[1e400, 2, 2"),
        coco("a.png").replace("[1, 2, 2", "[NaN, 2, 2"),
        coco("a.png").replace("[1, 2, 2", f"[{'9' * 5000}, 2, 2"),
        coco("a.png").replace('"id": 7', '"id": {"a": 1}'),
        coco("a.png").replace('"image_id": 7', '"image_id": [7]'),
        coco("a.png").replace('"id": 1', '"bbox": [[1], [2], [3], [4]]'),
        coco("a.png").replace('"id": 1', f'"bbox": [1, 2, {10**400}, 4]'),
        coco("a.png").replace('"id": 1', '"bbox": [1, 2, 1e308, 1e308]'),
    ],
    ids=lambda text: str(len(text)),
)
def test_json_made_to_harm_is_refused_by_name(tmp_path, text):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(DataError, match=r"train\.json"):
        read_coco(tmp_path / "train.json")


@pytest.mark.parametrize("delimiter", [";", "\t", "|", " "])
def test_another_delimiter_is_named(tmp_path, delimiter):
    path = tmp_path / "train.csv"
    path.write_text(TABLES["plain"][1]("a.png").replace(",", delimiter))
    with pytest.raises(DataError, match=r"line 1: column 1 of the header .* separated by commas"):
        read_landmark_csv(path)


@pytest.mark.parametrize("change", [
    lambda text: "\ufeff" + text,
    lambda text: text.replace("\n", "\r\n"),
    lambda text: text.replace("\n", "\r"),
    lambda text: text + "\n\n , \n".replace(" , ", ""),
])  # fmt: skip
def test_what_spreadsheets_do_to_a_file_is_no_matter(tmp_path, change):
    path = tmp_path / "train.csv"
    path.write_bytes(change(TABLES["plain"][1]("a.png")).encode())
    assert read_landmark_csv(path).points.tolist() == [[[1, 2], [3, 4]]]


def test_quotes_hold_commas_and_quotes_but_no_end_of_the_file(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('image,x0,y0,x1,y1\n"a, ""b"".png","1","2",3,4\n')
    assert read_landmark_csv(path).names == ['a, "b".png']
    path.write_text('image,x0,y0,x1,y1\n"a.png,1,2,3,4\nb.png,1,2,3,4\n' * 5000)
    with pytest.raises(DataError, match=r"train\.csv"):
        read_landmark_csv(path)


@pytest.mark.parametrize("value", ["1e39", "-1e300", "1e30001", "0x10", "1_0" * 90, "٣e99"])
def test_a_number_that_is_no_place_in_an_image_is_refused(tmp_path, value):
    path = tmp_path / "train.csv"
    path.write_text(f"image,x0,y0,x1,y1\na.png,1,2,{value},4\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"line 2, column x1: found"):
        read_landmark_csv(path)


def test_images_that_are_links_may_lie_anywhere(landmark_root, tmp_path):
    store = tmp_path / "store"
    store.mkdir()
    for image in list((landmark_root / "images").iterdir()):
        image.rename(store / image.name)
        image.symlink_to(store / image.name)
    data = LandmarkCSV(root=str(landmark_root), image_size=16, num_workers=0)
    data.setup("fit")
    assert len(data.train_set) + len(data.val_set) == 20
    (store / "traina_00.png").unlink()
    with pytest.raises(DataError, match=r"traina_00\.png"):
        LandmarkCSV(root=str(landmark_root), image_size=16, num_workers=0).setup("fit")


def test_names_that_no_file_can_have_are_absent(tmp_path):
    for name in ("a" * 5000, "b/" * 3000, "c\0d"):
        with pytest.raises(DataError, match="is not in"):
            check_present([name], tmp_path, Path("train.csv"))


@pytest.mark.parametrize("label", ["1000000", "999999999999", "9" * 5000, "-1", "-0001"])
def test_a_label_that_no_list_of_classes_reaches_is_refused(tmp_path, label):
    (tmp_path / "train.txt").write_text(f"a.png 0\nb.png {label}\n")
    with pytest.raises(DataError, match=r"train\.txt, line 2: label .* below 1,000,000"):
        ListFiles(root=str(tmp_path))


@pytest.mark.parametrize(
    ("line", "path", "digits"),
    [
        ("a b.png 3", "a b.png", "3"),
        ("a.png,3", "a.png", "3"),
        ("a.png , 3", "a.png", "3"),
        ("a.png -3", "a.png", "-3"),
        ("a.png007", "a.png007", ""),
        ("img-3", "img-3", ""),
        ("a/12", "a/12", ""),
        ("12", "12", ""),
        (" ,3", " ,3", ""),
        ("a.png - 3", "a.png -", "3"),
    ],
)
def test_a_label_stands_apart_from_its_path(line, path, digits):
    assert split_label(line) == (path, digits)


def test_a_line_of_a_million_blanks_takes_no_time(tmp_path):
    path = tmp_path / "train.txt"
    path.write_text("ant/a" + " " * 1_000_000 + "b.png\n" + "bee/c" + ", " * 500_000 + "d.png\n")
    start = time.process_time()
    assert len(read_list(path)) == 2
    assert time.process_time() - start < 2


ROWS = 1_000_000


def many(path: Path, header: str, line: str, rows: int = ROWS) -> Path:
    with path.open("w") as file:
        file.write(header)
        for start in range(0, rows, 10_000):
            file.writelines(line.format(index) for index in range(start, start + 10_000))
    return path


@pytest.mark.parametrize("rows", [100_000, pytest.param(ROWS, marks=pytest.mark.slow)])
def test_a_million_rows_are_read_in_seconds(tmp_path, rows):
    path = many(tmp_path / "train.csv", "image,x0,y0,x1,y1\n", "faces/{}.jpg,1,2.5,3,4\n", rows)
    start = time.process_time()
    table = read_landmark_csv(path)
    assert table.points.shape == (rows, 2, 2)
    assert table.names[-1] == f"faces/{rows - 1}.jpg"
    assert time.process_time() - start < rows / 20_000


@pytest.mark.slow
def test_so_are_a_million_lines_of_a_list(tmp_path):
    start = time.process_time()
    entries = read_list(many(tmp_path / "train.txt", "", "bee/{}.jpg 3\n"))
    assert len(entries) == ROWS
    assert classes_of(entries) == ["0", "1", "2", "bee"]
    assert time.process_time() - start < ROWS / 20_000


def numbers(count: int, between: str) -> str:
    """Numbers of eight characters, each a Python object of its own."""
    return between.join(f"{200 + n / 7:.4f}" for n in range(count))


def columns(count: int) -> str:
    return ",".join(f"{axis}{k}" for k in range(count // 2) for axis in "xy")


ROOM = {
    "plain, 2 points": (read_landmark_csv, f"image,{columns(4)}\n", ",1,2.5,3,4", 130),
    "plain, 68 points": (
        *(read_landmark_csv, f"image,{columns(136)}\n", "," + numbers(136, ","), 1200),
    ),
    "hrnet, 68 points": (
        *(read_hrnet_csv, HRNET.partition("original")[0] + columns(136) + "\n"),
        *(",1,5,6," + numbers(136, ","), 4200),
    ),
    "wflw": (read_wflw, "", f"{numbers(196, ' ')} 0 0 9 9 0 1 0 1 0 1 ", 6500),
    "list": (read_list, "", " 3", 300),
}
"""How a format is read, its header, what a line has besides the image's name, and bytes a line."""


@pytest.mark.parametrize("table", ROOM)
def test_a_line_takes_little_more_memory_than_its_text_and_its_numbers(tmp_path, table):
    read, header, cells, most = ROOM[table]
    rows = 2000
    path = tmp_path / "train.txt"
    place = "{cells}faces/{row}.jpg" if table == "wflw" else "faces/{row}.jpg{cells}"
    lines = [place.format(cells=cells, row=row) for row in range(rows)]
    path.write_text(header + "\n".join(lines) + "\n")
    del lines
    tracemalloc.start()  # what Python and NumPy ask for, not what the process once had
    try:
        found = read(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(found) == rows
    assert peak / rows < most
