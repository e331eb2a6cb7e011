"""The meaning of landmarks: flips, eyes, and what contradicts them."""

import numpy as np
import pytest

from zoo_lightning.data.schemes import FACES5, IBUG68, SCHEMES, LandmarkScheme, scheme_for
from zoo_lightning.errors import ConfigError


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_mirroring_twice_changes_no_point(scheme):
    flip = np.array(scheme.flip)
    assert (flip[flip] == np.arange(scheme.num_points)).all()


def test_ibug_flip_swaps_what_is_left_and_right_of_the_face():
    swapped = {0: 16, 8: 8, 17: 26, 27: 27, 31: 35, 36: 45, 39: 42, 37: 44, 41: 46, 48: 54}
    swapped |= {51: 51, 55: 59, 57: 57, 60: 64, 62: 62, 65: 67}
    assert {point: IBUG68.flip[point] for point in swapped} == swapped


def test_mirrored_mean_shape_of_real_faces_is_nearly_the_mean_shape(shared_data):
    from zoo_lightning.data.formats.plain_csv import read_landmark_csv

    for name, scheme, side in (("faces68", IBUG68, 160), ("faces5", FACES5, 80)):
        mean = read_landmark_csv(shared_data / name / "train.csv").points.mean(0)
        mirrored = (mean * [-1, 1] + [side, 0])[list(scheme.flip)]
        assert np.abs(mirrored - mean).max() < 0.03 * side
        left, right = (mean[list(group), 0].mean() for group in scheme.eyes)
        assert left < right


def test_own_eyes_take_the_place_of_a_schemes_eyes():
    scheme = scheme_for(68, eyes=[list(range(36, 42)), list(range(42, 48))])
    assert scheme.eyes == IBUG68.pupils
    assert scheme.flip == IBUG68.flip


def test_schemes_are_recognised_by_the_number_of_points():
    assert scheme_for(68) is IBUG68
    assert scheme_for(5) is FACES5
    assert scheme_for(7) == LandmarkScheme("unknown", 7)


def test_own_pairs_make_an_own_scheme_without_eyes():
    assert scheme_for(5, flip_pairs=[[0, 4]]) == LandmarkScheme("own", 5, (4, 1, 2, 3, 0))
    assert scheme_for(2, flip_pairs=[]).flip == (0, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "ibug68"}, "68 points, but the data have 5"),
        ({"name": "ibug86"}, "Did you mean 'ibug68'"),
        ({"name": "faces5", "flip_pairs": [[0, 1]]}, "give one of them"),
        ({"flip_pairs": [[0, 5]]}, "point 5"),
        ({"flip_pairs": [[0, 1], [1, 2]]}, "at most one other"),
        ({"flip_pairs": [[0, 0]]}, "at most one other"),
        ({"eyes": [[0], [9]]}, "point 9"),
        ({"eyes": [[0], []]}, "two groups"),
    ],
)
def test_contradictions_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        scheme_for(5, **options)


@pytest.mark.parametrize("flip", [(0, 1), (0, 1, 1), (1, 2, 0)])
def test_a_flip_that_is_no_involution_is_refused(flip):
    with pytest.raises(ConfigError, match="flip of scheme"):
        LandmarkScheme("x", 3, flip)
