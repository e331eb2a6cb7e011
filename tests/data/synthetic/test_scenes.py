"""Scenes of photographs: labels and counts are those of what can be seen."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data import CountedFaces, PhotoMosaics
from zoo_lightning.data.synthetic.scenes import nearest_site
from zoo_lightning.errors import ConfigError, DataError

COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
PLAIN = {"image_size": 24, "batch_size": 4, "num_workers": 0, "jitter": 0.0}


@pytest.fixture
def coloured(tmp_path):
    """Folders of three classes whose images have one colour each."""
    for part in ("train", "test"):
        for name, colour in zip("abc", COLOURS, strict=True):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for index in range(6):
                Image.new("RGB", (24, 24), colour).save(folder / f"{index}.png")
    return tmp_path / "photos"


@pytest.fixture
def white_faces(tmp_path, write_csv):
    """White images in the layout of LandmarkCSV."""
    folder = tmp_path / "faces"
    (folder / "images").mkdir(parents=True)
    for part in ("train", "test"):
        names = [f"{part}{i}.png" for i in range(12)]
        for name in names:
            Image.new("RGB", (20, 20), (255, 255, 255)).save(folder / "images" / name)
        write_csv(folder / f"{part}.csv", names, np.full((12, 5, 2), 9.0))
    return folder


def test_the_nearest_site_owns_a_pixel():
    sites = torch.tensor([[0.1, 0.2], [0.9, 0.1], [0.4, 0.8]])
    owner = nearest_site(sites, 10)
    for y in range(10):
        for x in range(10):
            place = torch.tensor([(x + 0.5) / 10, (y + 0.5) / 10])
            assert owner[y, x] == ((sites - place) ** 2).sum(1).argmin()


def test_labels_of_a_mosaic_are_the_classes_of_its_pixels(coloured):
    data = PhotoMosaics(str(coloured), pieces=3, stride=4, **PLAIN)
    data.setup("fit")
    seen = set()
    for epoch in range(3):
        for index in range(len(data.train_set)):
            sample = data.train_set[epoch, index]
            pixels = sample["image"][:, 2::4, 2::4].permute(1, 2, 0)
            expected = torch.tensor(COLOURS)[sample["labels"]]
            torch.testing.assert_close(pixels.long(), expected, atol=2, rtol=0)
            seen.add(len(sample["labels"].unique()))
    assert seen == {1, 2, 3}


def white_cells(image):
    """White patches of an image whose 3×3 cells are 8 pixels wide; none spans two cells."""
    white = (image > 250).all(0)
    return int(white.unfold(0, 8, 8).unfold(1, 8, 8).flatten(2).any(-1).sum())


def test_the_count_is_that_of_the_faces_that_can_be_seen(coloured, white_faces):
    data = CountedFaces(str(coloured), str(white_faces), most=3, **PLAIN)
    data.setup("fit")
    counts = set()
    for epoch in range(6):
        for index in range(len(data.train_set)):
            sample = data.train_set[epoch, index]
            assert white_cells(sample["image"]) == sample["label"]
            counts.add(sample["label"])
    assert counts == {0, 1, 2, 3}
    assert data.num_classes == 4


@pytest.mark.parametrize("kind", [PhotoMosaics, CountedFaces])
def test_scenes_depend_on_seed_epoch_and_index_alone(kind, coloured, white_faces):
    extra = [str(white_faces)] if kind is CountedFaces else []

    def image(position, **options):
        data = kind(str(coloured), *extra, **(PLAIN | options))
        data.setup("fit")
        return data.train_set[position]["image"]

    torch.testing.assert_close(image((1, 2)), image((1, 2)))
    assert (image((1, 2)) != image((2, 2))).any()
    assert (image((1, 2)) != image((1, 2), seed=1)).any()


def test_faces_to_train_validate_and_test_by_are_different(coloured, white_faces):
    data = CountedFaces(str(coloured), str(white_faces), **PLAIN)
    data.setup("fit")
    data.setup("test")
    parts = [set(part.objects) for part in (data.train_set, data.val_set, data.test_set)]
    assert [len(part) for part in parts] == [10, 2, 12]
    assert not parts[0] & parts[1]
    assert not (parts[0] | parts[1]) & parts[2]


def test_what_cannot_be_composed_is_refused(coloured, white_faces, tmp_path):
    with pytest.raises(ConfigError, match="`pieces` must be at least 2, got 1"):
        PhotoMosaics(str(coloured), pieces=1)
    with pytest.raises(ConfigError, match="`stride` must lie in 1 to 64, got 0"):
        PhotoMosaics(str(coloured), stride=0)
    with pytest.raises(ConfigError, match="`most` must lie in 1 to 4, got 5"):
        CountedFaces(str(coloured), str(white_faces), most=5)
    with pytest.raises(DataError, match=r"nowhere does not exist.*`faces`"):
        CountedFaces(str(coloured), str(tmp_path / "nowhere"))
