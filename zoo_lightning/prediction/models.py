"""Models to predict with, opened from a run, a checkpoint or an export."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import timm
import torch
from torch import Tensor, nn

from zoo_lightning.deployment.formats import ONNX, TORCH_EXPORT, required
from zoo_lightning.deployment.manifest import KEY, Manifest, manifest_of, read_manifest
from zoo_lightning.deployment.modules import averages_with_mirror, deployable
from zoo_lightning.errors import ConfigError
from zoo_lightning.files.text import TEXT
from zoo_lightning.nn.heads import CoordinateHead
from zoo_lightning.runs.run_folder import CHECKPOINTS, find_checkpoint, read_checkpoint
from zoo_lightning.tasks.loading import task_from

TIMM_CONFIG, TIMM_WEIGHTS = "config.json", "model.safetensors"

RunModel = Callable[[Tensor], list[Tensor]]
"""Function from a batch of inputs to the list of the manifest's outputs, all on the CPU."""


class OpenedModel(NamedTuple):
    """Model that is ready to run.

    Attributes:
        manifest: description of inputs and outputs.
        run: function that maps a batch of inputs to the list of outputs, all on the CPU.
    """

    manifest: Manifest
    run: RunModel


def open_model(path: str | Path, device: str = "auto") -> OpenedModel:
    """Open a run, a checkpoint, a timm folder or an ONNX file.

    Args:
        path: ``.ckpt`` or ``.onnx`` file, folder of a run, or exported folder.
        device: device to run on: ``auto``, ``cpu``, ``cuda`` or ``mps``.

    Raises:
        ConfigError: the path is none of these, or the model or device cannot be used.
    """
    path = Path(path)
    if not path.exists():
        raise ConfigError(
            f"--ckpt_path {path}: there is no such file or folder; expected a run's folder, a "
            "checkpoint, 'last', 'best', a folder that export wrote, or an .onnx file"
        )
    if path.suffix == ".onnx":
        return _open_onnx(path, device)
    if path.suffix == ".pt2":
        raise ConfigError(
            f"{path} is a program for torch.export.load; predict needs a run, a checkpoint, a timm "
            "folder or an .onnx file"
        )
    if path.is_dir() and not (path / CHECKPOINTS).is_dir():
        if (path / TIMM_CONFIG).is_file():
            return _open_timm(path, device)
        if (path / ONNX).is_file():
            return _open_onnx(path / ONNX, device)
        raise ConfigError(
            f"--ckpt_path {path} is neither a run's folder nor an exported one: it has no "
            f"checkpoints/, {TIMM_CONFIG} or {ONNX}"
            + (
                f"; {TORCH_EXPORT} is for torch.export.load"
                if (path / TORCH_EXPORT).exists()
                else ""
            )
        )
    return _open_checkpoint(path, device)


def chosen_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes the first available of CUDA, MPS and the CPU.

    Raises:
        ConfigError: the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        name = "mps" if name == "cpu" and torch.backends.mps.is_available() else name
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name} cannot be used: {error}") from error


def _open_checkpoint(path: Path, device: str) -> OpenedModel:
    checkpoint = find_checkpoint(str(path), None, "")
    content = read_checkpoint(checkpoint)
    facts = content["zoo_lightning"].get("data")
    if not facts:
        raise ConfigError(
            f"{checkpoint} was written by an earlier version and does not describe how images are "
            "prepared; export it (python -m zoo_lightning export), which reads that from the run's "
            "data, and predict from the export"
        )
    task = task_from(content, checkpoint)
    mirrored = averages_with_mirror(task)
    manifest = manifest_of(task, facts, mirrored)
    return OpenedModel(manifest, _on(deployable(task, mirrored), chosen_device(device)))


def _open_timm(folder: Path, device: str) -> OpenedModel:
    config = folder / TIMM_CONFIG
    try:
        content = json.loads(config.read_text(**TEXT))
        noted = content.get(KEY)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{config} cannot be read: {error}") from error
    manifest = read_manifest(noted, config)
    if not (folder / TIMM_WEIGHTS).is_file():  # timm would look for pickles
        raise ConfigError(f"{folder} has no {TIMM_WEIGHTS}; export the model again")
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # timm and safetensors raise errors of many kinds
        raise ConfigError(f"timm cannot open {folder}: {error}; export the model again") from error
    if manifest.task == "landmarks":
        model = _Points(model, manifest)
    return OpenedModel(manifest, _on(model, chosen_device(device)))


class _Points(nn.Module):
    """Landmarks from a timm model's classifier, averaged with the mirror image if ``mirrored``."""

    flip: Tensor | None

    def __init__(self, model: nn.Module, manifest: Manifest) -> None:
        super().__init__()
        self.model = model
        self.head = CoordinateHead(1, manifest.output["num_points"])  # only decodes the output
        flip = manifest.output["flip"] if manifest.output["mirrored"] else None
        self.register_buffer("flip", None if flip is None else torch.tensor(flip))

    def forward(self, images: Tensor) -> Tensor:
        """Points ``(B, K, 2)``, fractions of the image, for images ``(B, 3, H, W)``."""
        raw = self.model(images)
        if self.flip is not None:
            raw = (raw + self.head.mirrored(self.model(images.flip(-1)), self.flip)) / 2
        return self.head.points(raw)


def _on(module: nn.Module, device: torch.device) -> RunModel:
    module = module.to(device)

    @torch.inference_mode()
    def run(inputs: Tensor) -> list[Tensor]:
        inputs = inputs.to(device).contiguous(memory_format=torch.channels_last)
        found = module(inputs)
        return [each.cpu() for each in ([found] if isinstance(found, Tensor) else found)]

    return run


def _open_onnx(path: Path, device: str) -> OpenedModel:
    onnxruntime = required("onnxruntime")
    if not path.is_file():
        raise ConfigError(f"--ckpt_path {path}: there is no such file")
    wanted = {"cuda": ["CUDAExecutionProvider"], "cpu": ["CPUExecutionProvider"]}
    present = onnxruntime.get_available_providers()
    providers = wanted.get(device, [each for [each] in wanted.values() if each in present])
    if not set(providers) <= set(present):
        raise ConfigError(f"--device {device}: the installed onnxruntime supports only {present}")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=providers)
        noted = session.get_modelmeta().custom_metadata_map.get(KEY)
    except Exception as error:  # onnxruntime has many error classes
        raise ConfigError(f"{path} is not an ONNX file that can be run: {error}") from error
    manifest = read_manifest(noted, path)
    names, given = list(manifest.output["names"]), manifest.input["name"]
    if [each.name for each in session.get_inputs()] != [given]:
        raise ConfigError(f"{path} must have one input, {given!r}, as its metadata specify")

    def run(inputs: Tensor) -> list[Tensor]:
        return [torch.from_numpy(y) for y in session.run(names, {given: inputs.numpy()})]

    return OpenedModel(manifest, run)
