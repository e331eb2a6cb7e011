"""The data module of annotated image files: splits, samples, checks before training."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo_lightning.data.landmarks import base as landmark_data
from zoo_lightning.data.landmarks.codec import to_original
from zoo_lightning.data.landmarks.formats.plain_csv import read_landmark_csv
from zoo_lightning.data.landmarks.published import LandmarkCSV
from zoo_lightning.data.splitting import person_of, random_subset, split_by_group
from zoo_lightning.errors import ConfigError, DataError


@pytest.fixture
def data(landmark_root):
    def make(**options):
        options = {"image_size": 32, "batch_size": 4, "num_workers": 0, **options}
        return LandmarkCSV(str(landmark_root), **options)

    return make


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(landmark_data, "rank_zero_info", lines.append)
    return lines


def people(dataset):
    return {person_of(path.name, r"_?\d+$") for path in dataset.images.sources}


def names(dataset):
    return [path.name for path in dataset.images.sources]


def test_number_of_points_and_scheme_are_known_from_construction(data):
    module = data()
    assert module.num_points == 5
    assert module.scheme.name == "faces5"


def test_test_csv_alone_is_enough_for_testing(data, landmark_root):
    (landmark_root / "train.csv").unlink()
    module = data()
    assert module.num_points == 5
    module.setup("test")
    assert len(module.test_set) == 4
    with pytest.raises(DataError, match=r"train\.csv does not exist"):
        module.setup("fit")


def test_testing_does_not_read_the_training_images(data, landmark_root):
    for path in (landmark_root / "images").glob("train*"):
        path.unlink()
    data().setup("test")


def test_nobody_is_both_trained_on_and_validated_on(data):
    module = data(val_fraction=0.3)
    module.setup("fit")
    assert not people(module.train_set) & people(module.val_set)
    assert len(module.train_set) == 14
    assert len(module.val_set) == 6


def test_validation_people_depend_on_the_seed_and_not_on_the_train_fraction(data):
    def validated(**options):
        module = data(**options)
        module.setup("fit")
        return names(module.val_set)

    first = validated(seed=3)
    assert validated(seed=3) == first
    assert validated(seed=3, train_fraction=0.2) == first
    assert any(validated(seed=seed) != first for seed in range(4, 8))


def test_a_smaller_train_fraction_is_a_subset_of_a_larger(data):
    subsets = []
    for fraction in (0.1, 0.5, 1.0):
        module = data(train_fraction=fraction)
        module.setup("fit")
        subsets.append(set(names(module.train_set)))
    assert subsets[0] < subsets[1] < subsets[2]
    assert [len(subset) for subset in subsets] == [2, 9, 18]


def test_a_tiny_fraction_still_leaves_one_image():
    assert len(random_subset(np.arange(7), 1e-6, 0)) == 1


def test_fit_validates_the_same_images_as_validate(data):
    fit, validate = data(), data()
    fit.setup("fit")
    validate.setup("validate")
    assert names(fit.val_set) == names(validate.val_set)


@pytest.mark.parametrize(
    ("name", "pattern", "person"),
    [
        ("Carrie-Anne_Moss_02.jpg", r"_?\d+$", "Carrie-Anne_Moss"),
        ("Aaron_Eckhart_0001.jpg", r"_?\d+$", "Aaron_Eckhart"),
        ("0007.jpg", r"_?\d+$", "0007"),
        ("anna/0007.jpg", r"_?\d+$", "anna"),
        ("x_1.jpg", "", "x_1"),
    ],
)
def test_the_name_without_its_number_is_the_person(name, pattern, person):
    assert person_of(name, pattern) == person


def test_people_of_the_real_sets_are_recognised(real_data):
    module = LandmarkCSV(str(real_data("faces68")))
    assert module.num_points == 68
    for name, count in (("faces68", 230), ("faces5", 3254)):
        table = read_landmark_csv(real_data(name) / "train.csv")
        assert len({person_of(image, module.group_pattern) for image in table.names}) == count


@pytest.mark.parametrize("seed", range(5))
def test_splitting_takes_whole_groups_and_at_least_the_fraction(seed):
    groups = [str(i // 7) for i in range(100)]
    first, second = split_by_group(groups, 0.1, seed)
    assert sorted([*first, *second]) == list(range(100))
    assert 10 <= len(second) <= 16
    assert not {groups[i] for i in first} & {groups[i] for i in second}


def test_one_person_alone_cannot_be_split():
    with pytest.raises(DataError, match="8 images of 1 persons"):
        split_by_group(["a"] * 8, 0.1, 0)


def test_training_samples_are_input_pixels_with_points(data):
    module = data()
    module.setup("fit")
    batch = next(iter(module.train_dataloader()))
    assert set(batch) == {"image", "points", "visible", "index"}
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["image"].dtype == torch.uint8
    assert batch["points"].shape == (4, 5, 2)
    assert batch["points"].dtype == torch.float32


def test_evaluation_samples_lead_back_to_the_original_image(data):
    module = data()
    module.setup("test")
    batch = next(iter(module.test_dataloader()))
    original = read_landmark_csv(module.files["test"]).points
    assert (batch["original"].numpy() == original).all()
    back = to_original(batch["points"], batch["to_original"])
    torch.testing.assert_close(back, batch["original"], rtol=0, atol=1e-4)
    eyes = np.linalg.norm(original[:, 0] - original[:, 1], axis=-1)
    boxes = np.sqrt(np.prod(original.max(1) - original.min(1), axis=-1))
    distances = batch["distances"]
    assert tuple(distances) == module.normalizations
    assert np.allclose(distances["interocular"], eyes)
    assert np.allclose(distances["box"], boxes)
    assert all(values.dtype == torch.float32 for values in distances.values())
    assert batch["visible"].all()
    assert batch["subsets"].shape == (4, 0)
    assert batch["name"][1] == "testa_01.png"
    assert batch["index"].tolist() == [0, 1, 2, 3]


def test_a_wide_image_is_padded_and_its_points_still_lead_back(data, landmark_root, write_csv):
    image = Image.new("RGB", (60, 20), "white")
    image.save(landmark_root / "images" / "wide.png")
    points = np.array([[[0, 0], [60, 0], [30, 10], [0, 20], [60, 20]]], float)
    write_csv(landmark_root / "test.csv", ["wide.png"], points)
    module = data(image_size=30)
    module.setup("test")
    sample = module.test_set[0]
    assert sample["points"].tolist() == [[0, 10], [30, 10], [15, 15], [0, 20], [30, 20]]
    assert (sample["image"][:, 11:19] == 255).all()
    assert (sample["image"][:, :9] == 0).all()
    back = to_original(sample["points"][None], sample["to_original"][None])[0]
    torch.testing.assert_close(back, sample["original"])


def test_points_without_eyes_have_no_interocular_distance(data):
    module = data(flip_pairs=[(0, 1)])
    module.setup("test")
    assert module.normalizations == ("box", "diagonal", "height")
    assert tuple(module.test_set[0]["distances"]) == module.normalizations


@pytest.mark.parametrize("workers", [0, 2])
def test_training_batches_are_the_same_for_any_number_of_workers(data, workers):
    def first_points(num_workers):
        module = data(num_workers=num_workers)
        module.setup("fit")
        return next(iter(module.train_dataloader()))["points"]

    assert torch.equal(first_points(workers), first_points(0))


def test_without_augmentation_training_images_are_the_same_every_epoch(data):
    module = data(augment=False)
    module.setup("fit")
    first, second = module.train_set[0, 2], module.train_set[5, 2]
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["points"], second["points"])


def test_images_of_unknown_points_are_not_mirrored(data, landmark_root, log, write_csv):
    for name in ("train", "test"):
        table = read_landmark_csv(landmark_root / f"{name}.csv")
        write_csv(landmark_root / f"{name}.csv", table.names, table.points[:, :4])
    module = data()
    assert module.scheme.name == "unknown"
    assert module.augmentation.flip == 0
    module.trainer = object()
    module.setup("fit")
    assert "images are not mirrored" in log[-1]
    assert "--data.flip_pairs" in log[-1]


def test_points_outside_their_image_are_counted_once_per_split(data, landmark_root, log, write_csv):
    table = read_landmark_csv(landmark_root / "test.csv")
    table.points[1, :2] = [[-3, 5], [5, 50]]
    write_csv(landmark_root / "test.csv", table.names, table.points)
    data().setup("test")
    assert len(log) == 1
    assert log[0].startswith("2 of 20 points lie outside their image, in 1 of 4 images")


def test_absent_images_are_counted_and_the_first_is_named(data, landmark_root):
    for name in ("trainb_00.png", "trainc_01.png"):
        (landmark_root / "images" / name).unlink()
    with pytest.raises(DataError, match=r"'trainb_00\.png'.*2 of 20 images are absent.*Did you"):
        data().setup("fit")


def test_a_broken_image_stops_before_training(data, landmark_root):
    for path in (landmark_root / "images").glob("train*"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read"):
        data().setup("fit")


def test_an_absent_image_folder_is_named(data):
    with pytest.raises(DataError, match=r"set `images`"):
        data(images="pictures").setup("fit")


def test_an_absent_root_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere does not exist; set `root`"):
        LandmarkCSV(str(tmp_path / "nowhere"))


def test_test_points_of_another_number_are_refused(data, landmark_root, write_csv):
    write_csv(landmark_root / "test.csv", ["testa_00.png"], np.ones((1, 4, 2)))
    with pytest.raises(DataError, match="4 points"):
        data().setup("test")


def test_an_error_that_cannot_be_normalised_names_its_image(data, landmark_root, write_csv):
    points = np.random.default_rng(0).uniform(5, 35, (2, 5, 2))
    points[1, 0] = points[1, 1]
    write_csv(landmark_root / "test.csv", ["testa_00.png", "testa_01.png"], points)
    with pytest.raises(DataError, match=r"eyes\) is 0 pixels in 'testa_01\.png'"):
        data().setup("test")


OUT_OF_RANGE = {
    "val_fraction": 0.0,
    "train_fraction": 1.5,
    "group_pattern": "(",
    "scheme": "ibug68",
}


@pytest.mark.parametrize("option", OUT_OF_RANGE)
def test_options_out_of_range_are_refused(data, option):
    with pytest.raises(ConfigError, match=option):
        data(**{option: OUT_OF_RANGE[option]})


@pytest.mark.parametrize("cache_mb", [0.0, 64.0])
def test_images_that_exif_turns_are_counted_in_a_warning(data, landmark_root, cache_mb):
    exif = Image.Exif()
    for number, orientation in enumerate((6, 3, 1)):
        exif[0x0112] = orientation
        path = landmark_root / "images" / f"test{'ab'[number // 2]}_0{number % 2}.png"
        with Image.open(path) as image:
            image.load()
        image.save(path, exif=exif)
    module = data(cache_mb=cache_mb)
    with pytest.warns(UserWarning, match=r"2 of 4 images .* turned.*mogrify -auto-orient"):
        module.setup("test")


@pytest.mark.filterwarnings("error")
def test_images_that_nothing_turns_are_used_without_a_word(data):
    module = data()
    module.setup("fit")
    module.setup("test")


def test_options_of_training_are_plain_and_leave_out_what_only_says_how_to_load(data, tmp_path):
    options = data().training_options()
    torch.save(options, tmp_path / "options.pt")
    assert torch.load(tmp_path / "options.pt", weights_only=True) == options
    assert data(cache_mb=0, num_workers=2, images="./images").training_options() == options
    for changes in ({"seed": 1}, {"augment": False}, {"margin": 0.9}, {"group_pattern": "x"}):
        assert data(**changes).training_options() != options
