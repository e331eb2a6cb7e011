"""Landmarks that are formally right but cannot be what they are taken for, in every format."""

import itertools
import json
import re
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data import COFW, W300, WFLW, COCOKeypoints, HRNetCSV, LandmarkCSV
from zoo_lightning.data.augmentation import Augmentation
from zoo_lightning.data.landmarks import base as landmark_data
from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv
from zoo_lightning.data.landmarks.plausibility import check_points, check_squares, find_pairs
from zoo_lightning.data.landmarks.schemes import (
    COFW29,
    FACES5,
    IBUG68,
    SCHEMES,
    WFLW98,
    flip_from_pairs,
    scheme_for,
)
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.errors import DataError

SMALL = {"image_size": 32, "batch_size": 4, "num_workers": 0, "augment": False, "val_fraction": 0.3}
SIDE = 120


def faces(scheme, count=12, seed=0):
    """Upright faces ``(N, K, 2)`` in pixels: pairs left and right, eyes above, mouth below."""
    rng = np.random.default_rng(seed)
    shape = np.zeros((scheme.num_points, 2))
    eyes = set(itertools.chain(*scheme.eyes))
    down = sorted(range(scheme.num_points), key=lambda k: (k in scheme.mouth, k not in eyes))
    ys = dict(zip(down, np.linspace(-30, 30, scheme.num_points), strict=True))
    for number, (point, partner) in enumerate(enumerate(scheme.flip)):
        if point <= partner:
            x = (10 + 6 * (number % 4)) * (point < partner)
            shape[[point, partner]] = [[-x, ys[point]], [x, ys[point]]]
    centres = 60 + rng.uniform(-8, 8, (count, 1, 2))
    sizes = rng.uniform(0.8, 1.2, (count, 1, 1))
    return centres + sizes * (shape + rng.normal(0, 0.3, (count, *shape.shape)))


def boxes_of(points):
    """Left, top, right and bottom of each face, ``(N, 4)``."""
    return np.concatenate([np.nanmin(points, 1), np.nanmax(points, 1)], -1)


def text(value):
    return "nan" if np.isnan(value) else f"{value:.4f}"


def write_plain(root, part, names, points, boxes):
    columns = [f"{axis}{k}" for k in range(points.shape[1]) for axis in "xy"]
    rows = [[n, *map(text, p.ravel())] for n, p in zip(names, points, strict=True)]
    (root / f"{part}.csv").write_text("\n".join(map(",".join, [["image", *columns], *rows])) + "\n")


def write_hrnet(root, part, names, points, boxes):
    columns = [f"original_{k}_{axis}" for k in range(points.shape[1]) for axis in "xy"]
    rows = [["image_name", "scale", "center_w", "center_h", *columns]]
    for name, face, (left, top, right, bottom) in zip(names, points, boxes, strict=True):
        scale = max(right - left, bottom - top) / 200
        square = [scale, (left + right) / 2, (top + bottom) / 2]
        rows.append([name, *map(text, [*square, *face.ravel()])])
    (root / f"{part}.csv").write_text("\n".join(map(",".join, rows)) + "\n")


def write_coco(root, part, names, points, boxes):
    images, annotations = [], []
    for i, (name, face, box) in enumerate(zip(names, points, boxes, strict=True)):
        images.append({"id": i, "file_name": name})
        flags = np.where(np.isnan(face).any(-1, keepdims=True), 0, 2)
        keypoints = np.concatenate([np.nan_to_num(face), flags], -1).ravel().tolist()
        square = [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]
        annotations.append(
            {"id": i, "image_id": i, "category_id": 3, "keypoints": keypoints, "bbox": square}
        )
    category = {"id": 3, "name": "face", "keypoints": [f"p{k}" for k in range(points.shape[1])]}
    content = {"images": images, "annotations": annotations, "categories": [category]}
    (root / f"{part}.json").write_text(json.dumps(content))


def write_pts(root, part, names, points, boxes):
    for name, face in zip(names, points, strict=True):
        rows = "\n".join(f"{text(x)} {text(y)}" for x, y in face)
        path = (root / name).with_suffix(".pts")
        path.write_text(f"version: 1\nn_points: {len(face)}\n{{\n{rows}\n}}\n")


def write_wflw(root, part, names, points, boxes):
    lists = root / "WFLW_annotations/list_98pt_rect_attr_train_test"
    lists.mkdir(parents=True, exist_ok=True)
    lines = [
        " ".join([*map(text, [*face.ravel(), *box]), *"000000", name])
        for name, face, box in zip(names, points, boxes, strict=True)
    ]
    (lists / f"list_98pt_rect_attr_{part}.txt").write_text("\n".join(lines) + "\n")


def write_cofw(root, part, names, points, boxes):
    savemat = pytest.importorskip("scipy.io").savemat
    cells = np.empty((len(points), 1), object)
    for index in range(len(points)):
        cells[index, 0] = np.zeros((SIDE, SIDE), np.uint8)
    flat = points.transpose(0, 2, 1).reshape(len(points), -1)
    phis = np.concatenate([flat, np.zeros((len(points), points.shape[1]))], 1)
    suffix = {"train": "Tr", "test": "T"}[part]
    savemat(root / f"COFW_{part}_color.mat", {f"Is{suffix}": cells, f"phis{suffix}": phis})


FORMATS = {
    "plain": (LandmarkCSV, FACES5, write_plain, "images"),
    "hrnet": (HRNetCSV, FACES5, write_hrnet, "images"),
    "coco": (COCOKeypoints, FACES5, write_coco, "images"),
    "pts": (W300, IBUG68, write_pts, None),
    "wflw": (WFLW, WFLW98, write_wflw, "WFLW_images"),
    "cofw": (COFW, COFW29, write_cofw, None),
}
"""What reads a format, its points in these tests, what writes it, and its image folder."""


class Files:
    """Training and test files of one format; numbers are those in the files."""

    def __init__(self, root, kind):
        self.root = root
        self.kind, self.scheme, self.write_part, self.images = FORMATS[kind]
        self.points = {"train": faces(self.scheme), "test": faces(self.scheme, seed=1)}

    def write(self, change=lambda points: points, boxes=lambda boxes: boxes, parts=None):
        """Write the files, with the points of some parts and the boxes changed."""
        for part, points in self.points.items():
            changed = change(points.copy()) if parts is None or part in parts else points
            names = [f"{part}{chr(97 + i)}.png" for i in range(len(points))]
            if self.kind is W300:
                folders = {"train": ("afw", "helen/trainset", "lfpw/trainset"),
                           "test": ("helen/testset", "lfpw/testset", "ibug")}[part]  # fmt: skip
                names = [f"{folders[i % 3]}/{name}" for i, name in enumerate(names)]
            for name in names:
                path = self.root / (self.images or "") / name
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists() and self.kind is not COFW:
                    Image.new("L", (SIDE, SIDE)).save(path)
            self.write_part(self.root, part, names, changed, boxes(boxes_of(points)))
        return self

    def data(self, stage=None, **options):
        """The data module, set up for a stage or for training and testing."""
        module = self.kind(str(self.root), **{**SMALL, **options})
        for each in ("fit", "test") if stage is None else (stage,):
            module.setup(each)
        return module


@pytest.fixture(params=FORMATS)
def files(request, tmp_path):
    return Files(tmp_path, request.param)


@pytest.fixture
def plain(tmp_path):
    return Files(tmp_path, "plain")


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(landmark_data, "rank_zero_info", lines.append)
    return lines


@pytest.mark.filterwarnings("error")
def test_faces_are_used_without_a_warning_and_what_is_assumed_is_one_line(files, log):
    module = files.write().data("test")
    assert not log
    module.trainer = object()
    module.setup("fit")
    module.setup("fit")
    (line,) = log
    assert str(module.files["train"]) in line
    assert files.scheme.name in line
    assert "interocular" in line
    assert ("whole images" if files.kind is LandmarkCSV else "boxes") in line
    assert ("category 'face'" in line) == (files.kind is COCOKeypoints)


def mark(number):
    """Put a number into both coordinates of point 2 of every second face."""

    def change(points):
        points[::2, 2] = number
        return points

    return change


@pytest.mark.parametrize("number", [0, -1, -9999])
def test_points_that_nobody_annotated_are_never_trained_on(files, number):
    files.write(mark(number))
    for stage in ("fit", "test"):
        with pytest.raises(DataError, match=f"6 points in 6 of 12 .*--data.missing={number};"):
            files.data(stage)
    module = files.data(missing=number)
    counted = np.array([truth.visible for truth in module.test_set.truths])
    assert (~counted).sum(0).tolist() == [6 * (k == 2) for k in range(counted.shape[1])]
    places = np.array([truth.original for truth in module.test_set.truths])
    assert (places[counted] > 0).all()


def test_nan_means_the_same_as_a_marked_point(files):
    marked = files.write(mark(-1)).data(missing=[-1, 0])
    unlabelled = files.write(mark(np.nan)).data()
    assert not marked.train_set.visible.all()
    for first, second in zip(marked.train_set.points, unlabelled.train_set.points, strict=True):
        assert (first == second).all()
    assert (marked.train_set.visible == unlabelled.train_set.visible).all()
    for first, second in zip(marked.test_set, unlabelled.test_set, strict=True):
        assert torch.equal(first["visible"], second["visible"])
        assert torch.equal(first["points"], second["points"])
        assert first["distances"] == second["distances"]


@pytest.mark.parametrize("cell", ["", "NA", "<NA>", "n/a", "NULL", "None"])
@pytest.mark.parametrize("kind", ["plain", "hrnet"])
def test_empty_fields_mean_the_same_as_nan(tmp_path, kind, cell):
    made = Files(tmp_path, kind)
    made.write(mark(np.nan))
    before = made.data("test").test_set
    path = tmp_path / "test.csv"
    path.write_text(path.read_text().replace("nan,nan", f"{cell},{cell}"))
    after = made.data("test").test_set
    assert "nan" not in path.read_text()
    for first, second in zip(before.truths, after.truths, strict=True):
        assert (first.visible == second.visible).all()
        assert (first.original == second.original).all()
    line = path.read_text().splitlines()[1].split(",")
    line[-1] = cell
    path.write_text("\n".join([path.read_text().splitlines()[0], ",".join(line)]) + "\n")
    with pytest.raises(
        DataError, match=rf"test\.csv, line 2, .*(y4|4_y): found '{cell}', expected a num"
    ):
        made.data("test")


def test_one_lone_marker_is_a_warning():
    def change(points):
        points[0, 2] = -1
        return points

    (line,) = check_points(table_of(change(faces(FACES5))), FACES5, Path("train.csv"))
    assert "train.csv: (-1, -1) is the place of 1 point in 1 of 12 faces" in line


@pytest.mark.parametrize("marker", [(1, 1), (-1, 0), (9999, 9999), (0, 119), (32767, 32767)])
@pytest.mark.parametrize("scheme", [FACES5, IBUG68, WFLW98], ids=lambda scheme: scheme.name)
def test_a_place_far_from_faces_that_several_share_is_refused(marker, scheme):
    points = faces(scheme, 20)
    points[:7, 2] = points[7:9, 4] = marker
    with pytest.raises(DataError) as error:
        check_points(table_of(points), scheme, Path("train.csv"))
    mend = f"--data.missing={marker[0]}" if marker[0] == marker[1] else "both its coordinates empty"
    assert f"({marker[0]}, {marker[1]}) is the place of 9 points" in str(error.value)
    assert mend in str(error.value)


@pytest.mark.parametrize("scheme", [FACES5, IBUG68, WFLW98], ids=lambda scheme: scheme.name)
@pytest.mark.parametrize("rounded", [True, False])
def test_faces_that_are_aligned_by_their_eyes_have_no_markers(scheme, rounded):
    points = faces(scheme, 20)
    eyes = np.stack([points[:, list(group)].mean(1) for group in scheme.eyes], 1)
    # As complex numbers: turned, scaled and shifted such that the eyes are at two given places.
    numbers = points[..., 0] + 1j * points[..., 1]
    left, right = (eyes[:, side, :1] + 1j * eyes[:, side, 1:] for side in (0, 1))
    aligned = 40 + 50j + 30 * (numbers - left) / (right - left)
    points = np.stack([aligned.real, aligned.imag], -1)
    points = points.round() if rounded else points.round(6)
    lines = check_points(table_of(points), scheme, Path("train.csv"))
    assert not any("is the place of" in line for line in lines)


@pytest.mark.parametrize("place", [(9999, 9999), (-500, 3)])
def test_a_point_that_is_marked_in_all_faces_is_refused(place):
    points = faces(FACES5, 20)
    points[:, 2] = place
    with pytest.raises(DataError, match="is the place of 20 points in 20 of 20 faces"):
        check_points(table_of(points), FACES5, Path("train.csv"))


def test_all_faces_alike_are_a_warning():
    points = np.repeat([[[20.0, 20], [40, 22], [30, 40]]], 12, axis=0)
    (line,) = check_points(table_of(points), scheme_for(3), Path("train.csv"))
    assert "as only aligned faces have them" in line


def test_odd_points_that_faces_do_not_share_are_no_markers():
    points = faces(FACES5, 20).round()
    points[:4, 3] = np.arange(8).reshape(4, 2)
    assert not any("nobody" in line for line in check_points(table_of(points), FACES5, Path("")))


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_all_x_before_all_y_is_refused(scheme):
    points = faces(scheme, 20)
    mixed = points.transpose(0, 2, 1).reshape(points.shape)
    with pytest.raises(DataError, match="x of all points and then y of all points"):
        check_points(table_of(mixed), scheme, Path("train.csv"))


@pytest.mark.parametrize(("factor", "warned"), [(0.5, True), (0.7, False)])
def test_points_of_smaller_copies_of_the_images_are_a_warning(factor, warned):
    points = faces(FACES5, 20) * factor
    squares = np.tile([60.0, 60.0, 120.0], (20, 1))
    lines = check_squares(table_of(points), squares, Path("train.csv"))
    assert any("upper left quarter" in line for line in lines) is warned


def test_missing_points_are_mirrored_with_their_partners(plain):
    def change(points):
        points[:, 3] = np.nan
        return points

    mirrored = Augmentation(0, (1, 1), 0, 1.0, 0, 0, 0, 0, 0)
    module = plain.write(change).data("fit", augment=mirrored)
    for index in range(len(module.train_set)):
        assert module.train_set[0, index]["visible"].tolist() == [True, True, True, True, False]
        assert torch.isfinite(module.train_set[0, index]["points"]).all()


@pytest.mark.parametrize("head", ["coordinates", "heatmaps"])
def test_a_training_with_missing_eyes_and_what_to_measure_it_by(plain, tiny, command, head):
    def change(points):
        points[np.arange(len(points)) % 4 > 0, 1] = -1
        return points

    plain.write(change)
    data = {"root": str(plain.root), "image_size": 32, "batch_size": 4, "num_workers": 0}
    stages = {"model.init_args.backbone.init_args.output": "stages"} if head == "heatmaps" else {}
    tiny(data={"class_path": "LandmarkCSV", "init_args": data},
         **{"model.init_args.head": head, **stages})  # fmt: skip
    fit = ["fit", "--experiment", "tiny", "--trainer.fast_dev_run=1"]
    command(*fit).refused("train.csv", "(-1, -1)", "--data.missing=-1")
    refused = command(*fit, "--data.missing=-1").refused("interocular", "of 2 faces")
    (options,) = re.findall(r"\(--data\.normalizations '(.*)' --model.normalization box\)", refused)
    chosen = ["--data.normalizations", options, "--model.normalization", "box"]
    done = command(*fit, "--data.missing=-1", *chosen)
    assert done.status == 0, done.err


def test_another_order_is_refused_with_the_pairs_that_are_right(files):
    count = files.scheme.num_points
    order = np.roll(np.arange(count), 1) if count == 5 else np.random.default_rng(3).permutation(
        count)  # fmt: skip
    place = np.argsort(order)
    true = [int(place[files.scheme.flip[order[k]]]) for k in range(count)]
    files.write(lambda points: points[:, order])
    for stage in ("fit", "test"):
        with pytest.raises(DataError, match=rf"scheme {files.scheme.name} .*--data.eyes") as error:
            files.data(stage)
    said = str(error.value)
    pairs = json.loads(re.search(r"--data\.flip_pairs '(.*?)'", said)[1])
    assert list(flip_from_pairs(count, pairs)) == true
    eyes = [[int(place[k]) for k in group] for group in files.scheme.eyes]
    if count == 5:
        assert json.loads(re.search(r"--data\.eyes '(.*?)'", said)[1]) in (eyes, eyes[::-1])
    module = files.data(flip_pairs=pairs, eyes=eyes)
    assert list(module.scheme.flip) == true
    assert files.data(check_annotations=False).scheme == files.scheme
    wrong = [pair for pair in enumerate(files.scheme.flip) if pair[0] < pair[1]]
    with pytest.raises(DataError, match=r"--data\.flip_pairs describes"):
        files.data("fit", flip_pairs=wrong)


def test_only_the_test_file_is_of_another_order(files):
    files.write(lambda points: np.roll(points, 1, 1), parts=("test",))
    files.data("fit")
    with pytest.raises(DataError, match=r"flip_pairs"):
        files.data("test")


@pytest.mark.parametrize("order", [[1, 0, 2, 4, 3], [0, 1, 2, 4, 3]])
def test_sides_that_are_named_the_other_way_round_change_nothing(plain, order):
    plain.write(lambda points: points[:, order]).data()


def test_y_from_the_bottom_and_exchanged_axes_are_refused(files):
    for change, words in (
        (lambda points: points * [1, -1] + [0, SIDE], "eyes are below the mouth in 100% .* bottom"),
        (lambda points: points[..., ::-1], "x and y are exchanged"),
    ):
        files.write(change)
        with pytest.raises(DataError, match=words):
            files.data("fit", box="image")
        files.data("fit", box="image", check_annotations=False)


BOXED = ["hrnet", "coco", "wflw"]


@pytest.mark.parametrize("kind", BOXED)
@pytest.mark.parametrize(
    "wrong",
    [
        lambda boxes: boxes / 3,
        lambda boxes: boxes + 40,
        lambda boxes: boxes @ (np.eye(4) * 0.3 + np.eye(4, k=2) * 0.7),
    ],
    ids=["scale", "centre", "side"],
)  # fmt: skip
def test_boxes_that_miss_their_faces_are_refused(tmp_path, kind, wrong):
    made = Files(tmp_path, kind)
    made.write(boxes=wrong)
    for stage in ("fit", "test"):
        with pytest.raises(DataError, match=r"\d\d% of the points are outside .* --data\.box poin"):
            made.data(stage)
    made.data(box="points")
    made.data(check_annotations=False)


@pytest.mark.parametrize("kind", BOXED)
def test_boxes_of_whole_images_with_small_faces_are_a_warning(tmp_path, kind):
    made = Files(tmp_path, kind)
    made.points = {part: 30 + points / 12 for part, points in made.points.items()}
    made.write(boxes=lambda boxes: np.tile([0.0, 0, SIDE, SIDE], (len(boxes), 1)))
    with pytest.warns(UserWarning, match=r"points span only .* --data\.box points"):
        made.data("test")


def test_fractions_are_no_pixels(plain):
    plain.write(lambda points: points / SIDE)
    with pytest.raises(DataError, match="fractions"):
        plain.data("fit")


def table_of(points, names=None):
    points = np.asarray(points, np.float32)
    return LandmarkTable(names or [f"{i}.png" for i in range(len(points))], points)


WHOLE = np.array([[60.0, 60, 120]])


def test_an_image_listed_for_two_faces_is_refused_unless_their_squares_differ():
    points = faces(FACES5, 10) / 3 + 40
    points[1] += [40, 30]
    table = table_of(points, ["a", "a", *"bcdefghi"])
    with pytest.raises(DataError, match=r"1 of 10 faces are of an image and a square .* 'a'"):
        check_squares(table, np.repeat(WHOLE, 10, 0), Path("train.csv"))
    centres = points.mean(1)
    assert not check_squares(table, np.column_stack([centres, [40] * 10]), Path("train.csv"))
    points[1] = points[0]
    table = table_of(points, ["a", "a", *"bcdefghi"])
    (line,) = check_squares(table, np.repeat(WHOLE, 10, 0), Path("train.csv"))
    assert "1 of 10 faces are listed twice, first in 'a'" in line


def test_heaps_of_points_in_faces_are_refused_and_across_faces_a_warning():
    points = faces(IBUG68)
    points[:6, :30] = 50.5
    with pytest.raises(DataError, match=r"17 or more of 68 points .* in 6 of 12 faces"):
        check_points(table_of(points), IBUG68, Path("train.csv"))
    points = faces(FACES5)
    points[:7, 2] = [60, 61]
    (line,) = check_points(table_of(points), FACES5, Path("train.csv"))
    assert "1 of 5 points, first point 2" in line


def test_pairs_are_found_where_there_is_no_scheme(plain, log):
    below = np.array([[0, 0]] * 5 + [[0, 40]])
    plain.write(lambda points: points[:, [2, 0, 1, 4, 3, 2]] + below)
    module = plain.data(stage="test")
    module.trainer = object()
    module.setup("fit")
    assert "no scheme (6 points)" in log[-1]
    assert "--data.flip_pairs '[[1, 2], [3, 4]]'" in log[-1]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("name", "scheme"), [("faces68", "ibug68"), ("faces5", "faces5")])
def test_real_faces_raise_no_alarm(real_data, name, scheme):
    known, side = SCHEMES[scheme], {"faces68": 160, "faces5": 80}[name]
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        table = read_landmark_csv(real_data(name) / f"{part}.csv")
        left, right = (table.points[:, group[0], 0] for group in known.eyes)
        nose = table.points[:, {68: 30, 5: 2}[known.num_points], 0]
        turned = np.argsort((nose - (left + right) / 2) / np.abs(right - left))
        rows = [np.arange(len(table)), turned[:8], turned[-8:], turned[:100], turned[-100:]]
        rows += [rng.choice(len(table), count, replace=False) for count in (2, 5, 8, 8, 8, 40) * 5]
        for chosen in rows:
            some = table.take(chosen)
            squares = np.repeat([[side / 2, side / 2, side]], len(some), 0)
            for each in (some, rotated(some, rng, 45), rotated(some, rng, 180)):
                assert not check_points(each, known, Path("x.csv"))
            assert not check_squares(some, squares, Path("x.csv"))
            missing = some.unlabel(rng.random(some.labelled.shape) < 0.2)
            assert not check_points(missing, known, Path("x.csv"))
    assert find_pairs(table) == known.flip


def rotated(table, rng, most):
    angles = np.deg2rad(rng.uniform(-most, most, len(table)))
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x, y = np.moveaxis(table.points - table.points.mean(1, keepdims=True), -1, 0)
    return table_of(np.stack([cosine * x - sine * y, sine * x + cosine * y], -1) + 80, table.names)


def test_points_in_no_order_at_all_are_only_taken_for_granted():
    rng = np.random.default_rng(0)
    with warnings.catch_warnings(record=True) as caught:
        for count in (2, 5, 8, 20, 100):
            table = table_of(rng.uniform(5, 35, (count, 5, 2)))
            check_points(table, FACES5, Path("train.csv"))
    assert not caught


def test_ten_thousand_faces_are_checked_in_a_second():
    points = np.random.default_rng(0).uniform(0, 120, (10_000, 68, 2))
    table, squares = table_of(points), np.repeat(WHOLE, 10_000, 0)
    start = time.process_time()
    check_points(table, IBUG68, Path("train.csv"))
    check_squares(table, squares, Path("train.csv"))
    assert time.process_time() - start < 1
