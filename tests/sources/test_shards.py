"""Weights in several files, folders as the hub has them, and a container that is asked for."""

import json

import pytest
import timm
import torch
from safetensors.torch import save_file

from zoo_lightning.errors import SourceError
from zoo_lightning.sources.inspecting import inspect
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.spec import parse_source
from zoo_lightning.sources.zoo import load_sources

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=10).state_dict()


@pytest.fixture
def sharded(tmp_path, state):
    """A folder of two parts, one of which has no kernels, with an index and what timm writes."""
    flat = [key for key, value in state.items() if value.ndim < 2]
    parts = {"model-00001-of-00002.safetensors": [key for key in state if key not in flat]}
    parts["model-00002-of-00002.safetensors"] = flat
    for name, keys in parts.items():
        save_file({key: state[key].contiguous() for key in keys}, tmp_path / name)
    places = {key: name for name, keys in parts.items() for key in keys}
    (tmp_path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    config = {
        "architecture": "test_resnet",
        "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.2] * 3},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def read(weights, architecture="test_resnet", **options):
    return read_weights(parse_source({"weights": str(weights), **options}), architecture)


def test_parts_are_read_through_their_folder_or_index(sharded, state, assert_same):
    for given in (sharded, sharded / INDEX):
        assert_same(dict(sorted(read(given).state.items())), dict(sorted(state.items())))
    for given in (sharded, sharded / INDEX):
        assert read(given).normalisation == Normalisation((0.5,) * 3, (0.2,) * 3)
    assert inspect(parse_source(str(sharded / INDEX)), "test_resnet").tensors == len(state)
    assert inspect(parse_source(str(sharded)), "test_resnet").tensors == len(state)


def test_parts_are_in_no_container(sharded):
    for given in (sharded, sharded / INDEX):
        with pytest.raises(SourceError, match="in no container: leave out container 'model'"):
            read(given, container="model")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_as_the_hub_has_it_is_a_source(name, tmp_path, state, assert_same):
    tensors = {key: value.contiguous() for key, value in state.items()}
    path = tmp_path / name
    save_file(tensors, path) if name.endswith("safetensors") else torch.save(tensors, path)
    found = read(tmp_path)
    assert_same(dict(sorted(found.state.items())), dict(sorted(state.items())))
    assert found.normalisation is None
    (tmp_path / "config.json").write_text("not JSON")
    assert read(tmp_path).normalisation is None


def test_what_cannot_be_read_is_refused_by_name(sharded):
    with pytest.raises(SourceError, match="is one of 2 parts: give the folder"):
        read(sharded / "model-00001-of-00002.safetensors")
    part = inspect(parse_source(str(sharded / "model-00001-of-00002.safetensors")))
    assert part.kind == f"safetensors, one of 2 parts: give the folder, or {INDEX}"
    with pytest.raises(SourceError, match="is of architecture test_resnet, but resnet18"):
        read(sharded, "resnet18")
    with pytest.raises(SourceError, match="match: order would mix them up"):
        read(sharded, match="order")
    (sharded / "model-00002-of-00002.safetensors").rename(sharded / "away")
    with pytest.raises(SourceError, match="is missing, one of 2 parts"):
        read(sharded)
    index = json.loads((sharded / INDEX).read_text())
    index["weight_map"] = dict.fromkeys(index["weight_map"], "../elsewhere.safetensors")
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(SourceError, match="does not lie beside it"):
        read(sharded)
    index["weight_map"] = {"nothing.weight": "model-00001-of-00002.safetensors"}
    (sharded / INDEX).write_text(json.dumps(index))
    with pytest.raises(SourceError, match=r"lack 'nothing\.weight'"):
        read(sharded)
    (sharded / INDEX).write_text("[]")
    with pytest.raises(SourceError, match="is no index of weights"):
        read(sharded)


def test_a_container_may_be_asked_for(tmp_path, state, assert_same):
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    path = tmp_path / "two.pth"
    torch.save({"student": {"net": state}, "teacher": other, "epoch": 3}, path)
    assert_same(read(path).state, other)
    assert_same(read(path, container="student").state, state)
    assert_same(read(path, container="student.net").state, state)
    for wanted, said in (
        ("studnet", r"Did you mean 'student'\?.*Mappings there: student, teacher"),
        ("student.nett", "there is no 'nett'"),
        ("epoch", "no weights under 'epoch': found int"),
    ):
        with pytest.raises(SourceError, match=said):
            read(path, container=wanted)
    with pytest.raises(SourceError, match="which is of weight files; random:1 is none"):
        parse_source({"weights": "random:1", "container": "model"})


@pytest.mark.parametrize(
    ("trained", "average"),
    [
        ("params", "params_ema"),
        ("model", "ema_model"),
        ("model_state_dict", "model_ema_state_dict"),
        ("state_dict", "swa_state_dict"),
        ("model", "averagedModel"),
        ("net", "EMA"),
        ("student_state_dict", "teacher_state_dict"),
    ],
)
@pytest.mark.parametrize("first", ["trained", "average"])
def test_an_average_of_any_name_goes_before_what_was_trained(
    trained, average, first, tmp_path, state, assert_same
):
    other = {key: torch.zeros_like(value) for key, value in state.items()}
    content = {trained: other, average: state, "epoch": 3}
    if first == "average":
        content = dict(reversed(content.items()))
    torch.save(content, tmp_path / "two.pth")
    reference = timm.create_model("test_resnet", num_classes=0).state_dict()
    source = parse_source(str(tmp_path / "two.pth"))
    (found,) = load_sources([source], "test_resnet", reference)
    assert all(torch.equal(value, state[key]) for key, value in found.state.items())
    assert trained in found.report.summary()


def test_a_head_of_the_teacher_is_no_average_of_the_network(tmp_path, state, assert_same):
    head = {"mlp.0.weight": torch.zeros(8, 8)}
    torch.save({"model": state, "teacher_head": head}, tmp_path / "head.pth")
    assert_same(read(tmp_path / "head.pth").state, state)
