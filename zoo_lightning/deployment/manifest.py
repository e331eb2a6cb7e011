"""What somebody must know who runs a model without this package, in plain values.

Every export carries it under the key ``zoo_lightning``: in ``config.json`` of a timm folder, in the
metadata of an ONNX file, in an extra file of a ``torch.export`` program.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from zoo_lightning import __version__
from zoo_lightning.errors import ConfigError

if TYPE_CHECKING:
    from zoo_lightning.tasks import BaseTask

KEY = "zoo_lightning"

TaskName = Literal["classification", "landmarks", "segmentation", "policy"]

TASKS: dict[str, TaskName] = {
    "ClassificationTask": "classification",
    "LandmarkTask": "landmarks",
    "SegmentationTask": "segmentation",
    "PPOTask": "policy",
}

OUTPUTS: dict[TaskName, dict[str, str]] = {
    "classification": {"logits": "(B, C): softmax over C gives the classes' probabilities"},
    "landmarks": {
        "points": "(B, K, 2): x and y as fractions of the input's width and height, whose origin "
        "is the top left corner of the top left pixel"
    },
    "segmentation": {"logits": "(B, C, h, w): scores of the classes in every cell"},
    "policy": {
        "logits": "(B, A): softmax over A gives the actions' probabilities",
        "value": "(B,): of the state",
    },
}

FACTS = {
    "classification": ("image_size", "mean", "std", "preprocessing", "classes"),
    "landmarks": ("image_size", "mean", "std", "preprocessing", "num_points", "scheme", "flip"),
    "segmentation": ("image_size", "mean", "std", "preprocessing", "classes"),
    "policy": ("game", "actions", "environment", "seed"),
}
"""What data modules tell, and a model of that task cannot be used without."""


MEMBER = {"architecture": str, "method": str}
"""What is said of each network of an ensemble."""


@dataclass(frozen=True)
class Manifest:
    """A model's inputs and outputs.

    Attributes:
        task: what it is for.
        architecture: of the network, as timm or the run calls it; of an ensemble all that its
            networks have.
        method: by which it was trained, as ``summary.json`` has it.
        input: ``name``; ``size`` ``[C, H, W]``; ``dtype``; of images ``mean`` and ``std``, by which
            values in [0, 1] are normalised channel by channel, and ``preprocessing``, see
            :mod:`zoo_lightning.predicting.inputs`.
        output: ``names`` with what each is; of classes ``classes``; of points ``num_points``,
            ``scheme``, ``flip`` and ``mirrored`` (whether the model averages with the mirror
            image); of policies ``game``, ``actions``, ``environment`` and ``seed``.
        version: of this package.
        members: of an ensemble ``architecture`` and ``method`` of each network; else empty.
    """

    task: TaskName
    architecture: str
    method: str
    input: dict[str, Any]
    output: dict[str, Any]
    version: str = __version__
    members: list[dict[str, str]] = field(default_factory=list)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def manifest_of(task: BaseTask, facts: Mapping[str, Any], mirrored: bool = False) -> Manifest:
    """The manifest of a trained task.

    Args:
        task: with its weights.
        facts: of its data, see :meth:`~zoo_lightning.data.loading.ImageDataModule.facts`.
        mirrored: whether the model averages its points with those of the mirror image.

    Raises:
        ConfigError: facts that the task needs are missing.
    """
    name = TASKS[type(task).__name__]
    absent = [key for key in FACTS[name] if key not in facts]
    if absent:
        raise ConfigError(
            f"the data do not say {', '.join(absent)}, which a model for {name} cannot be used "
            "without; a data module says it in facts()"
        )
    backbone, members = task.backbone, []
    if task.ensemble is not None:
        members = [
            {"architecture": each.backbone.architecture.label, "method": each.method}
            for each in task.networks()
        ]
    labels = [each["architecture"] for each in members] or [backbone.architecture.label]
    channels, height, width = backbone.architecture.example_input(backbone.net).shape[1:]
    given: dict[str, Any] = {"name": "images", "size": [channels, height, width]}
    output: dict[str, Any] = {"names": OUTPUTS[name]}
    if name == "policy":
        given |= {"name": "observations", "dtype": "uint8"}
        output |= {key: facts[key] for key in FACTS[name]}
    else:
        given |= {"size": [channels, facts["image_size"], facts["image_size"]], "dtype": "float32"}
        given |= {key: facts[key] for key in ("mean", "std", "preprocessing")}
        output |= {key: facts[key] for key in FACTS[name][4:]}
    if name == "landmarks":
        output["mirrored"] = mirrored
    architecture = ", ".join(dict.fromkeys(labels))
    return Manifest(name, architecture, task.method, given, output, members=members)


def read_manifest(text: str | bytes | Mapping[str, Any] | None, path: object) -> Manifest:
    """A manifest from an export's metadata.

    Args:
        text: JSON, or what it decodes to; ``None`` if there is none.
        path: of the export, for messages.

    Raises:
        ConfigError: there is none, or it is not one of ours.
    """
    if text is None:
        raise ConfigError(
            f"{path} was not exported by zoo_lightning: it does not say what its inputs and "
            "outputs are; expected what `python -m zoo_lightning export` writes"
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
            f"({type(error).__name__}: {error}); export the model anew"
        ) from error
    return manifest


def _check_images(manifest: Manifest) -> None:
    """Raise ValueError, KeyError or TypeError where numbers are not such or do not belong."""
    given, output = manifest.input, manifest.output
    for name in ("mean", "std"):
        if len([float(value) for value in given[name]]) != given["size"][0]:
            raise ValueError(f"{name} {given[name]}")
    kinds = {"landmarks": "square"}
    if given["preprocessing"]["kind"] != kinds.get(manifest.task, "crop"):
        raise ValueError(f"preprocessing {given['preprocessing']}")
    if manifest.task == "landmarks":
        int(output["num_points"])
    elif not all(isinstance(name, str) for name in output["classes"]):
        raise ValueError(f"classes {output['classes']}")
