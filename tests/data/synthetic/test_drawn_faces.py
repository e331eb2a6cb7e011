"""Drawn faces: deterministic, disjoint splits, landmarks on the features they name."""

import numpy as np
import pytest
import torch

from zoo_lightning.data.landmarks.codec import to_original
from zoo_lightning.data.landmarks.distances import group_distance
from zoo_lightning.data.landmarks.schemes import FACES5, IBUG68
from zoo_lightning.data.synthetic.drawn_faces import (
    DrawnFaces,
    draw_face,
    drawn_sample,
    five_points,
)
from zoo_lightning.data.synthetic.face_shape import TEMPLATE
from zoo_lightning.errors import ConfigError


def test_the_template_is_its_own_mirror_image():
    assert (TEMPLATE[list(IBUG68.flip)] * [-1, 1, 1] == TEMPLATE).all()


def test_the_same_numbers_draw_the_same_face():
    first, again = (draw_face(np.random.default_rng(5), 64) for _ in range(2))
    assert first[0].shape == (64, 64, 3)
    assert first[0].dtype == np.uint8
    assert first[1].shape == (68, 2)
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()


def test_the_face_fills_most_of_the_image_and_stays_inside():
    points = np.stack([draw_face(np.random.default_rng(i), 64)[1] for i in range(40)])
    assert (points > 0).all()
    assert (points < 64).all()
    extent = np.ptp(points, axis=1).max(-1)
    assert (extent > 0.5 * 64).all()
    assert (extent < 0.8 * 64).all()


def test_shapes_vary_in_pose_and_proportions():
    points = np.stack([draw_face(np.random.default_rng(i), 64)[1] for i in range(60)])
    eyes = group_distance(points, IBUG68.eyes)
    assert eyes.max() > 1.5 * eyes.min()
    nose = (points[:, 30, 0] - points[:, 0, 0]) / (points[:, 16, 0] - points[:, 0, 0])
    assert nose.min() < 0.35
    assert nose.max() > 0.65
    openness = points[:, 66, 1] - points[:, 62, 1]
    assert (openness > 4).any()
    assert (np.abs(openness) < 1).any()


def test_the_eyes_are_drawn_inside_their_landmarks():
    """The image inside the eyes' outline differs from the cheeks below it, in nearly every face."""
    contrasts = []
    for i in range(60):
        pixels, points = draw_face(np.random.default_rng(i), 96)
        grey = pixels.mean(-1)

        def at(point, grey=grey):
            x, y = np.clip(point.astype(int), 2, 93)
            return grey[y - 2 : y + 3, x - 2 : x + 3]

        for eye in (slice(36, 42), slice(42, 48)):
            centre = points[eye].mean(0)
            cheek = 0.5 * (centre + points[31 if eye.start == 36 else 35])
            contrasts.append(np.ptp(at(centre)) - np.ptp(at(cheek)))
    assert np.mean(np.array(contrasts) > 0) > 0.8


def test_splits_share_no_face():
    drawn = [drawn_sample(0, split, i, 32, 68)[1] for split in ("train", "val") for i in range(5)]
    for i, face in enumerate(drawn):
        assert all(not np.array_equal(face, other) for other in drawn[:i])


def test_five_points_are_eyes_nose_and_mouth_corners():
    points = np.arange(136.0).reshape(68, 2)
    five = five_points(points)
    assert five[0].tolist() == points[36:42].mean(0).tolist()
    assert five[2:].tolist() == points[[30, 48, 54]].tolist()


@pytest.fixture
def module():
    module = DrawnFaces(8, 3, 2, image_size=32, num_points=5, batch_size=4, num_workers=0, seed=1)
    module.setup("fit")
    module.setup("test")
    return module


def test_samples_have_the_format_of_annotated_files(module):
    train = next(iter(module.train_dataloader()))
    assert set(train) == {"image", "points", "visible", "index"}
    assert train["image"].shape == (4, 3, 32, 32)
    assert train["image"].dtype == torch.uint8
    test = next(iter(module.test_dataloader()))
    extra = {"original", "to_original", "distances", "subsets", "name"}
    assert set(test) == set(train) | extra
    assert torch.equal(to_original(test["points"], test["to_original"]), test["original"])
    assert tuple(test["distances"]) == module.normalizations
    assert all((distances > 0).all() for distances in test["distances"].values())
    assert test["visible"].all()
    assert module.subset_names == ()
    assert test["subsets"].shape == (2, 0)
    assert test["name"] == ["drawn-test-0", "drawn-test-1"]
    assert module.scheme is FACES5
    assert module.num_points == 5


def test_a_face_is_the_same_every_epoch_without_augmentation_and_another_with_it(module):
    assert torch.equal(module.train_set[0, 3]["image"], module.train_set[9, 3]["image"])
    varied = DrawnFaces(8, 3, 2, image_size=32, seed=1, augment=True)
    varied.setup("fit")
    assert not torch.equal(varied.train_set[0, 3]["points"], varied.train_set[1, 3]["points"])
    assert torch.equal(varied.train_set[1, 3]["image"], varied.train_set[1, 3]["image"])


def test_sizes_are_those_asked_for(module):
    assert (len(module.train_set), len(module.val_set), len(module.test_set)) == (8, 3, 2)
    assert len(list(iter(module.val_set))) == 3


@pytest.mark.parametrize("wrong", [{"num_points": 98}, {"train_size": 0}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(ConfigError):
        DrawnFaces(**wrong)
