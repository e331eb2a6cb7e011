"""``sources inspect``: what a checkpoint holds, without running any code in it."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.layers.folding import fold_state, is_aggregated
from zoo_lightning.run_folder import SUMMARY, run_of
from zoo_lightning.sources.adapting import STATISTICS
from zoo_lightning.sources.files import check_one_network, is_safetensors, read_contents
from zoo_lightning.sources.guessing import Match, guess, match
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.shards import INDEX
from zoo_lightning.sources.spec import Source, parse_source, split_weights
from zoo_lightning.text_files import TEXT

LISTED = 8
"""How many names a line lists before it only counts."""

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
    r"(^|\.)(projector|projection_head)\.": "self-supervised, with a projector",
    r"(^|\.)keypoint_head\.": "keypoints by heat maps",
}
"""What names of tensors say about the training; the first that is found of each line's kind."""

CLASSIFIERS = r"(^|\.)(fc|classifier|head|head\.fc|classifier\.1|classifier\.3)\.weight$"
"""Names of classifiers' matrices."""


@dataclass(frozen=True)
class Inspection:
    """What a checkpoint holds.

    Attributes:
        file: Path or reference.
        kind: Of file.
        containers: That the weights were in, outermost first.
        beside: Names of what else the file holds.
        tensors: Their number.
        parameters: Numbers in floating tensors, norm statistics left aside.
        types: Number of tensors of each type.
        prefixes: Number of tensors under each of the outermost prefixes that tell any apart.
        training: What it looks like, as far as names tell.
        architecture: The guess, or the match with the one that was asked for.
    """

    file: str
    kind: str
    containers: list[str]
    beside: list[str]
    tensors: int
    parameters: int
    types: dict[str, int]
    prefixes: dict[str, int]
    training: list[str]
    architecture: Match | None


def inspect(source: Source, architecture: str | None = None) -> Inspection:
    """Look into a checkpoint.

    Args:
        source: A file, a run folder or a reference.
        architecture: To compare with; ``None`` guesses.

    Raises:
        ArchitectureError: No such architecture.
        SourceError: It cannot be read.
    """
    origin, rest = split_weights(source.weights)
    content, state, containers = {}, {}, []
    if origin != "path" or not Path(rest).is_file() or rest.endswith(INDEX):
        weights = read_weights(source, None)
        rest, state = weights.origin, weights.state
        source = replace(source, match=weights.match or source.match)
    path, kind = Path(rest), f"{origin} reference"
    if path.is_file() and path.name.endswith(INDEX):
        kind = f"{len(state)} tensors in several files"
    elif path.is_file():
        kind = file_kind(path)
        content, state, containers = read_contents(path, source.container)
        check_one_network(content, path)
    whole = content if isinstance(content, Mapping) else {}
    floating = {k: t for k, t in state.items() if t.is_floating_point()}
    plain = fold_state(state) if is_aggregated(state) else state
    beside = [str(key) for key in whole if key not in containers[:1]] if containers else []
    return Inspection(
        file=rest,
        kind=kind,
        containers=containers,
        beside=beside,
        tensors=len(state),
        parameters=sum(
            tensor.numel() for k, tensor in floating.items() if k.split(".")[-1] not in STATISTICS
        ),
        types=dict(Counter(str(t.dtype).removeprefix("torch.") for t in state.values())),
        prefixes=outermost_prefixes(state),
        training=own_run(whole, path) or training_of(state),
        architecture=match(plain, architecture, source) if architecture else guess(plain, source),
    )


def file_kind(path: Path) -> str:
    """What wrote a weight file, by its first bytes."""
    if is_safetensors(path):
        return "safetensors"
    with path.open("rb") as file:
        return "torch.save" if file.read(2) == b"PK" else "torch.save (before torch 1.6)"


def outermost_prefixes(keys: Iterable[str]) -> dict[str, int]:
    """Count keys under their first parts, past what all have in common."""
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
    """What a checkpoint of this project says of itself; empty if it is another's."""
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
    """What a foreign checkpoint looks like it was trained for."""
    found: list[str] = []
    for marker, training in TRAININGS.items():
        if any(re.search(marker, key) for key in state) and not (found and "R-CNN" in found[0]):
            found.append(training)
    heads = [k for k, t in state.items() if t.ndim in (2, 4) and re.search(CLASSIFIERS, k)]
    for key in heads[:2] if not found else []:
        found.append(f"classifier of {state[key].shape[0]} classes ({key})")
    return list(dict.fromkeys(found)) or ["no head that is known here: perhaps a backbone alone"]


def format_inspection(seen: Inspection) -> str:
    """A short table to print."""
    container = ".".join(seen.containers) or "none"
    if seen.beside:
        container += f" (beside {_listed(seen.beside)})"
    types = ", ".join(f"{kind} {count}" for kind, count in seen.types.items())
    prefixes = [f"{prefix} {count}" for prefix, count in seen.prefixes.items()]
    rows = [
        ("file", seen.file),
        ("kind", seen.kind),
        ("container", container),
        ("tensors", f"{seen.tensors} with {seen.parameters:,} parameters; {types}"),
        ("prefixes", _listed(prefixes)),
        *(("training", line) for line in seen.training),
        *(("architecture", line) for line in _architecture_lines(seen.architecture)),
    ]
    return "\n".join(f"{name:<14}{text}" for name, text in rows)


def _architecture_lines(found: Match | None) -> list[str]:
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


def main(arguments: Sequence[str]) -> None:
    """Command line of ``sources inspect``.

    Raises:
        SourceError: The file cannot be read, or is not of the architecture that was asked for.
    """
    parser = argparse.ArgumentParser(
        prog="python -m zoo_lightning sources inspect", description=__doc__
    )
    parser.add_argument("source", help="file, run folder or reference such as timm:MODEL.TAG")
    parser.add_argument("--architecture", help="compare with this one instead of guessing")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    seen = inspect(parse_source(options.source), options.architecture)
    print(json.dumps(asdict(seen), indent=2) if options.json else format_inspection(seen))
    if options.architecture and not seen.architecture.fits:
        raise SourceError(seen.architecture.remark)
