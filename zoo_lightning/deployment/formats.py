"""Formats of an export: each function writes a model to a folder and checks the written file."""

from __future__ import annotations

import io
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from zoo_lightning.deployment.manifest import KEY, Manifest
from zoo_lightning.errors import ConfigError, ExportError
from zoo_lightning.models.backbone import Headed
from zoo_lightning.tasks import BaseTask

ONNX, TORCH_EXPORT = "model.onnx", "model.pt2"
TORCH_EXPORT_EXTRA = f"{KEY}.json"

TOLERANCE = 1e-4
"""Largest difference between an export and the network, relative to the largest output."""

ODD = 0.01
"""Largest fraction of the outputs that may exceed :data:`TOLERANCE`: rounding decides which of two
nearly equal cells of a heat map is the largest."""


def write_timm(task: BaseTask, module: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Write a folder in timm's layout for the Hub: ``config.json`` and ``model.safetensors``.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` opens it. Landmarks are the ``2 K``
    outputs of the classifier: x and y of the first point, then of the second, and so on. Numbers
    are its outputs in the targets' units.

    Args:
        task: trained task.
        module: network to deploy; not used.
        manifest: manifest of the model.
        folder: folder to write to.

    Raises:
        ConfigError: timm lacks the architecture, or does not support the head.
        ExportError: outputs of the written model differ from the task's.
        OSError: the files cannot be written.
    """
    backbone = task.backbone
    if not backbone.architecture.is_timm:
        raise ConfigError(
            f"timm has no architecture {backbone.architecture.label!r}; use --format onnx or "
            "torch-export"
        )
    model = task.fold()
    if isinstance(model, Headed):
        raise ConfigError(
            f"timm does not support a {type(task.head).__name__} on "
            f"{backbone.architecture.output} features of {backbone.architecture.label}; use "
            "--format onnx or torch-export"
        )
    attributes = vars(model)
    attributes["pretrained_cfg"] = {**attributes["pretrained_cfg"], **_timm_config(manifest)}
    config: dict[str, Any] = {KEY: asdict(manifest)}
    if manifest.task in ("classification", "multi-label"):
        config["label_names"] = manifest.output["classes"]
    try:
        channels = manifest.input["size"][0]
        timm.models.save_for_hf(
            model,
            str(folder),
            model_config=config,
            model_args=None if channels == 3 else {"in_chans": channels},
            safe_serialization=True,
        )
    except SafetensorError as error:  # raised for a full disk, too
        raise OSError(str(error)) from error
    written = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = example_of(manifest, 2)
    with torch.inference_mode():
        _compare("timm's model", [task.cpu().head(task.backbone(images))], [written(images)])


def _timm_config(manifest: Manifest) -> dict[str, Any]:
    """Preprocessing in timm's terms; the manifest holds what timm has no key for."""
    size = manifest.input["size"]
    given = manifest.input["preprocessing"]
    squeeze = given.get("squeeze")
    return {
        "input_size": tuple(size),
        "mean": tuple(manifest.input["mean"]),
        "std": tuple(manifest.input["std"]),
        "interpolation": "bicubic" if squeeze else "bilinear",
        "crop_pct": _crop_share(size[-1], squeeze or size[-1]),
        "crop_mode": "squash" if squeeze else "center",
        "test_input_size": None,
        "test_crop_pct": None,
        "pool_size": None,
        "tag": None,
        "license": None,
        "label_names": None,
        "label_descriptions": None,
    }


def _crop_share(crop: int, whole: int) -> float:
    """Value of timm's ``crop_pct``: timm resizes to ``crop / crop_pct``, rounded down."""
    share = crop / whole
    return share if math.floor(crop / share) == whole else crop / (whole + 0.5)


def write_onnx(task: BaseTask, module: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Write ``model.onnx`` for any batch size, with the manifest in its metadata.

    Args:
        task: trained task; not used.
        module: network to deploy.
        manifest: manifest of the model.
        folder: folder to write to.

    Raises:
        ConfigError: onnx, onnxscript or onnxruntime is not installed.
        ExportError: outputs of the written model differ from the network's.
    """
    onnxruntime = required("onnxruntime", "onnx", "onnxscript")
    example = example_of(manifest, 2)
    with _quiet():
        program = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=({0: "batch"},),
            input_names=[manifest.input["name"]],
            output_names=list(manifest.output["names"]),
            verbose=False,
        )
    assert program is not None  # as with dynamo=True
    program.model.metadata_props[KEY] = manifest.to_json()
    program.save(str(folder / ONNX), external_data=False)
    session = onnxruntime.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
    _check(
        "onnxruntime",
        module,
        manifest,
        lambda x: [torch.from_numpy(y) for y in session.run(None, {manifest.input["name"]: x})],
    )


def write_torch_export(task: BaseTask, module: nn.Module, manifest: Manifest, folder: Path) -> None:
    """Write ``model.pt2`` for any batch size, a ``torch.export`` program with the manifest.

    ``torch.export.load(path, extra_files={"zoo_lightning.json": ""})`` opens it.

    Args:
        task: trained task; not used.
        module: network to deploy.
        manifest: manifest of the model.
        folder: folder to write to.

    Raises:
        ExportError: outputs of the written program differ from the network's.
    """
    # Without a largest size, torch 2.7 fails on the size 2^63 - 1.
    batch = torch.export.Dim("batch", max=2**31 - 1)
    program = torch.export.export(
        module, (example_of(manifest, 2),), dynamic_shapes=({0: batch},), strict=False
    )
    # Saved to memory first: on a full disk torch's own writer ends the process.
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={TORCH_EXPORT_EXTRA: manifest.to_json()})
    (folder / TORCH_EXPORT).write_bytes(stream.getvalue())
    stream.seek(0)
    written = torch.export.load(stream).module()

    def run(x: np.ndarray) -> list[Tensor]:
        y = written(torch.from_numpy(x))
        return [y] if isinstance(y, Tensor) else list(y)

    _check("the exported program", module, manifest, run)


FORMATS: dict[str, Callable[[BaseTask, nn.Module, Manifest, Path], None]] = {
    "timm": write_timm,
    "onnx": write_onnx,
    "torch-export": write_torch_export,
}


def example_of(manifest: Manifest, samples: int) -> Tensor:
    """Make a random input batch in the shape and type of the manifest.

    Args:
        manifest: manifest of the model.
        samples: number of samples in the batch.
    """
    generator = torch.Generator().manual_seed(0)
    size = (samples, *manifest.input["size"])
    if manifest.input["dtype"] == "uint8":
        return torch.randint(256, size, generator=generator, dtype=torch.uint8)
    return torch.randn(size, generator=generator)


def required(name: str, *others: str) -> Any:
    """Import a package of the extra ``export``, and check that others can be imported.

    Args:
        name: name of the package to return.
        others: names of further packages that are needed.

    Raises:
        ConfigError: one of them is not installed.
    """
    import importlib

    try:
        for other in others:
            importlib.import_module(other)
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs {', '.join([*others, name])}, of which one cannot be imported ({error}): "
            "pip install -e '.[export]'"
        ) from error


def _check(
    name: str, module: nn.Module, manifest: Manifest, run: Callable[[np.ndarray], list[Tensor]]
) -> None:
    """Compare an export with the network, on batches of sizes that it was not traced with."""
    for samples in (1, 3):
        x = example_of(manifest, samples)
        with torch.inference_mode():
            y = module(x)
        _compare(name, [y] if isinstance(y, Tensor) else list(y), run(x.numpy()))


def _compare(name: str, wanted: list[Tensor], found: list[Tensor]) -> None:
    """Raise an ExportError if the outputs of an export differ from those of the network."""
    for ours, theirs in zip(wanted, found, strict=True):
        away = (ours - theirs).abs() > TOLERANCE * ours.abs().max().clamp(min=1e-6)
        if ours.shape != theirs.shape or float(away.float().mean()) > ODD:
            raise ExportError(
                f"outputs of {name} differ from the checkpoint's by up to "
                f"{float((ours - theirs).abs().max()):.3g}; nothing was exported. Please report it"
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the warnings and log messages of the exporter."""
    loggers = [logging.getLogger(name) for name in ("onnxscript", "onnx_ir", "torch.onnx")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
