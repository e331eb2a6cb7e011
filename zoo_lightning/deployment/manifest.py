"""Manifest of an exported model: its inputs and outputs, for users without this package.

Every export holds it as JSON under the key ``zoo_lightning``: in ``config.json`` of a timm folder,
in the metadata of an ONNX file, in an extra file of a ``torch.export`` program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from zoo_lightning import __version__
from zoo_lightning.data.bands import BandReader, reader_from
from zoo_lightning.data.values import parse_value_range
from zoo_lightning.errors import ConfigError
from zoo_lightning.rl.environments.atari import FRAME_SIZE

if TYPE_CHECKING:
    from zoo_lightning.tasks import BaseTask

KEY = "zoo_lightning"

TaskName = Literal[
    "classification", "multi-label", "landmarks", "regression", "segmentation", "policy"
]

TASKS: dict[str, TaskName] = {
    "ClassificationTask": "classification",
    "MultiLabelTask": "multi-label",
    "LandmarkTask": "landmarks",
    "RegressionTask": "regression",
    "SegmentationTask": "segmentation",
    "PPOTask": "policy",
}

OUTPUTS: dict[TaskName, dict[str, str]] = {
    "classification": {"logits": "(B, C): softmax over C gives the classes' probabilities"},
    "multi-label": {
        "logits": "(B, L): the sigmoid of each gives the label's probability; an image has the "
        "labels whose probability reaches their threshold"
    },
    "landmarks": {
        "points": "(B, K, 2): x and y as fractions of the input's width and height, whose origin "
        "is the top left corner of the top left pixel"
    },
    "regression": {
        "numbers": "(B, T): a number for each of `targets`, in the training data's units"
    },
    "segmentation": {
        "logits": "(B, C, h, w): softmax over C gives the classes' probabilities in every cell"
    },
    "policy": {
        "logits": "(B, A): softmax over A gives the actions' probabilities",
        "value": "(B,): of the state",
    },
}

FACTS = {
    "classification": ("image_size", "mean", "std", "preprocessing", "classes"),
    "multi-label": ("image_size", "mean", "std", "preprocessing", "classes"),
    "landmarks": ("image_size", "mean", "std", "preprocessing", "num_points", "scheme", "flip"),
    "regression": ("image_size", "mean", "std", "preprocessing", "targets"),
    "segmentation": ("image_size", "mean", "std", "preprocessing", "classes"),
    "policy": ("game", "actions", "environment", "seed"),
}
"""Facts about the data that a model of each task needs, see ``facts()`` of the data modules."""

MEMBER = {"architecture": str, "method": str}
"""Keys and types of the entry for each network of an ensemble."""


@dataclass(frozen=True)
class Manifest:
    """Description of an exported model's inputs and outputs.

    Attributes:
        task: task of the model: ``classification``, ``multi-label``, ``landmarks``, ``regression``,
            ``segmentation`` or ``policy``.
        architecture: timm name or import path of the architecture; for an ensemble, those of all
            networks, separated by commas.
        method: training method, as in ``summary.json``.
        input: ``name``; ``size`` ``[C, H, W]``; ``dtype``; for images also ``mean`` and ``std``, by
            which values in [0, 1] are normalised channel by channel, ``preprocessing``, see
            :mod:`zoo_lightning.prediction.inputs`, and, if training images had more than 8 bits,
            ``value_range``, the values of an image that become 0 and 1, and for images of chosen
            bands ``bands``, see :meth:`zoo_lightning.data.bands.BandReader.as_dict`.
        output: ``names`` with the meaning of each output; for classification ``classes``; for
            multi-label ``classes`` and ``thresholds``, the probability of each from which on an
            image has it; for landmarks ``num_points``, ``scheme``, ``flip`` and ``mirrored``
            (whether the model averages with the mirror image); for regression ``targets``, the
            names of the numbers; for policies ``game``, ``actions``, ``environment`` and ``seed``.
        version: version of this package.
        members: ``architecture`` and ``method`` of each network of an ensemble; else empty.
    """

    task: TaskName
    architecture: str
    method: str
    input: dict[str, Any]
    output: dict[str, Any]
    version: str = __version__
    members: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> str:
        """Format the manifest as JSON in one line."""
        return json.dumps(asdict(self))


def manifest_of(task: BaseTask, facts: Mapping[str, Any], mirrored: bool = False) -> Manifest:
    """Build the manifest of a trained task.

    Args:
        task: trained task.
        facts: facts about its data, see :meth:`~zoo_lightning.data.loading.ImageDataModule.facts`.
        mirrored: whether the model averages its points with those of the mirror image.

    Raises:
        ConfigError: facts that the task needs are missing.
    """
    name = TASKS[type(task).__name__]
    absent = [key for key in FACTS[name] if key not in facts]
    if absent:
        raise ConfigError(
            f"the data lack {', '.join(absent)}, which a model for {name} needs; return it from "
            "facts() of the data module"
        )
    backbone, members = task.backbone, []
    if task.ensemble is not None:
        members = [
            {"architecture": each.backbone.architecture.label, "method": each.method}
            for each in task.networks()
        ]
    labels = [each["architecture"] for each in members] or [backbone.architecture.label]
    channels = backbone.architecture.example_input(backbone.net).shape[1]
    output: dict[str, Any] = {"names": OUTPUTS[name]}
    if name == "policy":
        size = [channels, FRAME_SIZE, FRAME_SIZE]
        given: dict[str, Any] = {"name": "observations", "size": size, "dtype": "uint8"}
        output |= {key: facts[key] for key in FACTS[name]}
    else:
        size = [channels, facts["image_size"], facts["image_size"]]
        given = {"name": "images", "size": size, "dtype": "float32"}
        given |= {key: facts[key] for key in ("mean", "std", "preprocessing")}
        given |= {key: facts[key] for key in ("value_range", "bands") if key in facts}
        output |= {key: facts[key] for key in FACTS[name][4:]}
    if name == "multi-label":
        output["thresholds"] = task.get_buffer("thresholds").tolist()
    if name == "landmarks":
        output["mirrored"] = mirrored
    architecture = ", ".join(dict.fromkeys(labels))
    return Manifest(name, architecture, task.method, given, output, members=members)


def read_manifest(text: str | bytes | Mapping[str, Any] | None, path: object) -> Manifest:
    """Read and check the manifest in an export's metadata.

    Args:
        text: JSON text, or the decoded mapping; ``None`` if the metadata lack it.
        path: path of the export, for messages.

    Raises:
        ConfigError: the manifest is missing or damaged.
    """
    if text is None:
        raise ConfigError(
            f"{path} was not exported by zoo_lightning: it has no description of its inputs and "
            "outputs; expected an export of `python -m zoo_lightning export`"
        )
    try:
        content = json.loads(text) if isinstance(text, (str, bytes)) else dict(text)
        # Earlier versions exported no ensembles.
        content.setdefault("members", [])
        manifest = Manifest(**{f.name: content[f.name] for f in fields(Manifest)})
        channels, height, width = map(int, manifest.input["size"])
        known = manifest.output["names"].keys() == OUTPUTS[manifest.task].keys()
        if not known or min(channels, height, width) < 1:
            raise ValueError(f"inputs {manifest.input['size']}, outputs {manifest.output['names']}")
        for each in manifest.members:
            if {key: type(value) for key, value in each.items()} != MEMBER:
                raise ValueError(f"members {manifest.members}")
        if manifest.task != "policy":
            _check_images(manifest)
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path}: its metadata {KEY!r} are damaged or of another version "
            f"({type(error).__name__}: {error}); export the model again"
        ) from error
    return manifest


def reader_of(given: Mapping[str, Any]) -> BandReader | None:
    """Build the reader of images of chosen bands from a manifest's input; ``None`` for RGB.

    Raises:
        KeyError, TypeError, ValueError: the entry is damaged.
    """
    if "bands" not in given:
        return None
    return reader_from(given["bands"], given.get("value_range"), given["mean"], given["std"])


def _check_images(manifest: Manifest) -> None:
    """Raise ValueError, KeyError or TypeError for values of a wrong type or size."""
    given, output = manifest.input, manifest.output
    for name in ("mean", "std"):
        if len([float(value) for value in given[name]]) != given["size"][0]:
            raise ValueError(f"{name} {given[name]}")
    if "value_range" in given:
        parse_value_range(given["value_range"])
    reader_of(given)
    kinds = {"landmarks": ("square",), "segmentation": ("square", "crop")}
    if given["preprocessing"]["kind"] not in kinds.get(manifest.task, ("crop",)):
        raise ValueError(f"preprocessing {given['preprocessing']}")
    if manifest.task == "landmarks":
        int(output["num_points"])
    elif manifest.task == "regression":
        if not output["targets"] or not all(isinstance(name, str) for name in output["targets"]):
            raise ValueError(f"targets {output['targets']}")
    elif not all(isinstance(name, str) for name in output["classes"]):
        raise ValueError(f"classes {output['classes']}")
    if manifest.task == "multi-label":
        thresholds = [float(each) for each in output["thresholds"]]
        if len(thresholds) != len(output["classes"]):
            raise ValueError(f"thresholds {thresholds}")
