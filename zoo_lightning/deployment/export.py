"""From a checkpoint to a folder for those who do not have this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo_lightning.deployment.averaging import Averaged, fold_by_average
from zoo_lightning.deployment.formats import FORMATS, ONNX, TORCH_EXPORT, card
from zoo_lightning.deployment.manifest import TASKS, Manifest, manifest_of
from zoo_lightning.deployment.modules import (
    averages_with_mirror,
    deployable,
    is_full,
    knows_mirror,
)
from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiment_sources import run_data
from zoo_lightning.matched_zoo import refuse_full
from zoo_lightning.run_folder import find_checkpoint, read_checkpoint
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_folder

CARD = "README.md"

FILES = (CARD, "config.json", "model.safetensors", ONNX, TORCH_EXPORT)
"""Of all formats."""


def export(
    checkpoint: str | Path,
    formats: str | Sequence[str],
    output: str | Path,
    *,
    fold: bool = False,
    mirrored: bool | None = None,
    overwrite: bool = False,
    data: Callable[[], Any] | None = None,
    say: Callable[[str], object] = print,
) -> Path:
    """Write a trained model for timm, onnxruntime or ``torch.export``.

    Args:
        checkpoint: a ``.ckpt`` of a run or of an ensemble, or the run's folder, whose best
            checkpoint is taken.
        formats: ``timm``, ``onnx``, ``torch-export``, or several of them; an ensemble is one graph
            of all its networks, which ``timm`` has no form for.
        output: folder to write; it appears when it is complete.
        fold: a full zoo's kernels of its average gates in place of a mixture for each sample.
        mirrored: of landmarks, whether the model averages with the mirror image; ``None`` does as
            the run's own test does.
        overwrite: write to a folder that has files; those of an earlier export are replaced.
        data: makes the data module that ``fold`` is measured on, and which says how images are
            prepared where the checkpoint does not; ``None`` takes the run's own.
        say: gets lines for people to read.

    Returns:
        The folder.

    Raises:
        ConfigError: no such checkpoint or format, one that does not go with the model, or a folder
            that has files or cannot be written.
        DataError: as the data raise it, where they are needed.
        ExportError: what was written does not compute what the checkpoint does.
    """
    wanted = _known_formats(formats)
    output = Path(output)
    refuse_full(output, overwrite)
    path = find_checkpoint(str(checkpoint), None, "", "--ckpt")
    noted = read_checkpoint(path)["zoo_lightning"]
    task = load_task(path)
    full = any(map(is_full, task.networks()))
    _refuse(task, wanted, full, fold)
    facts, module = noted.get("data"), None
    if not facts or (full and fold):
        module = data() if data else run_data(path)
    facts = facts or module.facts()
    if mirrored is None:
        mirrored = averages_with_mirror(task)
    elif mirrored and not knows_mirror(task):
        raise ConfigError(
            f"--mirrored true: this {type(task).__name__} does not know which points swap in the "
            "mirror image; leave it out"
        )
    method = task.method
    if full and fold:
        averaged = fold_by_average(task, module)
        say(described(averaged))
        task, method = averaged.task, f"{method}, folded by average gates"
    manifest = replace(manifest_of(task, facts, mirrored), method=method)
    network = deployable(task, mirrored)
    with whole_folder(output, FILES) as folder:
        for name in wanted:
            FORMATS[name](task, network, manifest, folder)
        (folder / CARD).write_text(card(manifest, wanted), **TEXT)
        files = sorted(file.name for file in folder.iterdir())
    say(f"{path}: {manifest.task}, {manifest.architecture}, {method}")
    for note in notes(manifest, wanted):
        say(note)
    say(f"wrote {', '.join(files)} to {output}")
    return output


def _known_formats(formats: str | Sequence[str]) -> list[str]:
    wanted = formats.split(",") if isinstance(formats, str) else list(formats)
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(
                f"unknown format {name!r}; expected {', '.join(FORMATS)}, or several of them with "
                f"commas between.{nearest(name, FORMATS)}"
            )
    return list(dict.fromkeys(wanted))


def _refuse(task: BaseTask, formats: Sequence[str], full: bool, fold: bool) -> None:
    if type(task).__name__ not in TASKS:
        raise ConfigError(
            f"{type(task).__name__} cannot be exported; expected one of {', '.join(TASKS)}"
        )
    if task.ensemble is not None:
        count = len(task.networks())
        if "timm" in formats:
            raise ConfigError(
                f"the checkpoint is an ensemble of {count} networks, and timm's format holds one; "
                "use --format onnx or torch-export, or export the run of one of them"
            )
        if full and fold:
            raise ConfigError(
                f"--fold is for one full zoo, and the checkpoint is an ensemble of {count} "
                "networks; leave it out, and they keep a kernel for each sample"
            )
    if full and not fold and "timm" in formats:
        raise ConfigError(
            "a full zoo has a kernel for each sample, which timm has not; use --format onnx or "
            "torch-export, or --fold to take the kernels of its average gates"
        )
    if full and fold and type(task).__name__ == "SegmentationTask":
        raise ConfigError(
            "what --fold costs is not measured for SegmentationTask; export the full zoo as it is"
        )


def described(averaged: Averaged) -> str:
    """What folding by average gates costs, for people to read."""
    return (
        f"{averaged.label}: {averaged.before:.2f} as a full zoo, {averaged.after:.2f} folded by "
        "its average gates"
    )


def notes(manifest: Manifest, formats: Sequence[str]) -> list[str]:
    """What a user would otherwise miss of how the run's own test did it."""
    lines = []
    if manifest.members:
        methods = ", ".join(each["method"] for each in manifest.members)
        lines.append(f"note: one graph of {len(manifest.members)} networks: {methods}")
    preprocessing = manifest.input.get("preprocessing", {})
    if preprocessing.get("crops", 1) > 1:
        lines.append(
            f"note: the run's test averages over {preprocessing['crops']} crops of an image, which "
            "is left to the model's user"
        )
    if manifest.output.get("mirrored") and "timm" in formats:
        lines.append(
            "note: the run's test averages with the mirror image, which timm's model does not"
        )
    return lines
