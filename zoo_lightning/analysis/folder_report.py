"""Report on the sources in a folder: tables to print, and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from zoo_lightning.analysis.relation_report import aligned
from zoo_lightning.transfer.folder import FolderFile, FolderGroup, FolderInspection
from zoo_lightning.transfer.kinship import RELATED, STRANGE

MEANING = (
    f"cosine of the kernels, the median over the layers: relatives from {RELATED}, strangers below "
    f"{STRANGE}; equal: kernels that are the same in both"
)
"""Explanation of the table of pairs."""


def folder_json(seen: FolderInspection) -> str:
    """Format an inspection of a folder as JSON."""
    return json.dumps(asdict(seen), indent=2, allow_nan=False)


def format_folder(seen: FolderInspection) -> str:
    """Format an inspection of a folder: what it has, and for each architecture the relations."""
    count = len(seen.files) + len(seen.refused)
    left = f"; no weights: {', '.join(seen.left_out)}" if seen.left_out else ""
    lines = [f"{seen.folder}: {count} source{'' if count == 1 else 's'}{left}"]
    files = {file.name: file for file in seen.files}
    for group in seen.groups:
        lines += ["", *_group_lines(group, [files[name] for name in group.files])]
    if seen.refused:
        lines += ["", *(f"left out      {message}" for message in seen.refused.values())]
    return "\n".join(lines)


def _group_lines(group: FolderGroup, files: Sequence[FolderFile]) -> list[str]:
    """Lines on the sources of one architecture."""
    if group.architecture:
        lines = [f"architecture  {group.architecture}"]
    elif len(files) > 1:
        lines = ["architecture  one for these, but unknown; --architecture NAME compares with one"]
    else:
        lines = ["architecture  unknown; --architecture NAME compares with one"]
    rows = [["source", "training", "preprocessing", "match"]]
    rows += [[f.name, "; ".join(f.training), preprocessing(f), f.remark] for f in files]
    lines += aligned(rows, left=(0, 1, 2, 3))
    if len(files) < 2:
        return lines
    pairs = [["pair", "cosine", "", "equal"]]
    for pair in group.kin.pairs:
        shares = f"{pair.equal} of {pair.kernels}"
        pairs.append([f"{pair.first}, {pair.second}", f"{pair.cosine:.3f}", pair.relation, shares])
    lines += ["", *aligned(pairs, left=(0, 2)), MEANING, ""]
    for names, text in _descents(group):
        lines.append(f"descent       {', '.join(names)}: {text}")
    alone = [f.name for f in files if f.name not in {d.name for d in group.kin.descents}]
    if alone:
        lines.append(f"descent       no relatives here: {', '.join(alone)}")
    return lines


def _descents(group: FolderGroup) -> list[tuple[list[str], str]]:
    """Names of sources and what is said of their descent, the same text once."""
    said: dict[str, list[str]] = {}
    for each in group.kin.descents:
        origin = f"descends from {' or '.join(each.parents)}, " if each.parents else ""
        said.setdefault(origin + each.remark, []).append(each.name)
    return [(names, text) for text, names in said.items()]


def preprocessing(file: FolderFile) -> str:
    """Describe what images a source was trained on, as far as it is stated."""
    if file.mean is None or file.std is None:
        return "not stated"
    mean, std = (", ".join(f"{value:.3f}" for value in each) for each in (file.mean, file.std))
    return f"mean {mean}; std {std}"
