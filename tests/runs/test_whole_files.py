"""Files that are written whole or not at all."""

import pytest

from zoo_lightning.errors import ConfigError
from zoo_lightning.files.atomic import atomic_file, atomic_folder


def test_a_file_is_written_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "notes.txt"
    with atomic_file(path) as part:
        part.write_text("first")
        assert part.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "first"
    with atomic_file(path) as part:
        part.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failing_write_leaves_the_old_file_whole_and_no_other(tmp_path, error):
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def fail():
        with atomic_file(path) as part:
            part.write_text("ha")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_writes_nothing_is_noticed(tmp_path):
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "notes.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_appears_when_all_of_it_is_written(tmp_path):
    path = tmp_path / "above" / "out"
    with atomic_folder(path) as part:
        (part / "a").write_text("1")
        assert not path.exists()
    assert (path / "a").read_text() == "1"
    (path / "others").write_text("mine")
    with atomic_folder(path, ("a", "b")) as part:
        (part / "b").write_text("2")
        assert (path / "a").read_text() == "1"
    assert {file.name: file.read_text() for file in path.iterdir()} == {"b": "2", "others": "mine"}
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(("raised", "seen"), [(OSError, ConfigError), (ValueError, ValueError)])
def test_a_folder_that_cannot_be_written_is_left_as_it_was(tmp_path, raised, seen):
    path = tmp_path / "out"
    path.mkdir()
    (path / "a").write_text("old")

    def fail():
        with atomic_folder(path, ("a",)) as part:
            (part / "a").write_text("new")
            raise raised

    with pytest.raises(seen):
        fail()
    assert (path / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
