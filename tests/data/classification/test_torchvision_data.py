"""Data sets by torchvision's names, from small files in their true layouts."""

import inspect
import sys
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torchvision

from zoo_lightning.data.classification.torchvision_data import (
    KNOWN,
    TorchvisionData,
    held_out,
    images_and_labels,
)
from zoo_lightning.errors import ConfigError, DataError

OPTIONS = {"image_size": 16, "batch_size": 4, "num_workers": 0}


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def ready(name, root, **options):
    """A data module that has read all its parts."""
    module = TorchvisionData(name, str(root), **OPTIONS, **options)
    module.setup("fit")
    module.setup("test")
    return module


def sizes(module):
    return len(module.train_set), len(module.val_set), len(module.test_set)


def test_every_known_set_is_a_class_of_torchvision_with_its_splits():
    for name, known in KNOWN.items():
        kind = getattr(torchvision.datasets, name)
        if known.argument:
            for value in {known.train, known.test, known.val} - {None}:
                assert isinstance(value, bool) == (known.argument == "train"), (kind, value)


def test_fashion_mnist_from_its_idx_files(tmp_path, rng, class_files):
    class_files.write_fashion_mnist(tmp_path, rng)
    module = ready("FashionMNIST", tmp_path, val_fraction=0.34)
    assert sizes(module) == (20, 10, 30)
    assert module.classes[9] == "Ankle boot"
    assert module.test_set[4]["label"] == 1
    assert module.test_set[4]["image"].shape == (3, 16, 16)
    assert module.test_set.names[4] == "4"


def test_cifar100_from_its_pickles(tmp_path, rng, class_files, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    class_files.write_cifar100(tmp_path, rng)
    module = ready("CIFAR100", tmp_path, val_fraction=0.34)
    assert sizes(module) == (200, 100, 300)
    assert module.classes[7] == "class7"


def test_dtd_has_validation_images_of_its_own(tmp_path, rng, class_files):
    class_files.write_dtd(tmp_path, rng)
    module = ready("DTD", tmp_path)
    assert sizes(module) == (47, 47, 47)
    assert module.val_set.names[3] == "dtd/dtd/images/class03/val.jpg"


def test_aircraft_trains_on_trainval_unless_told_otherwise(tmp_path, rng, class_files):
    class_files.write_aircraft(tmp_path, rng)
    module = ready("FGVCAircraft", tmp_path, val_fraction=0.5)
    assert sizes(module) == (100, 100, 100)
    assert module.classes[3] == "Variant 3"
    other = ready("FGVCAircraft", tmp_path, train_split="train", val_split="val")
    assert sizes(other) == (200, 100, 100)
    alone = ready("FGVCAircraft", tmp_path, val_split="val")
    assert sizes(alone) == (200, 100, 100)
    assert alone.train_set.names == other.train_set.names


def test_stanford_cars_from_their_devkit(tmp_path, rng, class_files):
    pytest.importorskip("scipy")
    class_files.write_cars(tmp_path, rng)
    module = ready("StanfordCars", tmp_path, val_fraction=0.5)
    assert sizes(module) == (196, 196, 196)
    assert module.classes[195] == "Car 195"
    assert module.test_set[195]["label"] == 195


def test_undivided_data_are_divided_by_a_seed_that_is_not_the_runs(tmp_path, rng, class_files):
    class_files.write_eurosat(tmp_path, rng)
    modules = [ready("EuroSAT", tmp_path, seed=seed, val_fraction=0.25) for seed in (0, 1)]
    assert sizes(modules[0]) == (30, 10, 10)
    names = [set(module.test_set.names) for module in modules]
    assert names[0] == names[1]
    assert modules[0].val_set.names != modules[1].val_set.names
    seen = set(modules[1].train_set.names) | set(modules[1].val_set.names)
    assert not names[1] & seen
    other = ready("EuroSAT", tmp_path, test_seed=5, val_fraction=0.25)
    assert set(other.test_set.names) != names[0]


def test_a_corrupt_image_is_named(tmp_path, rng, class_files):
    class_files.write_eurosat(tmp_path, rng)
    (tmp_path / "eurosat/2750/Class3/0.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"Class3/0\.jpg cannot be read"):
        ready("EuroSAT", tmp_path, val_fraction=0.25)


@pytest.mark.parametrize("shape", [(2, 3, 8, 6), (2, 8, 6, 3), (2, 8, 6)])
def test_images_in_memory_become_channels_last(shape):
    dataset = SimpleNamespace(data=np.zeros(shape, np.uint8), labels=np.array([4, 1], np.uint8))
    images, labels = images_and_labels(dataset)
    assert images[0].shape[:2] == (8, 6)
    assert labels == [4, 1]


def test_what_is_there_is_not_downloaded(tmp_path, rng, class_files, monkeypatch):
    class_files.write_eurosat(tmp_path, rng)
    monkeypatch.setattr("urllib.request.urlopen", lambda *args: pytest.fail("the network was used"))
    module = TorchvisionData("EuroSAT", str(tmp_path), download=True, **OPTIONS)
    module.prepare_data()


def test_held_out_takes_the_same_share_of_each_class():
    chosen = held_out([0] * 10 + [1] * 20, 0.2, 0)
    assert len([i for i in chosen if i < 10]) == 2
    assert len(chosen) == 6


@pytest.mark.parametrize("name", ["CIFAR10", "DTD", "FGVCAircraft", "EuroSAT", "OxfordIIITPet"])
def test_absent_files_are_one_clear_error(tmp_path, name):
    with pytest.raises(DataError, match=rf"{name} cannot be read from .*download: true"):
        TorchvisionData(name, str(tmp_path), **OPTIONS).setup("fit")


@pytest.mark.parametrize("name", ["SVHN", "Flowers102", "StanfordCars"])
def test_an_absent_package_is_named_with_the_extra_that_installs_it(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(ConfigError, match=rf"{name} with scipy.*'\.\[torchvision-data\]'"):
        TorchvisionData(name, str(tmp_path), download=True)
    TorchvisionData("CIFAR10", str(tmp_path))


def test_only_the_sets_that_torchvision_reads_with_scipy_need_it():
    for name, known in KNOWN.items():
        source = inspect.getsource(inspect.getmodule(getattr(torchvision.datasets, name)))
        assert bool(known.needs) == ("scipy" in source), name


def test_a_missing_network_is_one_clear_error(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    module = TorchvisionData("CIFAR10", str(tmp_path), download=True, **OPTIONS)
    with pytest.raises(DataError, match=r"CIFAR10 cannot be downloaded to .*check the network"):
        module.prepare_data()


def test_files_of_another_number_of_classes_are_refused(tmp_path, rng, class_files):
    class_files.write_eurosat(tmp_path, rng)
    (tmp_path / "eurosat/2750/Class3").rename(tmp_path / "eurosat/2750/Other")
    class_files.picture(tmp_path / "eurosat/2750/Eleventh/0.jpg", rng)
    with pytest.raises(DataError, match=r"has 11 classes, expected 10"):
        ready("EuroSAT", tmp_path)


def test_options_of_training_say_how_the_data_are_divided():
    aircraft = TorchvisionData("FGVCAircraft", val_split="val").training_options()
    assert (aircraft["train_split"], aircraft["val_split"]) == ("train", "val")
    assert TorchvisionData("CIFAR10").training_options()["val_split"] is None
    undivided = TorchvisionData("EuroSAT", test_seed=3).training_options()
    assert undivided["test_seed"] == 3
    assert "train_split" not in undivided


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("CIFAR-100", {}, "unknown data set 'CIFAR-100'. Did you mean 'CIFAR100'"),
        ("EuroSAT", {"train_split": "train"}, "no named splits"),
        ("CIFAR10", {"val_split": "val"}, "no named splits"),
        ("DTD", {"train_split": "val", "val_split": "val"}, "the train images .*'val'.* the val"),
        ("FGVCAircraft", {"train_split": "trainval", "val_split": "val"}, "same in part"),
        ("FGVCAircraft", {"val_split": "train"}, "'trainval'.*'train'.*same in part"),
        ("Imagenette", {"val_split": "val"}, "test images.*same in part"),
        ("DTD", {"train_split": "test"}, "neither of them the test part"),
        ("EuroSAT", {"test_fraction": 1.0}, "test_fraction"),
    ],
)
def test_wrong_options_are_refused(name, options, words):
    with pytest.raises(ConfigError, match=words):
        TorchvisionData(name, **options)
