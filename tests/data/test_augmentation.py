"""Points move with the image; everything comes from the sample's generator."""

import numpy as np
import pytest
import torch

from zoo_lightning.data.augmentation import NO_AUGMENTATION, Augmentation, augment, reach
from zoo_lightning.data.landmarks.schemes import FACES5
from zoo_lightning.data.loading import sample_generator
from zoo_lightning.errors import ConfigError

GEOMETRY = Augmentation(rotation=40, scale=(0.7, 1.3), shift=0.1, colour=0, grey=0, blur=0, noise=0,
                        occlusion=0)  # fmt: skip


def dots(side, points, radius=2.5):
    """Soft bright dots centred exactly on the points, one image per point."""
    centres = np.arange(side) + 0.5
    x, y = np.meshgrid(centres, centres)
    distance = np.hypot(x - points[:, 0, None, None], y - points[:, 1, None, None])
    return np.repeat((255 * np.exp(-((distance / radius) ** 2)))[..., None], 3, -1).astype(np.uint8)


def centroid(pixels):
    weight = pixels[..., 0].astype(float)
    centres = np.arange(len(weight)) + 0.5
    x, y = np.meshgrid(centres, centres)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("side", [64, 96])
def test_points_move_with_the_image(seed, side):
    points = np.array([[0.4, 0.45], [0.6, 0.45], [0.5, 0.5], [0.42, 0.6], [0.6, 0.61]]) * side
    for k, image in enumerate(dots(side, points)):
        pixels, moved, _ = augment(
            image, points, 64, GEOMETRY, FACES5.flip, sample_generator(seed, 0, 0)
        )
        # Under mirroring the dot of point k is the place of point flip[k].
        nearest = np.linalg.norm(moved - centroid(pixels), axis=1)
        assert nearest.min() < 0.25
        assert nearest.argmin() in (k, FACES5.flip[k])


def test_mirroring_moves_each_point_to_its_partners_place():
    options = Augmentation(0, (1, 1), 0, 1.0, 0, 0, 0, 0, 0)
    image = np.arange(64 * 64 * 3, dtype=np.uint32).astype(np.uint8).reshape(64, 64, 3)
    points = np.array([[10, 20], [40, 22], [30, 30], [15, 50], [44, 50]], float)
    pixels, moved, _ = augment(image, points, 64, options, FACES5.flip, sample_generator(0, 0, 0))
    assert (pixels == image[:, ::-1]).all()
    assert moved.tolist() == [[24, 22], [54, 20], [34, 30], [20, 50], [49, 50]]


def test_without_a_known_flip_nothing_is_mirrored():
    options = Augmentation(0, (1, 1), 0, 1.0, 0, 0, 0, 0, 0)
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    pixels, _, _ = augment(image, np.zeros((5, 2)), 64, options, None, sample_generator(0, 0, 0))
    assert (pixels == image).all()


def test_no_augmentation_changes_nothing():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    points = np.random.default_rng(1).uniform(0, 64, (5, 2)).astype(np.float32)
    for seed in range(5):
        result = augment(
            image, points, 64, NO_AUGMENTATION, FACES5.flip, sample_generator(seed, 0, 0)
        )
        assert (result[0] == image).all()
        assert (result[1] == points).all()


def test_a_sample_depends_on_seed_epoch_and_index_alone():
    image = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    points = np.full((5, 2), 30.0)

    def vary(*numbers):
        generator = sample_generator(*numbers)
        return augment(image, points, 64, Augmentation(), FACES5.flip, generator)

    torch.manual_seed(0)
    first = vary(1, 2, 3)
    torch.manual_seed(1)
    again = vary(1, 2, 3)
    assert (first[0] == again[0]).all()
    assert (first[1] == again[1]).all()
    for other in ((0, 2, 3), (1, 3, 3), (1, 2, 4)):
        assert (vary(*other)[1] != first[1]).any()


@pytest.mark.parametrize("option", ["colour", "grey", "blur", "noise", "occlusion"])
def test_each_photometric_variation_changes_pixels_and_no_points(option):
    options = Augmentation(**{**vars(NO_AUGMENTATION), option: 1.0})
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    points = np.full((5, 2), 30.0)
    pixels, moved, _ = augment(image, points, 64, options, FACES5.flip, sample_generator(0, 0, 0))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (64, 64, 3)
    assert (pixels != image).any()
    assert (moved == points).all()
    if option == "grey":
        assert (np.ptp(pixels, axis=-1) == 0).all()


def test_the_reach_is_how_far_varied_images_look_around():
    assert reach(NO_AUGMENTATION) == 1
    assert reach(Augmentation(rotation=90, scale=(1, 1), shift=0)) == pytest.approx(2**0.5)
    assert reach(Augmentation(rotation=0, scale=(0.5, 1), shift=0.1)) == pytest.approx(2.4)
    assert reach(Augmentation(rotation=0, scale=(1.5, 2), shift=0)) == 1


RECORDED = {
    0: ([12.25725269317627, 10.824431419372559], [20.309829711914062, 20.62319564819336], 369511),
    1: ([10.925457000732422, 12.855149269104004], [22.98329734802246, 21.515113830566406], 362052),
    2: ([12.824273109436035, 11.638191223144531], [18.168384552001953, 24.305727005004883], 424426),
    3: ([11.790308952331543, 11.959759712219238], [18.18787384033203, 23.557586669921875], 379369),
}
"""First and last point and sum of the pixels, before crops were known."""


@pytest.mark.parametrize("seed", RECORDED)
def test_a_whole_image_is_varied_as_ever(seed):
    image = np.random.default_rng(7).integers(0, 255, (48, 48, 3), dtype=np.uint8)
    points = np.array([[16, 18], [32, 18.5], [24, 25], [18, 33], [31, 34.0]])
    generator = sample_generator(seed, 2, 3)
    pixels, moved, visible = augment(image, points, 32, Augmentation(), FACES5.flip, generator)
    first, last, total = RECORDED[seed]
    assert moved[[0, 4]].tolist() == [first, last]
    assert abs(int(pixels.astype(int).sum()) - total) <= 30  # Pillow's rounding may differ by one
    assert visible.all()


def test_what_counts_moves_with_its_points_under_mirroring():
    options = Augmentation(0, (1, 1), 0, 1.0, 0, 0, 0, 0, 0)
    image = np.zeros((64, 64, 3), np.uint8)
    visible = np.array([True, False, True, True, False])
    _, _, moved = augment(
        image, np.ones((5, 2)), 64, options, FACES5.flip, sample_generator(0, 0, 0), visible
    )
    assert moved.tolist() == [False, True, True, False, True]


@pytest.mark.parametrize("seed", range(4))
def test_the_extent_of_a_face_fills_the_input_and_its_surroundings_come_into_sight(seed):
    extent, side = 1 / 1.5, 96
    point = np.array([[48.0, 40.0]])
    options = Augmentation(rotation=30, scale=(0.9, 1.0), shift=0, flip=0, colour=0, grey=0, blur=0,
                           noise=0, occlusion=0)  # fmt: skip
    generator = sample_generator(seed, 0, 0)
    pixels, moved, _ = augment(
        dots(side, point)[0] // 2 + 100, point, 64, options, None, generator, extent=extent
    )
    assert np.linalg.norm(moved[0] - centroid(pixels - 100)) < 0.5
    assert pixels.min() >= 99  # the corners are not black
    still, kept, _ = augment(
        dots(side, point)[0], point, 64, NO_AUGMENTATION, None, generator, extent=extent
    )
    assert kept.tolist() == [[32, 24]]
    assert np.linalg.norm(centroid(still) - [32, 24]) < 0.1


@pytest.mark.parametrize(
    "wrong", [{"flip": 1.5}, {"scale": (0, 1)}, {"scale": (2, 1)}, {"shift": 1}, {"rotation": -1}]
)
def test_ranges_are_checked(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Augmentation(**wrong)
