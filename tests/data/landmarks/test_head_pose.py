"""Head poses from points, against the poses that drawn faces were given."""

import numpy as np
import pytest

from zoo_lightning.data.landmarks.head_pose import angles_of, head_poses
from zoo_lightning.data.synthetic.face_shape import TEMPLATE, individual_face, random_projection

YAW, PITCH, ROLL = (2, 0), (1, 2), (0, 1)


def test_poses_of_drawn_faces_are_found_to_some_degrees():
    true, points = [], []
    for seed in range(300):
        rng = np.random.default_rng(seed)
        face = individual_face(rng)
        project = random_projection(face, 64, rng)
        true.append(angles_of(project.rotation))
        points.append(project(face))
    true, found = np.array(true), head_poses(points)
    assert np.abs(true[:, 0]).max() > 30  # faces that look well to the side are among them
    assert (np.abs(found - true).mean(axis=0) < [3.5, 4.5, 1]).all()
    for angle, least in enumerate([0.99, 0.95, 0.99]):
        assert np.corrcoef(found[:, angle], true[:, angle])[0, 1] > least


def turn_about(i, j):
    """A turn by 20 degrees from axis ``i`` towards axis ``j``, (3, 3)."""
    turn, angle = np.eye(3), np.radians(20)
    turn[i, i] = turn[j, j] = np.cos(angle)
    turn[j, i], turn[i, j] = np.sin(angle), -np.sin(angle)
    return turn


@pytest.mark.parametrize(
    ("axes", "angles"), [(YAW, [20, 0, 0]), (PITCH, [0, 20, 0]), (ROLL, [0, 0, 20])]
)
def test_a_turn_about_one_axis_is_that_angle(axes, angles):
    turn = turn_about(*axes)
    assert angles_of(turn) == pytest.approx(np.array(angles))
    found = head_poses(30 * (TEMPLATE @ turn.T)[None, :, :2] + 50)
    assert found == pytest.approx(np.array([angles]), abs=1e-6)


def test_right_up_and_clockwise_are_positive():
    # Where a turned face's nose and eyes are seen, against those of one that looks straight at us.
    def seen(axes):
        face = (TEMPLATE @ turn_about(*axes).T)[:, :2]
        assert (head_poses(face[None]) > -1e-6).all()
        left, right = face[36:42].mean(axis=0), face[42:48].mean(axis=0)
        return face[30] - (left + right) / 2, right - left

    straight = TEMPLATE[30, :2] - TEMPLATE[36:48, :2].mean(axis=0)
    nose, _ = seen(YAW)
    assert nose[0] > straight[0] + 0.1  # to the image's right
    nose, _ = seen(PITCH)
    assert nose[1] < straight[1] - 0.1  # up
    _, eyes = seen(ROLL)
    assert eyes[1] > 0.1  # the eye on the image's right is the lower one


def test_size_and_place_of_a_face_do_not_matter():
    face = TEMPLATE[None, :, :2] * [0.9, 1.0]
    assert head_poses(face * 200 + 37) == pytest.approx(head_poses(face))


def test_a_face_of_which_nose_or_eyes_are_unknown_has_no_pose():
    faces = TEMPLATE[None, :, :2].repeat(3, axis=0)
    faces[0, 30] = np.nan
    faces[1, 0] = np.nan  # of the jaw, which is not looked at
    assert np.isnan(head_poses(faces)).all(axis=1).tolist() == [True, False, False]
    assert head_poses(np.empty((0, 68, 2))).shape == (0, 3)


def test_points_of_another_order_are_refused():
    with pytest.raises(ValueError, match=r"68 points.*\(2, 5, 2\)"):
        head_poses(np.zeros((2, 5, 2)))
