"""Stand-ins for a user's files are read as a user's files are."""

import pytest
import torch
from safetensors.torch import load_file

from zoo_lightning.data import ImageFolders
from zoo_lightning.data.example_files import write_checkpoints, write_image_folders
from zoo_lightning.sources.shipped import shipped_path


def test_image_folders_are_data_of_ten_classes(tmp_path):
    write_image_folders(tmp_path, per_class=3, test_per_class=2)
    (tmp_path / "train" / "Bag" / "left.png").write_bytes(b"")
    write_image_folders(tmp_path, per_class=3, test_per_class=2)  # what was there goes
    assert len(list((tmp_path / "train").rglob("*.png"))) == 30
    assert len(list((tmp_path / "test").rglob("*.png"))) == 20
    data = ImageFolders(root=str(tmp_path), image_size=32, num_workers=0)
    data.setup("test")
    assert len(data.test_set) == 20
    assert "T-shirt or top" in data.classes


@pytest.mark.parametrize("name", ["faces5"])
def test_checkpoints_hold_the_shipped_weights(tmp_path, name):
    [path] = write_checkpoints(tmp_path, [name])
    content = torch.load(path, weights_only=True)
    expected = load_file(shipped_path(name))
    assert content["model"].keys() == {f"module.{key}" for key in expected}
