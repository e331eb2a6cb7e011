"""Inspect checkpoints without running code in them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo_lightning.files.text import TEXT
from zoo_lightning.nn.folding import fold_state, is_aggregated
from zoo_lightning.sources.adapting import STATISTICS
from zoo_lightning.sources.files import (
    INDEX,
    Contents,
    is_legacy,
    is_safetensors,
    read_network,
    whole_of,
)
from zoo_lightning.sources.guessing import ArchitectureFit, fit_of, guess
from zoo_lightning.sources.keras_files import is_hdf5, is_keras_archive
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.own_runs import SUMMARY, run_of
from zoo_lightning.sources.reading import noted_for_file, read_weights
from zoo_lightning.sources.spec import Source, split_weights

LISTED = 8
"""Number of names that a line lists before it only counts."""

UNKNOWN = "unknown; mean, std, range and channels of a source declare it"

TRAININGS = {
    r"roi_heads\.keypoint_": "keypoint detector (Keypoint R-CNN)",
    r"roi_heads\.mask_": "instance segmenter (Mask R-CNN)",
    r"roi_heads\.box_": "detector (Faster R-CNN)",
    r"(^|\.)head\.(regression|classification)_head\.": "one-stage detector",
    r"(^|\.)aux_classifier\.|(^|\.)classifier\.0\.convs\.": "semantic segmenter",
    r"(^|\.)(decode_head|segmentation_head|seg_head)\.": "semantic segmenter",
    r"(^|\.)encoder_k\.|(^|\.)key_encoder\.": "momentum contrast (MoCo)",
    r"(^|\.)(online_network|target_network|online_encoder|target_encoder)\.": "BYOL",
    r"(^|\.)prototypes": "clustering of views (SwAV)",
    r"(^|\.)head\.last_layer\.": "self-distillation (DINO)",
    r"(^|\.)decoder_blocks\.|(^|\.)decoder\.decoder_": "masked autoencoder (MAE)",
    r"(^|\.)logit_scale$": "images and texts (CLIP)",
    r"(^|\.)proposal_generator\.": "detector of detectron2",
    r"(^|\.)(projector|projection_head)\.": "self-supervised, with a projector",
    r"(^|\.)keypoint_head\.": "keypoints by heat maps",
}
"""Descriptions of training tasks, by patterns of tensor names."""

CLASSIFIERS = (
    r"(^|\.)(fc|classifier|head|head\.fc|heads\.head|classifier\.1|classifier\.3|predictions)"
    r"\.weight$"
)
"""Names of classifiers' matrices."""


@dataclass(frozen=True)
class Inspection:
    """Contents of a checkpoint.

    Attributes:
        file: Path or reference of the weights.
        kind: Format of the file, such as ``safetensors``, or kind of the reference.
        containers: Keys that lead to the weights in the file, outermost first.
        other_containers: Containers of other weights of the same network, in the form of a source's
            ``container``.
        beside: Keys of the file's other contents.
        tensors: Number of tensors.
        parameters: Number of elements of the floating-point tensors, norm statistics excluded.
        types: Number of tensors of each type, such as ``float32``.
        prefixes: Number of tensors under each first part of the keys after their common prefix.
        training: Lines that describe the run, or the probable training task.
        preprocessing: Normalisation of the images that it was trained on, if it is known.
        architecture: Fit of the given architecture, or of a guessed one; ``None`` if the guess
            finds no family.
    """

    file: str
    kind: str
    containers: list[str]
    other_containers: list[str]
    beside: list[str]
    tensors: int
    parameters: int
    types: dict[str, int]
    prefixes: dict[str, int]
    training: list[str]
    preprocessing: Normalisation | None
    architecture: ArchitectureFit | None


def inspect(source: Source, architecture: str | None = None) -> Inspection:
    """Inspect a checkpoint.

    Args:
        source: Source to inspect: a weight file, a run folder or a reference.
        architecture: timm name or import path to compare with; ``None`` guesses it.

    Raises:
        ArchitectureError: The architecture is unknown.
        SourceError: The source cannot be read.
    """
    origin, rest = split_weights(source.weights)
    contents = own = None
    if origin != "path" or not Path(rest).is_file() or rest.endswith(INDEX):
        weights = read_weights(source, None)
        rest, state, contents = weights.origin, weights.state, weights.contents
        own = weights.normalisation
        source = replace(source, match=weights.match or source.match)
    path, kind = Path(rest), f"{origin} reference"
    if path.is_file() and path.name.endswith(INDEX):
        kind = f"{len(state)} tensors in several files"
    elif path.is_file():
        kind = ", ".join(filter(None, (file_kind(path), whole_of(path))))
        contents = contents or read_network(path, source.container)
        own = own or noted_for_file(path, contents)
        state = contents.state
    contents = contents or Contents({}, state)
    whole = contents.whole if isinstance(contents.whole, Mapping) else {}
    containers = [*contents.containers]
    floating = {k: t for k, t in state.items() if t.is_floating_point()}
    plain = fold_state(state) if is_aggregated(state) else state
    outermost = containers[0].partition(".")[0] if containers else None
    beside = [str(key) for key in whole if str(key) != outermost] if containers else []
    return Inspection(
        file=rest,
        kind=kind,
        containers=containers,
        other_containers=[*contents.others],
        beside=beside,
        tensors=len(state),
        parameters=sum(
            tensor.numel() for k, tensor in floating.items() if k.split(".")[-1] not in STATISTICS
        ),
        types=dict(Counter(str(t.dtype).removeprefix("torch.") for t in state.values())),
        prefixes=outermost_prefixes(state),
        training=own_run(whole, path) or training_of(state),
        preprocessing=own,
        architecture=fit_of(plain, architecture, source) if architecture else guess(plain, source),
    )


def file_kind(path: Path) -> str:
    """Format of a weight file, by its first bytes."""
    if is_safetensors(path):
        return "safetensors"
    if is_hdf5(path) or is_keras_archive(path):
        return "Keras"
    with path.open("rb") as file:
        if file.read(2) == b"PK":
            return "torch.save"
    return "torch.save (before torch 1.6)" if is_legacy(path) else "pickle of NumPy arrays"


def outermost_prefixes(keys: Iterable[str]) -> dict[str, int]:
    """Count keys by their first part after the prefix that all keys have in common."""
    common = 0
    parts = [key.split(".") for key in keys]
    while len({tuple(each[: common + 1]) for each in parts}) == 1 and len(parts[0]) > common + 1:
        common += 1
    counts: Counter[str] = Counter()
    for each in parts:
        leaf = len(each) <= common + 1
        counts[".".join(each[: common + 1]) + ("" if leaf else ".")] += 1
    return dict(counts)


def own_run(content: Mapping[str, Any], path: Path) -> list[str]:
    """Describe a checkpoint of this project in lines; empty for other checkpoints.

    Args:
        content: Content of the checkpoint.
        path: Path of the checkpoint, to find its run folder.
    """
    ours, options = content.get("zoo_lightning"), content.get("hyper_parameters")
    if not isinstance(ours, Mapping) or not isinstance(options, Mapping):
        return []
    described = options.get("backbone", {})
    init_args = described.get("init_args", {})
    sources = [each.get("name", "?") for each in init_args.get("sources") or []]
    mode = init_args.get("mode")
    lines = [
        f"run of zoo_lightning: {ours.get('task')}, {described.get('class_path')}"
        f"{f' ({mode})' if mode else ''} of {init_args.get('architecture')} "
        f"from {', '.join(sources) or 'random weights'}, step {content.get('global_step')}"
    ]
    folder = run_of(path)
    try:
        summary = json.loads((folder / SUMMARY).read_text(**TEXT)) if folder else {}
    except (OSError, ValueError, RecursionError):
        summary = {}
    if isinstance(summary, dict) and "experiment" in summary:
        lines.append(f"experiment {summary['experiment']}, method {summary.get('method')}")
    return lines


def training_of(state: Mapping[str, Tensor]) -> list[str]:
    """Probable training task of a foreign checkpoint, from its tensors' names."""
    found: list[str] = []
    for marker, training in TRAININGS.items():
        if any(re.search(marker, key) for key in state) and not (found and "R-CNN" in found[0]):
            found.append(training)
    heads = [k for k, t in state.items() if t.ndim in (2, 4) and re.search(CLASSIFIERS, k)]
    for key in heads[:2] if not found else []:
        found.append(f"classifier of {state[key].shape[0]} classes ({key})")
    return list(dict.fromkeys(found)) or ["no head that is known here: perhaps a backbone alone"]


def format_inspection(seen: Inspection) -> str:
    """Format an inspection as a table to print."""
    container = ".".join(seen.containers) or "none"
    if seen.beside:
        container += f" (beside {_listed(seen.beside)})"
    choice = ""
    if seen.other_containers:
        choice = f"such weights are in {_listed(seen.other_containers)}, too: --container KEY here,"
        choice += " container: KEY in a source takes others"
    types = ", ".join(f"{kind} {count}" for kind, count in seen.types.items())
    prefixes = [f"{prefix} {count}" for prefix, count in seen.prefixes.items()]
    rows = [
        ("file", seen.file),
        ("kind", seen.kind),
        ("container", container),
        *([("", choice)] if choice else []),
        ("tensors", f"{seen.tensors} with {seen.parameters:,} parameters; {types}"),
        ("prefixes", _listed(prefixes)),
        *(("training", line) for line in seen.training),
        ("input", str(seen.preprocessing or UNKNOWN)),
        *(("architecture", line) for line in _architecture_lines(seen.architecture)),
    ]
    return "\n".join(f"{name:<14}{text}" for name, text in rows)


def _architecture_lines(found: ArchitectureFit | None) -> list[str]:
    if found is None:
        return ["of no family that is known by its names; --architecture NAME compares with one"]
    if found.fits:
        alike = f" (or {', '.join(found.alike)})" if found.alike else ""
        lines = [f"{found.architecture}{alike}: {found.remark}"]
    else:
        under = f" under {found.prefix!r}" if found.prefix else ""
        lines = [
            f"nearest is {found.architecture}, which does not fit: {found.matched} of "
            f"{found.total} tensors match{under}"
        ]
    if found.missing:
        lines.append(f"missing {len(found.missing)}: {_listed(found.missing)}")
    if found.other_shape:
        lines.append(f"of another shape {len(found.other_shape)}: {_listed(found.other_shape)}")
    if found.left_over:
        lines.append(f"left over {len(found.left_over)}: {_counted(found.left_over)}")
    return lines


def _counted(keys: Sequence[str]) -> str:
    """Outermost prefixes with their counts."""
    return _listed([f"{prefix} {count}" for prefix, count in outermost_prefixes(keys).items()])


def _listed(entries: Sequence[str]) -> str:
    """The first few entries, and how many more."""
    rest = len(entries) - LISTED
    return ", ".join(entries[:LISTED]) + (f", and {rest} more" if rest > 0 else "")
