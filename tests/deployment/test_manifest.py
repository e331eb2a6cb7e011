"""What an export says of itself."""

import json
from dataclasses import asdict

import pytest

from zoo_lightning import ClassificationTask, DrawnFaces, LandmarkTask, PlainBackbone
from zoo_lightning.deployment.manifest import manifest_of, read_manifest
from zoo_lightning.errors import ConfigError

FACTS = {
    "image_size": 16,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "classes": ["ant", "bee"],
    "preprocessing": {"kind": "crop", "squeeze": None, "crops": 1},
}


@pytest.fixture(scope="module")
def manifest():
    return manifest_of(ClassificationTask(PlainBackbone("test_resnet"), num_classes=2), FACTS)


def test_a_manifest_is_read_as_it_was_written(manifest):
    assert manifest.task == "classification"
    assert manifest.input["size"] == [3, 16, 16]
    assert manifest.output["classes"] == ["ant", "bee"]
    assert read_manifest(manifest.to_json(), "m.onnx") == manifest
    assert read_manifest(asdict(manifest), "config.json") == manifest


def test_drawn_faces_say_all_that_a_model_of_points_needs():
    task = LandmarkTask(PlainBackbone("test_resnet"), num_points=5)
    found = manifest_of(task, DrawnFaces(num_points=5, image_size=24).facts(), mirrored=True)
    assert found.input["size"] == [3, 24, 24]
    assert found.output["num_points"] == 5
    assert found.output["flip"] == [1, 0, 2, 4, 3]
    assert found.output["mirrored"] is True


def test_data_that_do_not_say_enough_are_refused():
    task = ClassificationTask(PlainBackbone("test_resnet"), num_classes=2)
    facts = {key: value for key, value in FACTS.items() if key != "classes"}
    with pytest.raises(ConfigError, match="lack classes"):
        manifest_of(task, facts)


DAMAGES = {
    "no number": lambda content: content["input"].update(size=["a", 2, 3]),
    "another task": lambda content: content.update(task="poetry"),
    "outputs of another task": lambda content: content.update(task="landmarks"),
    "no input": lambda content: content.pop("input"),
    "too few means": lambda content: content["input"].update(mean=[0.5]),
    "another preprocessing": lambda content: content["input"]["preprocessing"].update(kind="x"),
    "classes that are no names": lambda content: content["output"].update(classes=[1, 2]),
    "a network without a method": lambda content: content.update(members=[{"architecture": "x"}]),
    "nothing of ours": lambda content: content.clear(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_metadata_are_refused_by_name(manifest, damage):
    content = json.loads(manifest.to_json())
    DAMAGES[damage](content)
    with pytest.raises(ConfigError, match=r"m\.onnx: its metadata .* export the model again"):
        read_manifest(json.dumps(content), "m.onnx")


def test_metadata_that_are_no_json_or_absent_are_refused():
    with pytest.raises(ConfigError, match="damaged"):
        read_manifest("{", "m.onnx")
    with pytest.raises(ConfigError, match=r"m\.onnx was not exported by zoo_lightning"):
        read_manifest(None, "m.onnx")
