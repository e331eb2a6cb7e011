"""Folders of images: splits, samples, the rotation task, and what is refused."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data.classification.folders import ImageFolders
from zoo_lightning.errors import ConfigError, DataError


@pytest.fixture
def folders(class_root):
    """Function that makes the data module over the three classes."""

    def make(**options):
        options = {"image_size": 16, "batch_size": 4, "num_workers": 0} | options
        return ImageFolders(str(class_root), **options)

    return make


def labels(dataset) -> list[int]:
    """Classes of the samples."""
    return [label for _, label in dataset.samples]


def paths(dataset) -> set[str]:
    """Files of the samples."""
    return {path for path, _ in dataset.samples}


def test_classes_and_their_number_are_known_from_construction(folders):
    module = folders()
    assert module.classes == ["ant", "bee", "cat"]
    assert module.num_classes == 3
    assert folders(targets="rotation").num_classes == 4


def test_every_class_is_split_alike(folders):
    module = folders(val_fraction=0.34)
    module.setup("fit")
    assert sorted(labels(module.train_set)) == [0] * 4 + [1] * 4 + [2] * 4
    assert sorted(labels(module.val_set)) == [0, 0, 1, 1, 2, 2]
    assert not paths(module.train_set) & paths(module.val_set)


def test_the_split_depends_on_the_seed_alone(folders):
    def validated(stage="fit", **options):
        module = folders(**options)
        module.setup(stage)
        return paths(module.val_set)

    assert validated(seed=1) == validated(seed=1) == validated("validate", seed=1)
    assert any(validated(seed=seed) != validated(seed=1) for seed in range(2, 6))


def test_a_fraction_of_every_class_is_trained_on_and_validation_stays(folders):
    def parts(fraction):
        module = folders(val_fraction=0.34, train_fraction=fraction)
        module.setup("fit")
        return module

    whole, half, least = map(parts, (1.0, 0.5, 0.01))
    assert sorted(labels(half.train_set)) == [0, 0, 1, 1, 2, 2]
    assert sorted(labels(least.train_set)) == [0, 1, 2]
    assert paths(least.train_set) < paths(half.train_set) < paths(whole.train_set)
    assert paths(half.val_set) == paths(whole.val_set)
    with pytest.raises(ConfigError, match=r"train_fraction.*got 0"):
        folders(train_fraction=0)


def test_a_large_fraction_leaves_an_image_of_each_class_for_training(folders):
    module = folders(val_fraction=0.99)
    module.setup("fit")
    assert sorted(labels(module.train_set)) == [0, 1, 2]


def test_samples_are_images_of_the_input_size_with_the_right_label(folders):
    module = folders(jitter=0.0)
    module.setup("fit")
    module.setup("test")
    for dataset in (module.train_set, module.val_set, module.test_set):
        for index in range(len(dataset)):
            sample = dataset[0, index]
            assert sample["image"].shape == (3, 16, 16)
            assert sample["image"].dtype == torch.uint8
            assert sample["index"] == index
            # The classes differ by their brightest channel.
            assert sample["image"].float().mean(dim=(1, 2)).argmax() == sample["label"]


def test_a_sample_depends_on_seed_epoch_and_index_alone(folders):
    module, other = folders(seed=3), folders(seed=4)
    module.setup("fit")
    other.setup("fit")
    torch.manual_seed(1)
    first = module.train_set[2, 5]["image"]
    torch.rand(7)
    before = torch.get_rng_state()
    assert torch.equal(module.train_set[2, 5]["image"], first)
    assert torch.equal(torch.get_rng_state(), before), "the global generator was touched"
    assert not torch.equal(module.train_set[3, 5]["image"], first)
    other.train_set.sources = module.train_set.sources
    other.train_set.labels = module.train_set.labels
    assert not torch.equal(other.train_set[2, 5]["image"], first)


@pytest.mark.parametrize("targets", ["class", "rotation"])
def test_batches_do_not_depend_on_the_workers(folders, targets):
    def seen(workers):
        module = folders(num_workers=workers, targets=targets)
        module.setup("fit")
        loader = module.train_dataloader()
        return [batch for _ in range(2) for batch in loader]

    for left, right in zip(seen(0), seen(2), strict=True):
        assert all(torch.equal(left[key], right[key]) for key in left)


def test_the_label_of_the_rotation_task_is_the_true_quarter_turn(folders, class_root):
    for file in class_root.rglob("*.png"):  # red above, blue below, on the left a bit of green
        pixels = np.zeros((32, 32, 3), np.uint8)
        pixels[:16, :, 0] = 255
        pixels[16:, :, 2] = 255
        pixels[:, :4, 1] = 255
        Image.fromarray(pixels).save(file)
    module = folders(targets="rotation", crop_scale=1.0, flip=0.0, jitter=0.0, val_fraction=0.5)
    module.setup("fit")
    module.setup("test")
    upright = torch.from_numpy(pixels[::2, ::2].copy()).permute(2, 0, 1)
    found = set()
    for dataset in (module.train_set, module.val_set, module.test_set):
        for index in range(len(dataset)):
            for epoch in range(4):
                sample = dataset[epoch, index]
                turned_back = torch.rot90(sample["image"], -sample["label"], dims=(1, 2))
                difference = (turned_back.float() - upright.float()).abs().mean()
                assert difference < 40  # a wrong turn differs by more than 100
                found.add(sample["label"])
    assert found == {0, 1, 2, 3}


def test_evaluation_turns_an_image_the_same_way_every_time(folders):
    module = folders(targets="rotation")
    module.setup("test")
    turns = [[module.test_set[index]["label"] for index in range(6)] for _ in range(2)]
    assert turns[0] == turns[1]
    assert len(set(turns[0])) > 1


def test_an_absent_root_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.* does not exist"):
        ImageFolders(str(tmp_path / "nowhere"))


def test_testing_needs_the_test_folder_alone(folders, class_root):
    shutil.rmtree(class_root / "train")
    module = folders()
    assert module.num_classes == 3
    module.setup("test")
    assert len(module.test_set) == 6
    with pytest.raises(DataError, match=r"train does not exist"):
        module.setup("fit")


def test_a_class_that_only_the_test_folder_has_is_named(folders, class_root):
    (class_root / "test" / "cat").rename(class_root / "test" / "cats")
    with pytest.raises(DataError, match=r"lacks: cats\. Did you mean 'cat'\?"):
        folders().setup("test")


def test_a_class_missing_in_the_test_folder_keeps_the_others_labels(folders, class_root):
    shutil.rmtree(class_root / "test" / "ant")
    module = folders()
    module.setup("test")
    assert sorted(set(labels(module.test_set))) == [1, 2]


def test_a_folder_without_classes_or_images_is_named(folders, class_root):
    (class_root / "train" / "dog").mkdir()
    with pytest.raises(DataError, match=r"class folder without images.*dog"):
        folders().setup("fit")
    shutil.rmtree(class_root / "train")
    (class_root / "train").mkdir()
    with pytest.raises(DataError, match=r"train holds no class folders"):
        folders()


@pytest.mark.parametrize("content", [b"no image", b""])
def test_a_corrupt_image_is_named_before_training(folders, class_root, content):
    (class_root / "train" / "bee" / "3.png").write_bytes(content)
    with pytest.raises(DataError, match=r"train/bee/3\.png cannot be read"):
        folders().setup("fit")


@pytest.mark.parametrize("fraction", [0.0, 1.0, -1])
def test_a_fraction_outside_its_range_is_refused(folders, fraction):
    with pytest.raises(ConfigError, match="val_fraction"):
        folders(val_fraction=fraction)


def test_too_few_images_for_validation_are_refused(folders):
    with pytest.raises(DataError, match="too few images"):
        folders(val_fraction=0.01).setup("fit")
