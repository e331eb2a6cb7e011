"""Images in memory reach loader processes that are spawned without a copy for each."""

import copy
import multiprocessing
import pickle
from multiprocessing import context
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data.classification.fashion_mnist import FashionMNISTSubset
from zoo_lightning.data.image_list import ImageList
from zoo_lightning.data.images import SquareImages
from zoo_lightning.data.landmarks.published import LandmarkCSV
from zoo_lightning.data.synthetic.drawn_faces import DrawnFaces
from zoo_lightning.data.synthetic.scenes import CountingSet, MosaicSet


@pytest.fixture
def started(monkeypatch):
    """Bytes that a process which is started would get of an object."""

    class Start:
        """Stands for the process, to which handles are given as they are."""

        DupFd = int

        def duplicate_for_child(self, handle: int) -> int:
            return handle

    def size(thing: object) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(context, "get_spawning_popen", Start)
            return len(ForkingPickler.dumps(thing))

    return size


def noise(count, *shape):
    return list(np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8))


def test_a_started_process_gets_no_pixels_however_many_images_there_are(started):
    for count in (2, 200):
        images = SquareImages(noise(count, 40, 40, 3), 32, cache_mb=16)
        assert len(pickle.dumps(images)) > count * 32 * 32 * 3
        assert started(images) < 2000 + 200 * count  # of 7872 bytes that each image has twice


@pytest.mark.parametrize("cache_mb", [0, 16])
def test_nor_of_images_that_came_from_memory_and_are_not_kept(started, cache_mb):
    images = SquareImages(noise(50, 64, 64), 8, cache_mb)
    assert (images.kept is None) == (cache_mb == 0)
    assert started(images) < 50 * 200


def test_every_data_set_with_images_in_memory_shares_them(started, landmark_root):
    faces = LandmarkCSV(root=str(landmark_root), image_size=64, num_workers=0)
    clothes = FashionMNISTSubset(image_size=16, num_workers=0)
    drawn = DrawnFaces(20, 4, 4, 64, 5, 4, num_workers=0)
    for module in (faces, clothes, drawn):
        module.setup("fit")
        module.setup("test")
        for data in (module.train_set, module.val_set, module.test_set):
            for index in range(2):
                data[(0, index) if data is module.train_set else index]
            assert started(data) < 3000 + 600 * len(data), (module, data)
    for data in (MosaicSet(clothes.train_set, 2, 4), CountingSet(clothes.train_set, [], 2)):
        assert started(data) < 3000 + 100 * len(data), data


def seen(loader, epochs=2):
    return [batch["image"].clone() for _ in range(epochs) for batch in loader]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["faces", "clothes"])
def test_spawned_loader_processes_give_the_same_images(kind, landmark_root):
    def loaded(workers):
        if kind == "faces":
            module = LandmarkCSV(
                root=str(landmark_root), image_size=16, batch_size=4, num_workers=workers
            )
        else:
            module = FashionMNISTSubset(
                image_size=16, batch_size=10, num_workers=workers, train_fraction=0.01
            )
        module.setup("fit")
        loader = module.train_dataloader()
        if workers:
            loader.multiprocessing_context = "spawn"
        return seen(loader)

    here, spawned = loaded(0), loaded(1)
    assert len(here) == len(spawned) > 4
    assert all(torch.equal(a, b) for a, b in zip(here, spawned, strict=True))


def write(images: ImageList) -> None:
    images[0][...] = 7
    images[3][...] = 8


def test_all_processes_have_the_very_same_memory():
    images = ImageList([*noise(2, 4, 5, 3), Path("a.png"), *noise(1, 3, 2)])
    before = [np.copy(item) for item in images if isinstance(item, np.ndarray)]
    held = images[0]
    process = multiprocessing.get_context("spawn").Process(target=write, args=(images,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert (images[0] == 7).all(), "the other process had a copy"
    assert (images[3] == 8).all()
    assert [np.shape(item) for item in images] == [(4, 5, 3), (4, 5, 3), (), (3, 2)]
    assert np.array_equal(images[1], before[1])
    assert images[2] == Path("a.png")
    assert np.array_equal(held, before[0]), "an image in use lost its memory"


def test_copies_and_pickles_are_those_of_a_list(started):
    images = ImageList([*noise(2, 4, 5), "a"])
    for use in (lambda: None, lambda: started(images)):
        use()
        for other in (copy.deepcopy(images), pickle.loads(pickle.dumps(images))):
            assert isinstance(other, ImageList)
            assert all(np.array_equal(a, b) for a, b in zip(images, other, strict=True))
            other[0][...] = 0
            assert images[0].any()
    assert started(ImageList([Path("a")])) < 200


def test_without_room_for_shared_memory_every_process_has_a_copy_and_a_warning_says_so(
    started, monkeypatch
):
    def full(size):
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", full)
    images = ImageList(noise(4, 100, 100))
    with pytest.warns(UserWarning, match=r"each loader process gets a copy.*--shm-size"):
        assert started(images) > 40_000


def test_files_are_sent_as_files(started, tmp_path):
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    images = SquareImages([tmp_path / "a.png"] * 30, 8, cache_mb=0)
    assert started(images) < 30 * 200
