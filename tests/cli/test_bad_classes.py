"""Folders of images as people have them: handled, or one clear line before anything is trained."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from zoo_lightning.tasks import classification

FIT = ["fit", "--experiment", "tiny", "--run_dir", "run"]


@pytest.fixture
def images(tiny, class_root):
    """The experiment ``tiny`` on the folder ``classes`` in the present folder."""
    data = {"root": "classes", "image_size": 16, "batch_size": 4, "num_workers": 0}
    tiny(
        data={"class_path": "ImageFolders", "init_args": {"val_fraction": 0.2, **data}},
        **{"model.class_path": "ClassificationTask", "trainer.max_steps": 4},
    )
    return Path(class_root.name)


@pytest.fixture
def refused(command):
    """Function that tries to train, and returns the one line of error; nothing is trained."""

    def run(*options: str) -> str:
        found = command(*FIT, *options)
        assert "Original" not in found.err
        assert not list(Path("run").rglob("*.ckpt"))
        return found.refused()

    return run


def trains(command, *options: str) -> str:
    """Train to the end; what was said."""
    result = command(*FIT, *options)
    assert result.status == 0, result.err
    return result.err


@pytest.mark.parametrize("part", ["train", "test"])
def test_an_empty_class_folder_is_named(images, refused, part):
    for each in ("train", "test"):
        (images / each / "dog").mkdir()
        if each != part:
            for name in ("0.png", "1.png"):
                shutil.copy(images / "train/ant" / name, images / each / "dog")
    (images / part / "dog" / "notes.txt").touch()
    line = refused()
    assert f"classes/{part} has a class folder without images: dog" in line
    assert ".jpg" in line


@pytest.mark.parametrize("backbone", ["ZooBackbone", "PlainBackbone"])
def test_one_class_is_refused_in_one_line(images, refused, backbone):
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            shutil.rmtree(images / part / name)
    options = ["--model.backbone", backbone, "--model.backbone.architecture", "test_resnet"]
    options += ["--model.backbone.sources", '["random:1", "random:2"]']
    line = refused(*options)
    assert "num_classes is 1" in line
    assert "add images" in line


def test_what_a_library_refuses_is_one_line_too(images, refused, monkeypatch):
    monkeypatch.setattr(classification, "check_number_of_classes", lambda count: None)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            shutil.rmtree(images / part / name)
    assert "`num_classes`" in refused()  # torchmetrics' words


def test_a_test_class_that_training_lacks_is_named(images, refused):
    shutil.copytree(images / "test/cat", images / "test/cats")
    assert (
        "classes/test has classes that classes/train lacks: cats. Did you mean 'cat'" in refused()
    )


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_corrupt_image_is_named_or_skipped_and_counted(images, refused, command, part):
    (images / part / "bee/0.png").write_bytes(b"no image")
    line = refused()
    assert f"classes/{part}/bee/0.png cannot be read" in line
    assert "skip_broken: true" in line
    with pytest.warns(UserWarning, match=rf"1 of \d+ {part} images are skipped"):
        trains(command, "--data.skip_broken=true")


def damage(path: Path) -> None:
    """Overwrite the middle of a JPEG by noise that its decoder refuses; its end stays whole."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    start, count = len(content) // 3, len(content) // 3
    content[start : start + count] = rng.integers(0, 256, count, dtype=np.uint8).tobytes()
    path.write_bytes(content)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_jpeg_damaged_in_its_middle_is_named_at_its_batch(images, refused, workers):
    for file in list((images / "train/bee").iterdir()):
        file.unlink()
        damage(file.with_suffix(".jpg"))
    line = refused("--data.num_workers", str(workers))
    assert "train/bee/" in line
    assert ".jpg cannot be read (broken data stream" in line
    assert line.endswith("Or set `skip_broken: true`.")


def test_skipping_finds_a_jpeg_damaged_in_its_middle_before_training(images, command):
    damage(images / "train/bee/x.jpg")
    damage(images / "test/bee/x.jpg")
    with pytest.warns(UserWarning, match=r"1 of 19 train images are skipped.*bee/x\.jpg"):
        trains(command, "--data.skip_broken=true")


def test_a_class_of_one_image_is_named(images, refused):
    for file in (images / "train/cat").glob("[1-9]*"):
        file.unlink()
    assert "a single training image of class 'cat'" in refused()


@pytest.mark.parametrize("option", ["--model.num_classes", "--model.init_args.num_classes"])
@pytest.mark.parametrize("count", ["5", "10"])  # 10 is what the task has by itself
def test_a_number_of_classes_that_is_not_the_datas_is_refused(images, refused, option, count):
    line = refused(f"{option}={count}")
    assert f"num_classes is {count}, but the data have 3; leave it out" in line


def test_the_number_of_classes_may_be_given_if_it_is_right(images, command):
    trains(command, "--model.num_classes=3")


def test_names_with_spaces_and_of_other_scripts_go_through_to_the_tables(images, command):
    names = {"ant": "großer Hund", "bee": "猫 und co", "cat": 'a,b "c"'}
    for part in ("train", "test"):
        for old, new in names.items():
            (images / part / old).rename(images / part / new)
    said = trains(command)
    assert "Glyph" not in said
    with Path("run/confusion.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["true", *sorted(names.values())]
    with Path("run/test_errors.csv").open(newline="") as file:
        assert {row["true"] for row in csv.DictReader(file)} <= set(names.values())


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ("classes/train", "`root` is too low: set it to {here}/classes."),
        ("classes/train/ant", "`root` is too low: set it to {here}/classes."),
        (".", "`root` is too high: set it to classes."),
        ("nowhere", "nowhere/train does not exist"),
    ],
)
def test_a_root_one_level_off_is_told_where_to_be(images, refused, root, words):
    assert words.format(here=Path.cwd()) in refused(f"--data.root={root}")


def test_folders_that_are_not_divided_are_told_to_be(images, refused):
    shutil.move(images / "train", "flat")
    line = refused("--data.root=flat")
    assert "flat itself holds folders of images (ant, bee, cat): move them into flat/train" in line


def test_a_folder_of_another_spelling_is_suggested(images, refused):
    (images / "train").rename(images / "Train")
    shutil.rmtree(images / "test")
    assert "Did you mean 'Train'? Rename it." in refused()


def test_what_systems_leave_in_folders_is_no_image_and_no_class(images, command):
    for name in (".DS_Store", "Thumbs.db", "._0.png", "desktop.ini"):
        (images / "train/bee" / name).write_bytes(b"x")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        (images / "train" / name).mkdir()
        (images / "train/bee" / name).mkdir()
        (images / "train/bee" / name / "0.png").write_bytes(b"x")
    trains(command)


def test_upper_case_suffixes_and_folders_inside_a_class_count(images, command):
    for index, file in enumerate(sorted((images / "train/bee").iterdir())):
        (images / "train/bee/more").mkdir(exist_ok=True)
        Image.open(file).save(images / "train/bee/more" / f"{index}.{('JPG', 'Png')[index % 2]}")
        file.unlink()
    trains(command)
