"""Weights are written whole or not at all, by whoever writes them."""

from dataclasses import replace

import pytest
import timm
import torch
from safetensors import safe_open

from zoo_lightning.cli import match as matched_zoo
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.sources import files, shipped
from zoo_lightning.sources.spec import parse_sources


def test_tensors_that_share_memory_are_written_with_what_is_noted(tmp_path):
    weight = torch.randn(3, 2)
    path = tmp_path / "shared.safetensors"
    files.write_tensors({"a": weight, "b": weight.T}, path, {"architecture": "small"})
    with safe_open(path, "pt") as file:
        assert file.metadata() == {"format": "pt", "architecture": "small"}
        assert torch.equal(file.get_tensor("a"), weight)
        assert torch.equal(file.get_tensor("b"), weight.T)


def ship(folder):
    """Ship a network under the card of a shipped one."""
    card = replace(shipped.shipped_card("faces5"), name="mine")
    return shipped.ship(timm.create_model("test_resnet", num_classes=0).state_dict(), card, folder)


def write_matched(folder):
    """Write a matched source."""
    architecture = Architecture("test_resnet")
    (loaded,) = load_architecture(architecture, parse_sources(["random:1"]))
    return matched_zoo.write(loaded, architecture, folder, {})


@pytest.mark.parametrize("write", [ship, write_matched])
def test_a_failing_write_leaves_the_old_weights_whole_and_no_other_file(
    tmp_path, monkeypatch, write
):
    path = write(tmp_path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}

    def full_disk(tensors, file, metadata):
        file.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(files, "save_file", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before
    assert path.name in before
