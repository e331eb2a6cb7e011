"""Compare the weight files of a folder, without data: ``sources inspect FOLDER``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from zoo_lightning.errors import SourceError
from zoo_lightning.nn.folding import fold_state, is_aggregated
from zoo_lightning.sources.adapting import adapt
from zoo_lightning.sources.folders import weights_of_folder
from zoo_lightning.sources.guessing import ArchitectureFit, fit_of, guess, skeleton
from zoo_lightning.sources.inspecting import own_run, training_of
from zoo_lightning.sources.key_matching import score_prefixes
from zoo_lightning.sources.normalisation import Normalisation
from zoo_lightning.sources.reading import read_weights
from zoo_lightning.sources.spec import Source, parse_sources
from zoo_lightning.transfer.kinship import Kin, kin_of

COMMON = 0.8
"""Fraction of the smaller network's kernels, by name and shape, that networks of one unknown
architecture have in common: heads differ."""


@dataclass(frozen=True)
class FolderFile:
    """One source in a folder.

    Attributes:
        name: name, from the file's.
        path: path of the file or folder.
        architecture: timm name or import path; empty if unknown.
        remark: what matched; for an unknown architecture the number of tensors.
        training: run or probable training task.
        normalisation: normalisation of the training images; ``None`` if not stated.
    """

    name: str
    path: str
    architecture: str
    remark: str
    training: list[str]
    normalisation: Normalisation | None


@dataclass(frozen=True)
class FolderGroup:
    """Sources of one architecture in a folder.

    Attributes:
        architecture: timm name or import path; empty if unknown.
        files: names of the sources.
        kin: relations of their weights.
    """

    architecture: str
    files: list[str]
    kin: Kin


@dataclass(frozen=True)
class FolderInspection:
    """Sources in a folder.

    Attributes:
        folder: path of the folder.
        files: sources that could be read.
        groups: sources by architecture, the largest group first.
        refused: messages of those that cannot be read or do not fit, by name.
        left_out: names of files and folders that are no weights.
    """

    folder: str
    files: list[FolderFile]
    groups: list[FolderGroup]
    refused: dict[str, str]
    left_out: list[str] = field(default_factory=list)


def inspect_folder(folder: Path, architecture: str | None = None) -> FolderInspection:
    """Read all sources of a folder, and compare their weights within each architecture.

    Args:
        folder: folder with weight files, runs, or folders as the hub has them; subfolders are not
            searched.
        architecture: timm name or import path to compare with; ``None`` guesses each one's.

    Raises:
        ArchitectureError: the architecture is unknown.
        SourceError: the folder has no weight files, or none can be read.
    """
    contents = weights_of_folder(folder)
    files: list[FolderFile] = []
    states: dict[str, dict[str, Tensor]] = {}
    refused: dict[str, str] = {}
    for source in parse_sources([str(path) for path in contents.weights]):
        try:
            known = list(dict.fromkeys(file.architecture for file in files if file.architecture))
            file, state = _read(source, architecture, known)
        except SourceError as error:
            refused[source.name] = str(error)
            continue
        files.append(file)
        states[source.name] = state
    if not files:
        raise SourceError(
            f"nothing in {folder} can be read as a source: {' '.join(refused.values())}"
        )
    groups = [_related(members, states) for members in _groups(files, states)]
    groups.sort(key=lambda group: -len(group.files))
    return FolderInspection(str(folder), files, groups, refused, contents.left_out)


def _read(
    source: Source, architecture: str | None, known: Sequence[str]
) -> tuple[FolderFile, dict[str, Tensor]]:
    """Read a source and fit it to its architecture, if that is known.

    Args:
        source: source to read.
        architecture: architecture that it must have; ``None`` guesses it.
        known: architectures of other files, which are tried first.

    Raises:
        SourceError: it cannot be read, or does not fit the given architecture.
    """
    weights = read_weights(source, None)
    state = weights.state
    whole = weights.contents.whole if weights.contents is not None else {}
    path = Path(weights.origin)
    training = own_run(whole, path) if isinstance(whole, Mapping) else []
    training = training or training_of(state)
    state = fold_state(state) if is_aggregated(state) else state
    fit = _fit(state, source, architecture, known)
    file = FolderFile(
        name=source.name,
        path=source.weights,
        architecture=fit.architecture if fit else "",
        remark=fit.remark if fit else f"{len(state)} tensors",
        training=training,
        normalisation=source.normalisation or weights.normalisation,
    )
    if fit:
        state = adapt(state, skeleton(fit.architecture), source, fit.architecture).state
    return file, state


def _fit(
    state: Mapping[str, Tensor], source: Source, architecture: str | None, known: Sequence[str]
) -> ArchitectureFit | None:
    """Fit of a source to its architecture; ``None`` if that is unknown.

    Raises:
        SourceError: it does not fit the given architecture.
    """
    for name in [architecture] if architecture else known:
        found = fit_of(state, name, source)
        if found.fits:
            return found
        if architecture:
            raise SourceError(found.remark)
    found_by_names = guess(state, source)
    return found_by_names if found_by_names is not None and found_by_names.fits else None


def _groups(
    files: list[FolderFile], states: Mapping[str, Mapping[str, Tensor]]
) -> list[list[FolderFile]]:
    """Files by architecture, those of unknown ones by their tensors."""
    groups: list[list[FolderFile]] = []
    for file in files:
        for group in groups:
            first = group[0]
            same = file.architecture == first.architecture
            if same and (
                file.architecture or _have_much_in_common(states[file.name], states[first.name])
            ):
                group.append(file)
                break
        else:
            groups.append([file])
    return groups


def _have_much_in_common(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    """Whether most kernels of the smaller network are in the other, by name and shape."""
    smaller, other = sorted((first, second), key=lambda state: len(_kernels(state)))
    kernels = _kernels(smaller)
    return len(kernels) > 0 and len(_shared(kernels, _kernels(other))) >= COMMON * len(kernels)


def _kernels(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state.items() if tensor.ndim >= 2}


def _shared(anchor: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, str]:
    """Keys of one network by those of another, under the prefixes that agree in most tensors."""
    best: dict[str, str] = {}
    for own in {key[: place.end()] for key in anchor for place in re.finditer(r"^|\.", key)}:
        plain = {key[len(own) :]: t for key, t in anchor.items() if key.startswith(own)}
        if len(plain) <= len(best):
            continue
        scores = score_prefixes(state, plain)
        theirs = max(scores, key=lambda prefix: scores[prefix], default="")
        found = {
            own + key: theirs + key
            for key, tensor in plain.items()
            if theirs + key in state and state[theirs + key].shape == tensor.shape
        }
        if len(found) > len(best):
            best = found
    return best


def _related(files: list[FolderFile], states: Mapping[str, Mapping[str, Tensor]]) -> FolderGroup:
    """Compare the weights of sources of one architecture."""
    chosen = {file.name: states[file.name] for file in files}
    if not files[0].architecture:
        anchor = min(chosen.values(), key=len)
        shared = {name: _shared(anchor, state) for name, state in chosen.items()}
        chosen = {
            name: {key: chosen[name][theirs] for key, theirs in keys.items()}
            for name, keys in shared.items()
        }
    return FolderGroup(files[0].architecture, [file.name for file in files], kin_of(chosen))
