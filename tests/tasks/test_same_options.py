"""Whether a checkpoint's options and classes are those of the present configuration."""

from zoo_lightning.tasks.same_options import class_difference


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
