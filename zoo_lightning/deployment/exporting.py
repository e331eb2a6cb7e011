"""Export of a trained model to a folder that can be used without this package."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo_lightning.deployment.formats import FORMATS, ONNX, TORCH_EXPORT
from zoo_lightning.deployment.lineage import origin_of
from zoo_lightning.deployment.manifest import TASKS, Manifest, manifest_of
from zoo_lightning.deployment.model_card import model_card
from zoo_lightning.deployment.modules import (
    FoldedZoo,
    averages_with_mirror,
    deployable,
    fold_by_average,
    is_full,
    knows_mirror,
)
from zoo_lightning.errors import ConfigError, nearest
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.files.atomic import atomic_folder
from zoo_lightning.files.folders import refuse_full
from zoo_lightning.files.text import TEXT
from zoo_lightning.runs.run_folder import find_checkpoint, read_checkpoint
from zoo_lightning.tasks import BaseTask
from zoo_lightning.tasks.loading import task_from

CARD = "README.md"

FILES = (CARD, "config.json", "model.safetensors", ONNX, TORCH_EXPORT)
"""Names of the files of all formats."""


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
    """Export a trained model for timm, onnxruntime or ``torch.export``.

    Args:
        checkpoint: ``.ckpt`` of a run or of an ensemble, or folder of a run, whose best checkpoint
            is exported.
        formats: ``timm``, ``onnx``, ``torch-export``, or several of them. An ensemble becomes one
            graph of all its networks, which ``timm`` does not support.
        output: folder to write to; it appears when the export is complete.
        fold: whether to fold a full zoo by its average gates; else it keeps a kernel for each
            sample.
        mirrored: for landmarks, whether the model averages with the mirror image; ``None`` as in
            the run's own test.
        overwrite: whether to write to a folder that is not empty; files of an earlier export are
            replaced.
        data: function that builds the data module on which folding is measured, and which describes
            the preprocessing if the checkpoint does not; ``None`` for the data of the run.
        say: function called with each message.

    Returns:
        Path of the folder.

    Raises:
        ConfigError: the checkpoint or a format does not exist, the model does not support the
            format, or the folder is not empty or cannot be written to.
        DataError: the data are needed and cannot be read.
        ExportError: outputs of the export differ from the checkpoint's.
    """
    wanted = _known_formats(formats)
    output = Path(output)
    refuse_full(output, overwrite)
    path = find_checkpoint(str(checkpoint), None, "")
    content = read_checkpoint(path)
    noted, task = content["zoo_lightning"], task_from(content, path)
    origin = origin_of(path, content)
    del content
    full = any(map(is_full, task.networks()))
    _refuse(task, wanted, full, fold)
    facts, module = noted.get("data"), None
    if not facts or (full and fold):
        module = data() if data else run_data(path)
        facts = facts or _facts_of(module)
    if mirrored is None:
        mirrored = averages_with_mirror(task)
    elif mirrored and not knows_mirror(task):
        raise ConfigError(
            f"--mirrored true: this {type(task).__name__} does not know which points swap in the "
            "mirror image; remove it"
        )
    method, remarks = task.method, []
    if full and fold:
        folded = fold_by_average(task, module)
        remarks.append(described(folded))
        say(remarks[0])
        task, method = folded.task, f"{method}, folded by average gates"
    manifest = replace(manifest_of(task, facts, mirrored), method=method)
    network = deployable(task, mirrored)
    with atomic_folder(output, FILES) as folder:
        for name in wanted:
            FORMATS[name](task, network, manifest, folder)
        remarks += notes(manifest, wanted)
        (folder / CARD).write_text(model_card(manifest, wanted, origin, remarks), **TEXT)
        files = sorted(file.name for file in folder.iterdir())
    say(f"{path}: {manifest.task}, {manifest.architecture}, {method}")
    for note in notes(manifest, wanted):
        say(note)
    say(f"wrote {', '.join(files)} to {output}")
    return output


def _facts_of(module: Any) -> dict[str, Any]:
    """Facts of a data module.

    Raises:
        ConfigError: it has no ``facts()``.
    """
    if not hasattr(module, "facts"):
        raise ConfigError(
            f"{type(module).__name__} has no facts(), which an export needs; add the method, as "
            "data modules of zoo_lightning have it"
        )
    return module.facts()


def _known_formats(formats: str | Sequence[str]) -> list[str]:
    wanted = formats.split(",") if isinstance(formats, str) else list(formats)
    for name in wanted:
        if name not in FORMATS:
            raise ConfigError(
                f"unknown format {name!r}; expected {', '.join(FORMATS)}, or several of them "
                f"separated by commas.{nearest(name, FORMATS)}"
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
                f"--fold needs a single full zoo, and the checkpoint is an ensemble of {count} "
                "networks; remove it to keep a kernel for each sample"
            )
    if full and not fold and "timm" in formats:
        raise ConfigError(
            "a full zoo has a kernel for each sample, which timm does not support; use --format "
            "onnx or torch-export, or --fold to fold it by its average gates"
        )
    if full and fold and type(task).__name__ == "SegmentationTask":
        raise ConfigError(
            "--fold does not support SegmentationTask, for which its effect is not measured; "
            "remove it to export the full zoo"
        )


def described(folded: FoldedZoo) -> str:
    """Format a message about the effect of folding by average gates."""
    return (
        f"{folded.label}: {folded.before:.2f} as a full zoo, {folded.after:.2f} folded by its "
        "average gates"
    )


def notes(manifest: Manifest, formats: Sequence[str]) -> list[str]:
    """List notes on steps of the run's own test that the exported model does not perform itself."""
    lines = []
    if manifest.members:
        methods = ", ".join(each["method"] for each in manifest.members)
        lines.append(f"note: one graph of {len(manifest.members)} networks: {methods}")
    preprocessing = manifest.input.get("preprocessing", {})
    if preprocessing.get("crops", 1) > 1:
        lines.append(
            f"note: the run's test averages over {preprocessing['crops']} crops of an image, which "
            "the exported model leaves to its user"
        )
    if values := manifest.input.get("value_range"):
        lines.append(
            f"note: in images with more than 8 bits, {values[0]:g} must become 0 and "
            f"{values[1]:g} must become 1, as in training"
        )
    if manifest.output.get("mirrored") and "timm" in formats:
        lines.append(
            "note: the run's test averages with the mirror image, which timm's model does not"
        )
    return lines
