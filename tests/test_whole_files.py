"""Files that are written whole or not at all."""

import pytest

from zoo_lightning.whole_files import whole_file


def test_a_file_is_written_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "new" / "notes.txt"
    with whole_file(path) as part:
        part.write_text("first")
        assert part.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "first"
    with whole_file(path) as part:
        part.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failing_write_leaves_the_old_file_whole_and_no_other(tmp_path, error):
    path = tmp_path / "notes.txt"
    path.write_text("old")

    def fail():
        with whole_file(path) as part:
            part.write_text("ha")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_writes_nothing_is_noticed(tmp_path):
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "notes.txt"):
        pass
    assert not list(tmp_path.iterdir())
