"""What errors are divided by: by hand, and what cannot be computed."""

import numpy as np
import pytest

from zoo_lightning.data.landmarks.distances import (
    MEANINGS,
    face_distances,
    group_distance,
    groups_between,
    normalizations_of,
    unmeasured,
)
from zoo_lightning.data.landmarks.schemes import FACES5, IBUG68, LandmarkScheme
from zoo_lightning.data.landmarks.table import LandmarkTable
from zoo_lightning.errors import ConfigError, DataError

POINTS = np.array([[[0, 0], [3, 4], [10, 2], [6, 8], [2, 1]]], np.float32)
"""Eyes 5 apart; the box is 10 by 8."""


def table(**others):
    return LandmarkTable(["a.png"], POINTS.copy(), **others)


def compute(table, names, between=None, count_occluded=True):
    distances = face_distances(table, table.counted(count_occluded), FACES5, names, between)
    return {name: float(values[0]) for name, values in distances.items()}


def test_all_distances_by_hand():
    between = groups_between(5, [[0, 1], [2]])
    names = normalizations_of(FACES5, True, between)
    assert names == tuple(MEANINGS)
    distances = compute(table(sizes=np.array([7.5])), names, between)
    assert distances["interocular"] == distances["interpupil"] == 5
    assert distances["box"] == pytest.approx(np.sqrt(80))
    assert distances["diagonal"] == pytest.approx(np.sqrt(164))
    assert distances["height"] == 8
    assert distances["given"] == 7.5
    assert distances["custom"] == 8.5


def test_pupils_of_ibug_are_means_of_the_eyes_points():
    points = np.zeros((68, 2), np.float32)
    points[36:42, 0] = np.arange(6)
    points[42:48, 0] = 10
    assert group_distance(points, IBUG68.pupils) == 7.5
    points[45] = [3, 4]
    points[36] = 0
    assert group_distance(points, IBUG68.eyes) == 5


def test_boxes_are_drawn_around_the_points_that_count():
    visible = np.array([[2, 2, 1, 2, 0]], np.uint8)
    names = ("interocular", "box", "height")
    counted = compute(table(visible=visible), names)
    assert counted["box"] == pytest.approx(np.sqrt(80))
    without = compute(table(visible=visible), names, count_occluded=False)
    assert without["box"] == pytest.approx(np.sqrt(6 * 8))
    assert without["interocular"] == counted["interocular"] == 5


def test_hidden_eyes_still_have_a_distance_and_unlabelled_ones_do_not():
    hidden = np.array([[1, 1, 2, 2, 2]], np.uint8)
    assert compute(table(visible=hidden), ("interocular",), None, False) == {"interocular": 5}
    with pytest.raises(DataError) as error:  # no face is left
        compute(table(visible=np.array([[0, 2, 2, 2, 2]], np.uint8)), ("interocular", "box"))
    for words in ("`interocular` (between the eyes)", "unknown", "'a.png'",
                  "--data.normalizations '[box]'"):  # fmt: skip
        assert words in str(error.value)


def test_faces_without_the_points_of_a_distance_are_counted_in_one_line():
    visible = np.array([[2] * 5, [0, 2, 2, 2, 2], [2, 0, 2, 2, 2]], np.uint8)
    some = LandmarkTable(["a", "b", "c"], np.repeat(POINTS, 3, 0), visible=visible)
    found = face_distances(some, some.labelled, FACES5, ("interocular", "height"))
    assert found["interocular"][0] == 5
    assert np.isnan(found["interocular"][1:]).all()
    assert np.isfinite(found["height"]).all()
    line = unmeasured(found, "test.csv, test faces")
    assert line.startswith("test.csv, test faces: 2 of 3 lack points of `interocular` (between")
    assert "height" not in line
    assert unmeasured({"height": found["height"]}, "faces") == ""
    some.points[0, 0] = some.points[0, 1]  # a distance of 0 is another matter
    with pytest.raises(DataError, match=r"is 0 pixels in 'a' \(1 of 3 faces\)"):
        face_distances(some, some.labelled, FACES5, ("interocular",))


def test_a_distance_of_0_names_image_and_distance():
    flat = LandmarkTable(["a", "b"], np.repeat(POINTS, 2, 0))
    flat.points[1, :, 1] = 3
    with pytest.raises(DataError, match=r"`box` .* is 0 pixels in 'b'"):
        face_distances(flat, flat.labelled, FACES5, ("diagonal", "box"))
    with pytest.raises(DataError, match=r"`given` .* is 0 pixels in 'a\.png'.*annotation\."):
        compute(table(sizes=np.zeros(1)), ("given",))


def test_data_have_the_distances_of_their_scheme_and_the_chosen_alone():
    plain = LandmarkScheme("x", 3)
    assert normalizations_of(plain) == ("box", "diagonal", "height")
    assert normalizations_of(FACES5, chosen=["height", "interocular"]) == ("interocular", "height")
    with pytest.raises(ConfigError, match=r"names 'interocular'; these data have box"):
        normalizations_of(plain, chosen=["interocular"])
    with pytest.raises(ConfigError, match=r"Did you mean 'diagonal'"):
        normalizations_of(plain, chosen=["diagnal"])
    with pytest.raises(ConfigError, match="names none"):
        normalizations_of(plain, chosen=[])


@pytest.mark.parametrize("wrong", [[[0], [5]], [[0], []], [[0]]])
def test_own_groups_are_checked(wrong):
    with pytest.raises(ConfigError, match="distance_between"):
        groups_between(5, wrong)
