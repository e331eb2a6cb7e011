"""``sources inspect FOLDER`` and ``sources relate FOLDER``: what the files in a folder are."""

import json
from pathlib import Path

import pytest
import timm
import torch

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.folders import weights_of_folder
from zoo_lightning.transfer.folder import inspect_folder

ZOO = Path(__file__).resolve().parents[3] / "shared" / "data" / "zoo_mobilenet025"


def moved(state, seed):
    """A state whose kernels were moved a little in a random direction."""
    generator = torch.Generator().manual_seed(seed)
    return {
        key: tensor + 0.3 * tensor.std() * torch.randn(tensor.shape, generator=generator)
        if tensor.ndim >= 2
        else tensor
        for key, tensor in state.items()
    }


@pytest.fixture
def folder(tmp_path):
    """An ancestor, two descendants under other prefixes, a stranger, and things that do not fit."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        ancestor = timm.create_model("test_resnet", num_classes=7).state_dict()
        stranger = timm.create_model("test_resnet", num_classes=0).state_dict()
    torch.save({"state_dict": ancestor}, tmp_path / "imagenet.tar")
    for n, prefix in enumerate(("module.", "backbone.body."), 1):
        state = {prefix + key: tensor for key, tensor in moved(ancestor, n).items()}
        torch.save(state, tmp_path / f"child{n}.pth")
    torch.save(stranger, tmp_path / "stranger.pth")
    torch.save({"a.weight": torch.ones(2, 2)}, tmp_path / "other.pt")
    (tmp_path / "broken.pth").write_bytes(b"\x80\x02nothing")
    (tmp_path / "SOURCES.md").write_text("where they come from")
    return tmp_path


def test_a_folder_says_which_are_of_one_architecture_and_descend_from_which(folder):
    seen = inspect_folder(folder)
    assert seen.left_out == ["SOURCES.md"]
    assert list(seen.refused) == ["broken"]
    first, second = seen.groups
    assert first.architecture == "test_resnet"
    assert first.files == ["child1", "child2", "imagenet_tar", "stranger"]
    relations = {(pair.first, pair.second): pair.relation for pair in first.kin.pairs}
    assert relations["child1", "imagenet_tar"] == "relatives"
    assert relations["child1", "stranger"] == "strangers"
    assert {each.name: each.parents for each in first.kin.descents} == {
        "child1": ["imagenet_tar"], "child2": ["imagenet_tar"], "imagenet_tar": []
    }  # fmt: skip
    assert (second.architecture, second.files) == ("", ["other"])


def test_a_given_architecture_refuses_the_others(folder):
    seen = inspect_folder(folder, "test_resnet")
    assert [group.files for group in seen.groups] == [
        ["child1", "child2", "imagenet_tar", "stranger"]
    ]
    assert set(seen.refused) == {"broken", "other"}


def test_networks_of_an_unknown_architecture_are_compared_by_their_names(tmp_path):
    generator = torch.Generator().manual_seed(0)
    state = {f"stage{n}.0.1.weight": torch.randn(8, 8, generator=generator) for n in range(5)}
    heads = {f"head{n}.weight": torch.ones(2, 8) for n in range(4)}
    torch.save({f"module.{k}": t for k, t in state.items()}, tmp_path / "a.pth")
    torch.save({f"net.body.{k}": t for k, t in state.items()} | heads, tmp_path / "b.pth")
    [group] = inspect_folder(tmp_path).groups
    [pair] = group.kin.pairs
    assert (group.architecture, pair.kernels, pair.equal) == ("", 5, 5)
    assert pair.cosine == pytest.approx(1)


def test_the_command_prints_tables_and_json(folder, command):
    found = command("sources", "inspect", str(folder), "--architecture", "test_resnet")
    assert found.status == 0, found.err
    assert "6 sources; no weights: SOURCES.md" in found.out
    assert "descends from imagenet_tar" in found.out
    assert "not stated" in found.out
    assert found.out.count("\nleft out ") == 2
    found = command("sources", "inspect", str(folder), "--json")
    assert json.loads(found.out)["groups"][0]["architecture"] == "test_resnet"


def test_relate_takes_the_sources_of_a_folder_that_fit(folder, tiny, command):
    tiny()
    words = ["sources", "relate", str(folder), "--experiment", "tiny", "--samples=20", "--json"]
    found = command(*words)
    assert found.status == 0, found.err
    names = [row["name"] for row in json.loads(found.out)["sources"]]
    assert names == ["child1", "child2", "imagenet_tar", "stranger"]
    assert found.err.count("left out: ") == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "empty"], "the folder empty has no weight files"),
        (["inspect", "full", "--container", "model"], "--container"),
        (["relate", "nowhere", "--experiment", "tiny"], "nowhere is not a folder"),
        (["relate", "full", "--experiment", "tiny"], "--architecture"),
    ],
)
def test_a_mistake_with_a_folder_is_named_in_one_line(tiny, command, words, message):
    tiny()
    Path("empty").mkdir()
    Path("full").mkdir()
    torch.save({"a.weight": torch.ones(2, 2)}, Path("full", "a.pth"))
    assert message in command("sources", *words).refused()


def test_parts_of_a_checkpoint_with_an_index_are_one_source(tmp_path):
    for name in ("model-00001-of-00002.bin", "model-00002-of-00002.bin"):
        torch.save({"a": torch.ones(2, 2)}, tmp_path / name)
    (tmp_path / "model.bin.index.json").write_text("{}")
    found = weights_of_folder(tmp_path)
    assert [path.name for path in found.weights] == ["model.bin.index.json"]


def test_a_folder_in_which_nothing_can_be_read_is_refused(tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"\x80\x02nothing")
    with pytest.raises(SourceError, match=r"broken\.pth"):
        inspect_folder(tmp_path)


@pytest.mark.skipif(not ZOO.is_dir(), reason="needs the zoo that others trained")
def test_a_zoo_that_others_trained_descends_from_its_imagenet_network():
    seen = inspect_folder(ZOO, "benchmarks.mobilenet025.mobilenet025")
    [group] = seen.groups
    assert len(group.files) == 6
    assert {pair.relation for pair in group.kin.pairs} == {"relatives"}
    for each in group.kin.descents:
        assert (each.parents == []) == (each.name == "imagenet_tar")
        assert each.name == "imagenet_tar" or "imagenet_tar" in each.parents
