"""Whether a checkpoint's options and classes are those of the present configuration."""

import pytest

from zoo_lightning.tasks.compatibility import class_difference, data_differences


def test_the_same_names_in_another_order_are_told_so():
    found = class_difference(["cat", "dog"], ["dog", "cat"])
    assert "output 0 is class 'cat' in the checkpoint, 'dog' in the data" in found
    assert "in another order" in found
    assert "order" not in class_difference(["cat", "dog"], ["cat", "wolf"])


def test_classes_without_names_are_not_compared():
    assert class_difference(["cat", "dog"], ["0", "1"]) is None
    assert class_difference(["0", "dog"], ["cat", "dog"]) is None
    assert class_difference(None, ["cat"]) is None
    assert class_difference(["cat"], None) is None
    assert class_difference(["cat", "dog"], ["1", "0"]) is not None


def test_options_of_the_data_are_told_apart_by_their_names():
    found = {"class_path": "LandmarkCSV", "seed": 0, "augment": {"flip": 0.5, "noise": 0.1}}
    assert data_differences(found, found) == []
    assert data_differences({}, found) == data_differences(found, {}) == []
    wanted = found | {"seed": 1, "augment": {"flip": 0.5, "noise": 0.2}, "new": 3}
    assert data_differences(found, wanted) == [
        "data.augment.noise is 0.1 in the checkpoint, 0.2 here",
        "data.seed is 0 in the checkpoint, 1 here",
    ]
    other = found | {"class_path": "W300", "seed": 1}
    assert data_differences(found, other) == ["data are LandmarkCSV in the checkpoint, W300 here"]


NUMBERED = [str(number) for number in range(12)]


@pytest.mark.parametrize(
    ("found", "wanted", "said"),
    [
        (NUMBERED, NUMBERED, None),
        (
            NUMBERED,
            sorted(NUMBERED),
            "output 2 is class '2' in the checkpoint, '10' in the data (the",
        ),
        (["0", "1", "10", "2"], ["0", "1", "2", "10"], "output 2 is class '10'"),
        (["000", "001"], ["0", "1"], None),
        (["1", "2"], ["0", "1"], "output 0 is class '1' in the checkpoint, '0' in the data"),
        (["ant", "bee"], ["0", "1"], None),  # of a list of files, which has no names
        (["0", "1"], ["ant", "bee"], None),
        (["ant", "bee"], ["3", "4"], "output 0 is class 'ant' in the checkpoint, '3' in the data"),
        (["ant", "0"], ["0", "ant"], "output 0 is class 'ant'"),
        (["0", "1", "a"], ["1", "0", "a"], "output 0 is class '0' in the checkpoint, '1' in"),
        (["cat", "1", "dog"], ["cat", "bee", "dog"], None),  # a list that has none of class 1
        (["-1", "-2", "0"], ["-2", "-1", "0"], "output 0 is class '-1'"),
        (["ant"], ["bee", "cat"], None),  # their number is compared elsewhere
        (None, ["bee"], None),
    ],
)
def test_whole_lists_of_classes_are_compared(found, wanted, said):
    other = class_difference(found, wanted)
    assert other is None if said is None else other.startswith(said)
