"""The data modules of all formats: crops, what counts, subsets, distances, splits."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data import COFW, W300, WFLW, COCOKeypoints, HRNetCSV, LandmarkCSV
from zoo_lightning.data.augmentation import Augmentation
from zoo_lightning.data.landmarks.codec import to_original
from zoo_lightning.errors import ConfigError, DataError

SMALL = {"image_size": 48, "batch_size": 4, "num_workers": 0, "augment": False, "val_fraction": 0.3}
FACE = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.55], [0.35, 0.75], [0.65, 0.75]])
"""Five points in a unit square."""


def picture(points, size):
    """A photo of a width and height: noise with a bright square around each point's corner."""
    width, height = size
    rng = np.random.default_rng(width)
    pixels = rng.integers(20, 90, (height, width, 3), dtype=np.uint8)
    half = max(2, round(0.06 * np.ptp(points[:, 0])))
    for x, y in np.round(points).astype(int):
        pixels[max(y - half, 0) : y + half, max(x - half, 0) : x + half] = 255
    return Image.fromarray(pixels)


def faces_of(part, count=6, side=60):
    """Names and whole-pixel points (N, 5, 2) of faces off the centre of 160x120 pixels."""
    offsets = np.arange(count)[:, None] * [[7.0, 3.0]] + [20, 15]
    return [f"{part}{chr(97 + i)}.png" for i in range(count)], np.round(
        offsets[:, None] + side * FACE
    )


def save(folder, names, points, size=(160, 120)):
    folder.mkdir(parents=True, exist_ok=True)
    for name, each in zip(names, points, strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(each, size).save(folder / name)


def hrnet_line(name, points, box_size=None, side=None):
    low, high = points.min(0), points.max(0)
    x, y = (low + high) / 2
    scale = (side or (high - low).max()) / 200
    sized = [] if box_size is None else [box_size]
    return ",".join(map(str, [name, scale, *sized, x, y, *points.ravel()]))


def write_hrnet(path, names, points, box_size=None):
    columns = ["image_name", "scale", *([] if box_size is None else ["box_size"]), "center_w"]
    columns += ["center_h", *(f"original_{k}_{a}" for k in range(points.shape[1]) for a in "xy")]
    lines = [hrnet_line(*face, box_size) for face in zip(names, points, strict=True)]
    path.write_text("\n".join([",".join(columns), *lines]) + "\n")


@pytest.fixture
def hrnet(tmp_path):
    for part in ("train", "test"):
        names, points = faces_of(part)
        save(tmp_path / "images", names, points)
        write_hrnet(tmp_path / f"{part}.csv", names, points)
    return tmp_path


def on_markers(sample):
    """Whether every point that counts lies in a bright square of the sample's image."""
    grey = sample["image"].float().mean(0)
    for x, y in sample["points"][sample["visible"]].round().int().tolist():
        assert grey[max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1].mean() > 140
    return True


def leads_back(sample):
    back = to_original(sample["points"][None], sample["to_original"][None])[0]
    return torch.allclose(back, sample["original"], atol=1e-3)


def test_faces_are_cut_out_with_their_points(hrnet):
    module = HRNetCSV(str(hrnet), **SMALL)
    module.setup("fit")
    module.setup("test")
    assert module.num_points == 5
    assert all(on_markers(sample) and leads_back(sample) for sample in module.test_set)
    assert all(on_markers(module.train_set[0, i]) for i in range(len(module.train_set)))
    points = module.test_set[0]["points"]
    # The box around the points, 1.25 times as large, fills the input.
    assert torch.allclose(points.amin(0)[0], torch.tensor(48 * 0.1), atol=1e-3) or torch.allclose(
        points.amin(0)[1], torch.tensor(48 * 0.1), atol=1e-3
    )


def test_turned_faces_have_surroundings(hrnet):
    turned = Augmentation(30, (0.8, 1.2), 0.03, 0.5, 0, 0, 0, 0, 0)
    module = HRNetCSV(str(hrnet), **{**SMALL, "augment": turned}, margin=1.5)
    module.setup("fit")
    for epoch in range(3):
        for index in range(len(module.train_set)):
            sample = module.train_set[epoch, index]
            assert on_markers(sample)
            assert sample["image"].float().mean(0).min() > 10  # nothing black within the photo


@pytest.mark.parametrize("cache_mb", [0.0, 64.0])
@pytest.mark.parametrize("size", [(80, 80), (2000, 900)])
def test_small_and_large_photos_work(tmp_path, size, cache_mb, write_csv):
    points = np.round(0.8 * min(size) * FACE + 0.05 * min(size))[None].repeat(4, 0)
    names = [f"{kind}.png" for kind in "abcd"]
    save(tmp_path / "images", names, points, size)
    for part in ("train", "test"):
        write_hrnet(tmp_path / f"h{part}.csv", names, points)
        write_csv(tmp_path / f"{part}.csv", names, points)
    options = {**SMALL, "image_size": 96, "cache_mb": cache_mb}
    for module in (
        HRNetCSV(str(tmp_path), "htrain.csv", "htest.csv", **options),
        LandmarkCSV(str(tmp_path), box="points", **options),
        LandmarkCSV(str(tmp_path), **options),
    ):
        module.setup("fit")
        module.setup("test")
        for sample in (module.train_set[0, 0], module.val_set[0], module.test_set[0]):
            assert sample["image"].shape == (3, 96, 96)
            assert on_markers(sample)


def test_subsets_are_the_faces_that_their_files_list(hrnet):
    names, points = faces_of("test")
    write_hrnet(hrnet / "blur.csv", names[1:3], points[1:3])
    write_hrnet(hrnet / "pose.csv", names[2:], points[2:])
    module = HRNetCSV(str(hrnet), subsets={"blur": "blur.csv", "pose": "pose.csv"}, **SMALL)
    module.setup("validate")
    module.setup("test")
    assert module.subset_names == ("blur", "pose")
    batch = next(iter(module.test_dataloader()))
    assert batch["subsets"].tolist() == [[0, 0], [1, 0], [1, 1], [0, 1]]
    assert batch["subsets"].dtype == torch.bool
    assert not module.val_set[0]["subsets"].any()


def test_distances_of_a_batch(hrnet):
    names, points = faces_of("test")
    write_hrnet(hrnet / "test.csv", names, points, box_size=33.5)
    write_hrnet(hrnet / "train.csv", *faces_of("train"), box_size=1)
    between = ([0, 1], [3, 4])
    module = HRNetCSV(str(hrnet), distance_between=between, **SMALL)
    module.setup("test")
    assert module.normalizations == (
        "interocular", "interpupil", "box", "diagonal", "height", "given", "custom"
    )  # fmt: skip
    distances = next(iter(module.test_dataloader()))["distances"]
    assert tuple(distances) == module.normalizations
    assert all(values.shape == (4,) for values in distances.values())
    assert distances["given"].tolist() == [33.5] * 4
    eyes = np.linalg.norm(points[:4, 0] - points[:4, 1], axis=-1)
    assert np.allclose(distances["interocular"], eyes)
    assert np.allclose(distances["custom"], 24)
    few = HRNetCSV(str(hrnet), normalizations=["given"], **SMALL)
    few.setup("test")
    assert tuple(few.test_set[0]["distances"]) == few.normalizations == ("given",)


def test_both_files_have_the_same_layout(hrnet):
    write_hrnet(hrnet / "train.csv", *faces_of("train"), box_size=1)
    with pytest.raises(DataError, match=r"test\.csv has no column `box_size`"):
        HRNetCSV(str(hrnet), **SMALL).setup("test")


@pytest.mark.parametrize(
    ("box", "margin", "width"),
    [
        ("given", 2.0, 48),
        ("points", 2.0, 48),
        ("given", None, 30),
        ("image", None, 160),
        ("image", 0.75, 120),
    ],
)
def test_the_square_is_the_users_choice(hrnet, box, margin, width):
    module = HRNetCSV(str(hrnet), box=box, margin=margin, **{**SMALL, "image_size": 160})
    module.setup("fit")
    module.setup("test")
    sample = module.test_set[0]
    assert on_markers(sample)
    assert leads_back(sample)
    assert float(sample["to_original"][0, 0]) * 160 == pytest.approx(width, abs=0.01)
    assert on_markers(module.train_set[0, 0])


def test_data_without_boxes_have_none_to_be_given(landmark_root):
    with pytest.raises(ConfigError, match="`box` is given, but these data have no boxes"):
        LandmarkCSV(str(landmark_root), box="given", **SMALL).setup("test")


def test_points_in_one_place_have_no_square(landmark_root, write_csv):
    write_csv(landmark_root / "test.csv", ["testa_00.png"], np.full((1, 5, 2), 9.0))
    module = LandmarkCSV(str(landmark_root), box="points", normalizations=["box"], **SMALL)
    with pytest.raises(DataError, match=r"'testa_00\.png'"):
        module.setup("test")


@pytest.mark.parametrize("margin", [0, -1, float("nan"), 11])
def test_the_margin_is_a_factor(hrnet, margin):
    with pytest.raises(ConfigError, match="margin"):
        HRNetCSV(str(hrnet), margin=margin, **SMALL)


@pytest.fixture
def coco(tmp_path):
    """Eight images with two faces each; of every second face an eye is not labelled."""
    for part in ("train", "test"):
        names, points = faces_of(part, 8, 30)
        images, annotations = [], []
        for i, name in enumerate(names):
            both = [points[i], points[i] + [60, 20]]
            save(tmp_path / "images", [name], [np.concatenate(both)])
            images.append({"id": i, "file_name": name})
            for j, face in enumerate(both):
                flags = [2, 2, 2, 1, 2] if j == 0 else [2, 2, 2, 2, 0]
                keypoints = [[*p, v] if v else [0, 0, 0] for p, v in zip(face, flags, strict=True)]
                low, size = face.min(0) - 4, np.ptp(face, axis=0) + 8
                annotations.append({
                    "id": 2 * i + j, "image_id": i, "keypoints": np.ravel(keypoints).tolist(),
                    "num_keypoints": 5 - j, "bbox": [*low, *size],
                })  # fmt: skip
        content = {"images": images, "annotations": annotations}
        (tmp_path / f"{part}.json").write_text(json.dumps(content))
    return tmp_path


def test_faces_of_one_image_stay_on_one_side(coco):
    module = COCOKeypoints(str(coco), **SMALL)
    module.setup("fit")
    assert len(module.train_set) + len(module.val_set) == 16

    def sides(dataset):
        return {path.name for path in dataset.images.sources}

    assert not sides(module.train_set) & sides(module.val_set)


def test_unlabelled_points_do_not_count_and_hidden_ones_if_asked(coco):
    module = COCOKeypoints(str(coco), **SMALL)
    module.setup("test")
    assert module.test_set[0]["visible"].tolist() == [True] * 5
    assert module.test_set[1]["visible"].tolist() == [True, True, True, True, False]
    assert all(on_markers(sample) for sample in module.test_set)
    visible_only = COCOKeypoints(str(coco), count_occluded=False, **SMALL)
    visible_only.setup("test")
    assert visible_only.test_set[0]["visible"].tolist() == [True, True, True, False, True]
    # The square is drawn around the face, whatever counts.
    assert (visible_only.test_set[0]["to_original"] == module.test_set[0]["to_original"]).all()


def test_mirroring_moves_what_counts(coco):
    mirrored = Augmentation(0, (1, 1), 0, 1.0, 0, 0, 0, 0, 0)
    module = COCOKeypoints(str(coco), **{**SMALL, "augment": mirrored})
    module.setup("fit")
    seen = set()
    for index in range(len(module.train_set)):
        sample = module.train_set[0, index]
        assert on_markers(sample)
        seen.add(tuple(sample["visible"].tolist()))
    # The right corner of the mouth, the last point, is the left one in a mirrored image.
    assert seen == {(True,) * 5, (True, True, True, False, True)}


def test_faces_without_a_point_that_counts_are_named(coco):
    content = json.loads((coco / "test.json").read_text())
    content["annotations"][3]["keypoints"][2::3] = [1, 1, 1, 1, 0]
    (coco / "test.json").write_text(json.dumps(content))
    COCOKeypoints(str(coco), **SMALL).setup("test")
    with pytest.raises(DataError, match=r"no point counts in 'testb\.png' \(1 of 16 faces\)"):
        COCOKeypoints(str(coco), count_occluded=False, **SMALL).setup("test")


@pytest.mark.parametrize("part", ["train", "test"])
def test_faces_with_unlabelled_eyes_are_left_out_of_errors_until_none_is_left(coco, part):
    content = json.loads((coco / f"{part}.json").read_text())
    stage, which = ("fit", "val_set") if part == "train" else ("test", "test_set")
    module = COCOKeypoints(str(coco), **SMALL)
    module.setup(stage)
    judged = getattr(module, which)
    faces, kept = len(judged), judged.truths[0].name
    names = {each["id"]: each["file_name"] for each in content["images"]}
    for annotation in content["annotations"]:
        if names[annotation["image_id"]] != kept:
            annotation["keypoints"][:3] = [0, 0, 0]
            annotation.pop("num_keypoints", None)
    (coco / f"{part}.json").write_text(json.dumps(content))
    module = COCOKeypoints(str(coco), **SMALL)
    with pytest.warns(UserWarning, match="lack points of `interocular`") as caught:
        module.setup(stage)
    truths = getattr(module, which).truths
    left = {
        name: sum(np.isfinite(truth.distances[name]) for truth in truths)
        for name in ("box", "interocular")
    }
    assert left["box"] == faces
    assert 0 < left["interocular"] < faces
    (line,) = [str(each.message) for each in caught if "lack points" in str(each.message)]
    assert f"{faces - left['interocular']} of {faces} lack points" in line
    for annotation in content["annotations"]:
        annotation["keypoints"][:3] = [0, 0, 0]
        annotation.pop("num_keypoints", None)
    (coco / f"{part}.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"`interocular` .* unknown.*normalizations"):
        COCOKeypoints(str(coco), **SMALL).setup(stage)
    COCOKeypoints(str(coco), normalizations=["box"], **SMALL).setup(stage)


NAMES = ["left_eye", "right_eye", "nose", "left_mouth_corner", "right_mouth_corner"]


def change(file, **content):
    file.write_text(json.dumps(json.loads(file.read_text()) | content))


def categories(names):
    return [{"id": 1, "name": "face", "keypoints": names}]


def test_names_of_keypoints_tell_of_another_order(coco):
    for part in ("train", "test"):
        change(coco / f"{part}.json", categories=categories(NAMES))
    COCOKeypoints(str(coco), **SMALL).setup("fit")
    moved = [*NAMES[2:], *NAMES[:2]]
    for part in ("train", "test"):
        change(coco / f"{part}.json", categories=categories(moved))
    with pytest.raises(DataError, match="'left_mouth_corner'") as caught:
        COCOKeypoints(str(coco), **SMALL).setup("fit")
    assert "--data.flip_pairs '[[1, 2], [3, 4]]'" in str(caught.value)
    assert "--data.eyes '[[3], [4]]'" in str(caught.value)
    options = {**SMALL, "check_annotations": False}
    COCOKeypoints(str(coco), **options).setup("fit")
    with pytest.raises(DataError, match="not in the order"):
        COCOKeypoints(str(coco), **SMALL).setup("test")


def test_both_coco_files_have_keypoints_in_one_order(coco):
    change(coco / "train.json", categories=categories(NAMES))
    change(coco / "test.json", categories=categories([*NAMES[:3], NAMES[4], NAMES[3]]))
    COCOKeypoints(str(coco), **SMALL).setup("fit")
    with pytest.raises(DataError, match="keypoint 3 is 'right_mouth_corner'"):
        COCOKeypoints(str(coco), **SMALL).setup("test")


def test_images_of_another_size_than_coco_states_are_named(coco, recwarn):
    images = json.loads((coco / "test.json").read_text())["images"]
    width, height = Image.open(coco / "images" / images[0]["file_name"]).size
    sizes = {"width": width, "height": height}
    change(coco / "test.json", images=[each | sizes for each in images])
    COCOKeypoints(str(coco), **SMALL).setup("test")
    assert not [each for each in recwarn if "another size" in str(each.message)]
    change(coco / "test.json", images=[images[0] | {"width": 2, "height": 3}, *images[1:]])
    with pytest.warns(UserWarning, match="2 of 16 annotations state another size.*2x3"):
        COCOKeypoints(str(coco), **SMALL).setup("test")


def shape(num_points, rng):
    """Points on whole pixels of a face of 100 pixels, none twice on one place."""
    return rng.permutation(np.stack(np.meshgrid(range(0, 110, 10), range(0, 110, 10)), -1).reshape(
        -1, 2))[:num_points] + 30.0  # fmt: skip


def write_300w(root, folder, count):
    rng = np.random.default_rng(len(folder))
    (root / folder).mkdir(parents=True)
    for index in range(count):
        points = shape(68, rng)
        picture(points, (170, 180)).save(root / folder / f"face_{index}.png")
        rows = "\n".join(f"{x + 0.5} {y + 0.5}" for x, y in points)
        (root / folder / f"face_{index}.pts").write_text(
            f"version: 1\nn_points:  68\n{{\n{rows}\n}}\n"
        )


def test_300w_as_released(tmp_path):
    for folder in ("afw", "helen/trainset", "lfpw/trainset", "helen/testset", "lfpw/testset",
                   "ibug", "300W/01_Indoor", "300W/02_Outdoor"):  # fmt: skip
        write_300w(tmp_path, folder, 2)
    module = W300(str(tmp_path), **{**SMALL, "image_size": 160})
    assert module.num_points == 68
    assert module.scheme.name == "ibug68"
    module.setup("fit")
    module.setup("test")
    assert len(module.train_set) + len(module.val_set) == 6
    assert module.subset_names == ("common", "challenge")
    assert [s["subsets"].tolist() for s in module.test_set] == 4 * [[1, 0]] + 2 * [[0, 1]]
    assert module.test_set[4]["name"] == "ibug/face_0.png"
    assert all(on_markers(sample) and leads_back(sample) for sample in module.test_set)
    private = W300(str(tmp_path), "private", **SMALL)
    private.setup("test")
    assert private.subset_names == ("indoor", "outdoor")
    assert len(private.test_set) == 4


def test_wflw_as_released(tmp_path):
    lists = tmp_path / "WFLW_annotations/list_98pt_rect_attr_train_test"
    lists.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        lines = []
        for index in range(4):
            points, name = shape(98, rng), f"0--Parade/{part}_{index}.png"
            save(tmp_path / "WFLW_images", [name], [points], (170, 180))
            flags = [int(index == column) for column in range(6)]
            lines.append(" ".join(map(str, [*points.ravel(), 25, 30, 135, 135, *flags, name])))
        (lists / f"list_98pt_rect_attr_{part}.txt").write_text("\n".join(lines) + "\n")
    module = WFLW(str(tmp_path), **{**SMALL, "image_size": 160})
    module.setup("fit")
    module.setup("test")
    assert module.num_points == 98
    assert module.scheme.name == "wflw98"
    assert module.subset_names[0] == "largepose"
    subsets = torch.stack([sample["subsets"] for sample in module.test_set])
    assert (subsets == torch.eye(4, 6)).all()
    assert all(on_markers(sample) for sample in module.test_set)
    width = float(module.test_set[0]["to_original"][0, 0]) * 160
    assert width == pytest.approx(1.25 * 110)


@pytest.fixture
def cofw(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    rng = np.random.default_rng(0)
    for part, suffix in (("train", "Tr"), ("test", "T")):
        cells, phis = np.empty((5, 1), object), np.zeros((5, 87))
        for index in range(5):
            points = shape(29, rng)
            pixels = np.asarray(picture(points, (170, 180)))
            cells[index, 0] = pixels[..., 0] if index % 2 else pixels
            phis[index, :58] = points.T.ravel() + 0.5
            phis[index, 58 + index] = 1
        path = tmp_path / f"COFW_{part}_color.mat"
        savemat(path, {f"Is{suffix}": cells, f"phis{suffix}": phis})
    return tmp_path


def test_cofw_holds_its_images(cofw):
    module = COFW(str(cofw), count_occluded=False, **{**SMALL, "image_size": 160})
    assert module.num_points == 29
    assert module.scheme.name == "cofw29"
    module.setup("fit")
    module.setup("test")
    assert len(module.train_set) + len(module.val_set) == 5
    assert all(on_markers(sample) and leads_back(sample) for sample in module.test_set)
    hidden = torch.stack([~sample["visible"] for sample in module.test_set])
    assert (hidden == torch.eye(5, 29)).all()
    assert module.test_set[2]["name"] == "COFW_test_color-0003"
    every = COFW(str(cofw), **SMALL)
    every.setup("test")
    assert every.test_set[0]["visible"].all()


def test_the_test_file_of_cofw_is_enough_for_testing(cofw):
    (cofw / "COFW_train_color.mat").unlink()
    module = COFW(str(cofw), **SMALL)
    module.setup("test")
    with pytest.raises(DataError, match=r"COFW_train_color\.mat does not exist"):
        module.setup("fit")


def test_samples_of_every_format_collate(coco):
    module = COCOKeypoints(str(coco), **SMALL)
    module.setup("fit")
    train = next(iter(module.train_dataloader()))
    assert set(train) == {"image", "points", "visible", "index"}
    assert train["visible"].shape == (4, 5)
    val = next(iter(module.val_dataloader()))
    assert set(val) == {*train, "original", "to_original", "distances", "subsets", "name"}
    assert val["subsets"].shape == (len(val["index"]), 0)
    assert torch.is_tensor(module.on_after_batch_transfer(val, 0)["distances"]["box"])
