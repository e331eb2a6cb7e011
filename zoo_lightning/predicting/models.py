"""Models to predict with, opened from whatever form they were kept in."""

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
from zoo_lightning.heads import CoordinateHead
from zoo_lightning.run_folder import find_checkpoint, read_checkpoint
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.text_files import TEXT

TIMM_CONFIG, TIMM_WEIGHTS = "config.json", "model.safetensors"

Run = Callable[[Tensor], list[Tensor]]
"""From a batch of inputs on the CPU to the outputs of the manifest, on the CPU."""


class Opened(NamedTuple):
    """A model ready to run.

    Attributes:
        manifest: what goes in and comes out.
        run: the model.
    """

    manifest: Manifest
    run: Run


def open_model(path: str | Path, device: str = "auto") -> Opened:
    """Open a run, a checkpoint, a timm folder or an ONNX file.

    Args:
        path: of a ``.ckpt``, an ``.onnx``, a run's folder or an exported one.
        device: ``auto``, ``cpu``, ``cuda``, ``mps``.

    Raises:
        ConfigError: none of these, or it cannot be used.
    """
    path = Path(path)
    if path.suffix == ".onnx":
        return _open_onnx(path, device)
    if path.suffix == ".pt2":
        raise ConfigError(
            f"{path} is a program for torch.export.load; predict takes runs, checkpoints, timm "
            "folders and .onnx files"
        )
    if path.is_dir() and not (path / "checkpoints").is_dir():
        if (path / TIMM_CONFIG).is_file():
            return _open_timm(path, device)
        if (path / ONNX).is_file():
            return _open_onnx(path / ONNX, device)
        raise ConfigError(
            f"--ckpt {path} is neither a run's folder nor an exported one: it has no checkpoints/, "
            f"{TIMM_CONFIG} or {ONNX}"
            + (
                f"; {TORCH_EXPORT} is for torch.export.load"
                if (path / TORCH_EXPORT).exists()
                else ""
            )
        )
    return _open_checkpoint(path, device)


def chosen_device(name: str) -> torch.device:
    """The device that is meant.

    Raises:
        ConfigError: it is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        name = "mps" if name == "cpu" and torch.backends.mps.is_available() else name
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {name} cannot be used: {error}") from error


def _open_checkpoint(path: Path, device: str) -> Opened:
    checkpoint = find_checkpoint(str(path), None, "", "--ckpt")
    facts = read_checkpoint(checkpoint)["zoo_lightning"].get("data")
    if not facts:
        raise ConfigError(
            f"{checkpoint} was written by an earlier version, which did not note how images are "
            "prepared; export it (python -m zoo_lightning export), which takes that from the run's "
            "data, and predict from the export"
        )
    task = load_task(checkpoint)
    mirrored = averages_with_mirror(task)
    manifest = manifest_of(task, facts, mirrored)
    return Opened(manifest, _on(deployable(task, mirrored), chosen_device(device)))


def _open_timm(folder: Path, device: str) -> Opened:
    config = folder / TIMM_CONFIG
    try:
        content = json.loads(config.read_text(**TEXT))
        noted = content.get(KEY)
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{config} cannot be read: {error}") from error
    manifest = read_manifest(noted, config)
    if not (folder / TIMM_WEIGHTS).is_file():  # timm would go on to look for pickles
        raise ConfigError(f"{folder} has no {TIMM_WEIGHTS}; export the model anew")
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    except Exception as error:  # timm and safetensors raise whatever the files lead them to
        raise ConfigError(f"timm cannot open {folder}: {error}; export the model anew") from error
    if manifest.task == "landmarks":
        model = _Points(model, manifest)
    return Opened(manifest, _on(model, chosen_device(device)))


class _Points(nn.Module):
    """Points from the classifier of a timm model, averaged with the mirror image if so noted."""

    def __init__(self, model: nn.Module, manifest: Manifest) -> None:
        super().__init__()
        self.model = model
        self.head = CoordinateHead(1, manifest.output["num_points"])  # for its arithmetic alone
        flip = manifest.output["flip"] if manifest.output["mirrored"] else None
        self.register_buffer("flip", None if flip is None else torch.tensor(flip))

    def forward(self, images: Tensor) -> Tensor:
        """``(B, K, 2)``, fractions of the image."""
        raw = self.model(images)
        if self.flip is not None:
            raw = (raw + self.head.mirrored(self.model(images.flip(-1)), self.flip)) / 2
        return self.head.points(raw)


def _on(module: nn.Module, device: torch.device) -> Run:
    module = module.to(device)

    @torch.inference_mode()
    def run(inputs: Tensor) -> list[Tensor]:
        inputs = inputs.to(device).contiguous(memory_format=torch.channels_last)
        found = module(inputs)
        return [each.cpu() for each in ([found] if isinstance(found, Tensor) else found)]

    return run


def _open_onnx(path: Path, device: str) -> Opened:
    onnxruntime = required("onnxruntime")
    if not path.is_file():
        raise ConfigError(f"--ckpt {path}: there is no such file")
    wanted = {"cuda": ["CUDAExecutionProvider"], "cpu": ["CPUExecutionProvider"]}
    present = onnxruntime.get_available_providers()
    providers = wanted.get(device, [each for [each] in wanted.values() if each in present])
    if not set(providers) <= set(present):
        raise ConfigError(f"--device {device}: the installed onnxruntime has only {present}")
    try:
        session = onnxruntime.InferenceSession(str(path), providers=providers)
        noted = session.get_modelmeta().custom_metadata_map.get(KEY)
    except Exception as error:  # onnxruntime has an error class of its own for each kind
        raise ConfigError(f"{path} is not an ONNX file that can be run: {error}") from error
    manifest = read_manifest(noted, path)
    names, given = list(manifest.output["names"]), manifest.input["name"]
    if [each.name for each in session.get_inputs()] != [given]:
        raise ConfigError(f"{path} does not have the one input {given!r} that its metadata name")

    def run(inputs: Tensor) -> list[Tensor]:
        return [torch.from_numpy(y) for y in session.run(names, {given: inputs.numpy()})]

    return Opened(manifest, run)
