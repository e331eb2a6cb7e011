"""The meaning of landmarks: flips, eyes, and what contradicts them."""

import numpy as np
import pytest

from zoo_lightning.data.landmarks.schemes import (
    AFLW19,
    COFW29,
    FACES5,
    IBUG68,
    SCHEMES,
    WFLW98,
    LandmarkScheme,
    eyes_from_names,
    flip_from_names,
    scheme_for,
)
from zoo_lightning.errors import ConfigError


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=list(SCHEMES))
def test_mirroring_twice_changes_no_point(scheme):
    flip = np.array(scheme.flip)
    assert (flip[flip] == np.arange(scheme.num_points)).all()


def test_ibug_flip_swaps_what_is_left_and_right_of_the_face():
    swapped = {0: 16, 8: 8, 17: 26, 27: 27, 31: 35, 36: 45, 39: 42, 37: 44, 41: 46, 48: 54}
    swapped |= {51: 51, 55: 59, 57: 57, 60: 64, 62: 62, 65: 67}
    assert {point: IBUG68.flip[point] for point in swapped} == swapped


def line(first, last, count):
    return np.linspace(first, last, count)


def ring(centre, width, height, upper, lower):
    """Two rows of a closed outline: left to right above, right to left below."""
    x, y = centre
    above = [(x - width * np.cos(a), y - height * np.sin(a)) for a in line(0, np.pi, upper)]
    below = [
        (x + width * np.cos(a), y + height * np.sin(a)) for a in line(0, np.pi, lower + 2)[1:-1]
    ]
    return np.array(above + below)


def mirrored(points):
    return points * [-1, 1]


def wflw_schematic():
    """98 points of a symmetric face: jaw, brows, nose, eyes, mouth, pupils."""
    angles = line(0, np.pi, 33)
    jaw = np.column_stack([-np.cos(angles), 0.2 + np.sin(angles)])
    left_brow = np.concatenate([line((-0.8, -0.5), (-0.2, -0.5), 5),
                                line((-0.25, -0.4), (-0.7, -0.4), 4)])  # fmt: skip
    # The right brow begins at its inner end, and its lower edge at its outer end.
    right_brow = mirrored(np.concatenate([left_brow[4::-1], left_brow[:4:-1]]))
    nose = np.concatenate([line((0, -0.2), (0, 0.2), 4), line((-0.2, 0.3), (0.2, 0.3), 5)])
    left_eye = ring((-0.5, -0.2), 0.2, 0.1, 5, 3)
    right_eye = ring((0.5, -0.2), 0.2, 0.1, 5, 3)
    lips = [ring((0, 0.7), 0.3, 0.2, 7, 5), ring((0, 0.7), 0.2, 0.1, 5, 3)]
    pupils = np.array([[-0.5, -0.2], [0.5, -0.2]])
    return np.concatenate([jaw, left_brow, right_brow, nose, left_eye, right_eye, *lips, pupils])


def cofw_schematic():
    """29 points: pairs of left and right, and seven points on the axis."""
    left = {0: (-0.8, -0.5), 2: (-0.2, -0.5), 4: (-0.5, -0.6), 5: (-0.5, -0.5), 8: (-0.7, -0.2),
            10: (-0.3, -0.2), 12: (-0.5, -0.3), 13: (-0.5, -0.1), 16: (-0.5, -0.2),
            18: (-0.2, 0.3), 22: (-0.3, 0.7)}  # fmt: skip
    right_of = {0: 1, 2: 3, 4: 6, 5: 7, 8: 9, 10: 11, 12: 14, 13: 15, 16: 17, 18: 19, 22: 23}
    points = np.zeros((29, 2))
    for index, place in left.items():
        points[index] = place
        points[right_of[index]] = mirrored(np.array(place))
    points[[20, 21, 24, 25, 26, 27, 28], 1] = [0.2, 0.35, 0.6, 0.65, 0.75, 0.8, 1.2]
    return points


def aflw_schematic():
    """19 points in rows from the image's left to its right."""
    rows = [
        [(-0.8, -0.5), (-0.5, -0.6), (-0.2, -0.5), (0.2, -0.5), (0.5, -0.6), (0.8, -0.5)],
        [(-0.7, -0.2), (-0.5, -0.25), (-0.3, -0.2), (0.3, -0.2), (0.5, -0.25), (0.7, -0.2)],
        [(-0.2, 0.3), (0, 0.2), (0.2, 0.3)],
        [(-0.3, 0.7), (0, 0.7), (0.3, 0.7)],
        [(0, 1.2)],
    ]
    return np.array([point for row in rows for point in row])


SCHEMATICS = {"wflw98": wflw_schematic(), "cofw29": cofw_schematic(), "aflw19": aflw_schematic()}


@pytest.mark.parametrize("name", SCHEMATICS)
def test_a_symmetric_face_is_its_own_mirror_image(name):
    scheme, points = SCHEMES[name], SCHEMATICS[name]
    assert points.shape == (scheme.num_points, 2)
    assert np.allclose(mirrored(points)[list(scheme.flip)], points)
    on_axis = {k for k, partner in enumerate(scheme.flip) if k == partner}
    assert on_axis == set(np.flatnonzero(np.abs(points[:, 0]) < 1e-9))


@pytest.mark.parametrize("name", SCHEMATICS)
def test_eyes_and_pupils_are_where_a_face_has_them(name):
    scheme, points = SCHEMES[name], SCHEMATICS[name]
    for groups, expected in ((scheme.eyes, (-0.7, 0.7)), (scheme.pupils, (-0.5, 0.5))):
        assert np.allclose([points[list(group), 0].mean() for group in groups], expected)
        assert scheme.flip[groups[0][0]] == groups[1][0]


def test_pairs_of_the_published_sets():
    """Outer eye corners, and single pairs as published with HRNet (counted from 0)."""
    assert WFLW98.eyes == ((60,), (72,))
    assert {k: WFLW98.flip[k] for k in (0, 33, 38, 41, 55, 65, 76, 87, 88, 95)} == {
        0: 32, 33: 46, 38: 50, 41: 47, 55: 59, 65: 75, 76: 82, 87: 83, 88: 92, 95: 93
    }  # fmt: skip
    assert COFW29.eyes == ((8,), (9,))
    assert {k: COFW29.flip[k] for k in (4, 5, 12, 13, 22)} == {4: 6, 5: 7, 12: 14, 13: 15, 22: 23}
    assert {k: AFLW19.flip[k] for k in (0, 6, 12, 15)} == {0: 5, 6: 11, 12: 14, 15: 17}


def test_mirrored_mean_shape_of_real_faces_is_nearly_the_mean_shape(real_data):
    from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv

    for name, scheme, side in (("faces68", IBUG68, 160), ("faces5", FACES5, 80)):
        mean = read_landmark_csv(real_data(name) / "train.csv").points.mean(0)
        other = (mean * [-1, 1] + [side, 0])[list(scheme.flip)]
        assert np.abs(other - mean).max() < 0.03 * side
        left, right = (mean[list(group), 0].mean() for group in scheme.eyes)
        assert left < right


def test_own_eyes_take_the_place_of_a_schemes_eyes():
    scheme = scheme_for(68, eyes=[list(range(36, 42)), list(range(42, 48))])
    assert scheme.eyes == IBUG68.pupils
    assert scheme.flip == IBUG68.flip


def test_schemes_are_recognised_by_the_number_of_points():
    assert scheme_for(68) is IBUG68
    assert scheme_for(5) is FACES5
    assert scheme_for(98) is WFLW98
    assert scheme_for(29) is COFW29
    assert scheme_for(19) is AFLW19
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


@pytest.mark.parametrize(
    ("names", "flip"),
    [
        (["left_eye", "right_eye", "nose"], (1, 0, 2)),
        (["nose", "leftEye", "rightEye"], (0, 2, 1)),
        (["eye-r", "mouth", "eye-l"], (2, 1, 0)),
        (["a", "b", "c"], None),
        (["left", "left", "right"], None),
        (["left_eye_2", "right_eye_1", "right_eye_2"], (2, 1, 0)),
    ],
)
def test_names_tell_which_points_swap(names, flip):
    assert flip_from_names(names) == flip


def test_brows_are_no_eyes():
    names = [
        "left_eyebrow",
        "right_eyebrow",
        "left_eye",
        "right_eye",
        "leftEyeBrow",
        "rightEyeBrow",
    ]
    assert eyes_from_names(names, flip_from_names(names)) == ((2,), (3,))
