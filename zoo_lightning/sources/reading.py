"""Turn a source's weights reference into tensors and, where known, its preprocessing.

One function per kind of weights. :mod:`~zoo_lightning.sources.adapting` fits the tensors to the
architecture; :mod:`~zoo_lightning.sources.files` reads files safely.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from zoo_lightning.errors import ArchitectureError, SourceError, nearest
from zoo_lightning.nn.random_numbers import private_random_numbers
from zoo_lightning.sources.download import fetch
from zoo_lightning.sources.files import (
    HUB_FILES,
    INDEX,
    Contents,
    is_safetensors,
    read_network,
    read_shards,
    weights_in,
    whole_of,
)
from zoo_lightning.sources.lora import CONFIG, add_adapter, is_adapter, read_adapter
from zoo_lightning.sources.normalisation import Normalisation, known
from zoo_lightning.sources.noted import noted_normalisation
from zoo_lightning.sources.own_runs import SUMMARY
from zoo_lightning.sources.packages import find_in_package
from zoo_lightning.sources.shipped import Card, read_card, shipped_card, shipped_path
from zoo_lightning.sources.spec import Match, Source, split_address, split_weights

IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Normalisation that torchvision's detectors apply themselves."""

DETECTORS = ("FasterRCNN", "MaskRCNN", "KeypointRCNN", "RetinaNet", "FCOS")
"""Prefixes of the torchvision weights that ``IMAGENET`` applies to."""


@dataclass
class SourceWeights:
    """Weights of a source, with their origin, preprocessing and way of matching.

    Attributes:
        state: Tensors by the file's own keys, taken out of containers.
        origin: Path or address of the weights.
        normalisation: Normalisation of the training images, if known.
        match: How the tensors must be matched, ``name`` or ``order``, if known.
        contents: Contents of the weight file, if the weights come from one.
        remarks: What was put together or assumed, a line each.
    """

    state: dict[str, Tensor]
    origin: str
    normalisation: Normalisation | None = None
    match: Match | None = None
    contents: Contents | None = field(default=None, repr=False)
    remarks: tuple[str, ...] = ()


def read_weights(
    source: Source, architecture: str | None, build: Callable[[], nn.Module] | None = None
) -> SourceWeights:
    """Read a source's weights, downloading them if needed; no code in a file is run.

    Args:
        source: Source to read.
        architecture: timm name of the wanted architecture; ``None`` for one that is not timm's.
        build: Function that builds the headless plain network for ``random:SEED``; ``None`` for
            timm's.

    Raises:
        ArchitectureError: If timm does not know the architecture.
        SourceError: If the weights cannot be found or read, or are known to have another
            architecture. The message begins with the source's name.
    """
    check_architecture(architecture)
    kind, rest = split_weights(source.weights)
    try:
        adapter = kind == "path" and is_adapter(Path(rest).expanduser())
        if source.base is not None and not adapter:
            raise SourceError(
                f"base {source.base!r} is of LoRA adapters, and {source.weights} has no {CONFIG}: "
                "leave it out."
            )
        if adapter:
            weights = _read_adapter(Path(rest).expanduser(), source, architecture, build)
        elif kind == "random":
            weights = _read_random(rest, architecture, build)
        elif kind in FILE_READERS:
            weights = FILE_READERS[kind](rest, architecture, source.container)
        else:
            weights = READERS[kind](rest, architecture)
        if source.match == "order" and _is_unordered(weights.origin):
            raise SourceError(
                f"{weights.origin} is in safetensors, which keep tensors sorted by name, so "
                "match: order would mix them up. Give the original .pth file."
            )
    except SourceError as error:
        raise SourceError(f"Source {source.name!r}: {error}") from error
    return weights


def check_architecture(architecture: str | None) -> None:
    """Refuse an architecture name that timm does not know, and suggest the nearest.

    Raises:
        ArchitectureError: timm does not know the name.
    """
    import timm

    if architecture is not None and not timm.is_model(architecture):
        base = architecture.partition(".")[0]
        raise ArchitectureError(
            f"timm knows no architecture {architecture!r}.{nearest(base, timm.list_models())} "
            "See timm.list_models()."
        )


def _is_unordered(origin: str) -> bool:
    """Whether weights came from a safetensors file, which keeps no order."""
    path = Path(origin)
    return path.is_file() and (path.name.endswith(INDEX) or is_safetensors(path))


def _read_builtin(name: str, architecture: str | None) -> SourceWeights:
    """Read a source of the shipped zoo."""
    card = shipped_card(name)
    _check_architecture(card.architecture, architecture, f"builtin:{name}")
    return _with_card(shipped_path(name), card)


def _check_architecture(own: str, architecture: str | None, origin: str) -> None:
    """Refuse weights that are known to be of another architecture."""
    if architecture is not None and _base(own) != _base(architecture):
        raise SourceError(
            f"{origin} is of architecture {own}, but {architecture} is wanted. Take "
            "sources of one architecture, or set the architecture to theirs."
        )


def _with_card(path: Path, card: Card, container: str | None = None) -> SourceWeights:
    """Read a weight file whose card is known."""
    given = card.preprocessing
    return _from_file(path, container, known(given.mean, given.std))


def _from_file(
    path: Path,
    container: str | None = None,
    normalisation: Normalisation | None = None,
    match: Match | None = None,
) -> SourceWeights:
    """Read a weight file of which this is known; of its normalisation, else what it notes."""
    contents = read_network(path, container)
    normalisation = normalisation or noted_normalisation(contents)
    return SourceWeights(contents.state, str(path), normalisation, match, contents)


def _read_path(rest: str, architecture: str | None, container: str | None) -> SourceWeights:
    """Read a weight file, with its card if there is one beside it, or a folder."""
    path = Path(rest).expanduser()
    if path.is_dir():
        if (path / SUMMARY).is_file() or not (found := weights_in(path)):
            return _read_run(path, container)
        return _read_hub_folder(path, found, architecture, container)
    if path.name.endswith(INDEX):
        return replace(_from_shards(path, container), normalisation=_noted_beside(path))
    beside = path.with_suffix(".yaml")
    if path.suffix == ".safetensors" and beside.is_file():
        try:
            card = read_card(beside)
        except SourceError:  # some other YAML file
            return _from_file(path, container)
        _check_architecture(card.architecture, architecture, str(path))
        return _with_card(path, card, container)
    if whole := whole_of(path):
        raise SourceError(f"{path} is {whole}.")
    return _from_file(path, container, _noted_in_metadata(path) or _noted_beside(path))


def _from_shards(index: Path, container: str | None) -> SourceWeights:
    """Read the weights of several files, which have no containers."""
    if container is not None:
        raise SourceError(
            f"{index} is an index of several weight files, which are in no container: leave out "
            f"container {container!r}."
        )
    return SourceWeights(read_shards(index), str(index))


def _read_hub_folder(
    folder: Path, file: Path, architecture: str | None, container: str | None
) -> SourceWeights:
    """Read the weights of a folder as the hub has it, with what its ``config.json`` says."""
    sharded = file.name.endswith(INDEX)
    weights = _from_shards(file, container) if sharded else _from_file(file, container)
    noted = _read_json(folder / "config.json")
    own = noted.get("architecture")
    if isinstance(own, str):
        _check_architecture(own, architecture, str(folder))
    weights.normalisation = _noted_in_folder(folder) or weights.normalisation
    return weights


def _noted_beside(path: Path) -> Normalisation | None:
    """Normalisation of a file that lies in a folder as the hub has it."""
    return _noted_in_folder(path.parent) if path.name in HUB_FILES else None


def noted_for_file(path: Path, contents: Contents) -> Normalisation | None:
    """Normalisation of a weight file: of its card, its metadata, its folder, or its contents.

    Args:
        path: Path of the file.
        contents: Contents of the file.
    """
    try:
        given = read_card(path.with_suffix(".yaml")).preprocessing
        card = known(given.mean, given.std) if is_safetensors(path) else None
    except SourceError:  # there is none, or some other YAML file
        card = None
    return card or _noted_in_metadata(path) or _noted_beside(path) or noted_normalisation(contents)


def _noted_in_folder(folder: Path) -> Normalisation | None:
    """Normalisation that a folder as the hub has it notes, in timm's or another library's way."""
    config, clip = _read_json(folder / "config.json"), _read_json(folder / "open_clip_config.json")
    for noted in (config.get("pretrained_cfg"), config, clip.get("preprocess_cfg")):
        if found := _of_mapping(noted):
            return found
    return _of_processor(_read_json(folder / "preprocessor_config.json"))


def _of_processor(noted: dict[str, Any]) -> Normalisation | None:
    """Normalisation of an image processor of the library transformers; empty if there is none."""
    factor = noted.get("rescale_factor", 1 / 255)
    scaled = isinstance(factor, (int, float)) and abs(factor * 255 - 1) < 1e-3
    if not noted or not scaled or noted.get("do_rescale") is False:
        return None
    mean, std = noted.get("image_mean"), noted.get("image_std")
    if noted.get("do_normalize") is False:
        mean, std = [0.0] * 3, [1.0] * 3
    return known(mean, std, "0..1", "bgr" if noted.get("do_flip_channel_order") else None)


def _read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of a folder; empty if there is none, for the weights alone will do."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_adapter(
    folder: Path,
    source: Source,
    architecture: str | None,
    build: Callable[[], nn.Module] | None,
) -> SourceWeights:
    """Read a LoRA adapter and its base, and add them."""
    adapter = read_adapter(folder)
    given = source.base
    if given is None:
        # The path is of the machine of the training; a name on the hub would need the network.
        named = [folder / adapter.base, Path(adapter.base).expanduser()] if adapter.base else []
        given = next((str(path) for path in named if path.exists()), None)
    if given is None:
        stated = f" ({adapter.base})" if adapter.base else ""
        raise SourceError(
            f"{folder} is a LoRA adapter, whose base{stated} is not here: give base: with its "
            "weights in the source, such as {weights: "
            f"{folder}, base: PATH or hf-hub:ORG/REPO}}."
        )
    weights = read_weights(replace(source, weights=given, base=None), architecture, build)
    weights.state = add_adapter(adapter, weights.state)
    weights.origin = str(folder)
    weights.remarks = (
        *weights.remarks,
        f"LoRA of rank {adapter.rank} in {len(adapter.changes)} tensors, added to {given}",
    )
    return weights


def _noted_in_metadata(path: Path) -> Normalisation | None:
    """Normalisation that a safetensors file of ``sources match`` notes about itself."""
    if not path.is_file() or not is_safetensors(path):
        return None
    try:
        with safe_open(path, "pt") as file:
            noted = json.loads((file.metadata() or {}).get("preprocessing", "{}"))
    except (
        SafetensorError,
        OSError,
        ValueError,
        RecursionError,
    ):  # reading it will say what is wrong
        return None
    return _of_mapping(noted)


def _of_mapping(noted: Any) -> Normalisation | None:
    """Normalisation noted as a mapping of mean, std and optionally range and channels."""
    if not isinstance(noted, dict):
        return None
    span, channels = noted.get("range", "0..1"), noted.get("channels")
    return known(noted.get("mean"), noted.get("std"), span, channels)


def _read_run(folder: Path, container: str | None) -> SourceWeights:
    """Read the best checkpoint of a run of this project, and its preprocessing if it is noted."""
    summary_path = folder / SUMMARY
    if not summary_path.is_file():
        raise SourceError(
            f"The folder {folder} is not a run: it has no summary.json. Give a weight file, the "
            f"folder of a finished run, or one that has {' or '.join(HUB_FILES[:2])}; of a folder "
            "of checkpoints name the files, which sources inspect lists."
        )
    try:
        summary = json.loads(summary_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SourceError(f"{summary_path} cannot be read: {error}.") from error
    checkpoint = summary.get("checkpoint") if isinstance(summary, dict) else None
    if not isinstance(checkpoint, str) or not checkpoint:
        raise SourceError(
            f"{summary_path} names no checkpoint: the run was not finished or kept none. Give a "
            ".ckpt file instead."
        )
    path = folder / checkpoint
    return _from_file(path, container, _of_mapping(summary.get("preprocessing")))


def _read_package(rest: str, architecture: str | None, container: str | None) -> SourceWeights:
    """Read weights inside an installed Python package."""
    path, facts = find_in_package(rest)
    if facts is None:
        return _from_file(path, container)
    _check_architecture(facts.architecture, architecture, f"package:{rest}")
    return _from_file(path, container, known(facts.mean, facts.std), facts.match)


def _read_address(address: str, architecture: str | None, container: str | None) -> SourceWeights:
    """Read a weight file from the network or from the cache."""
    url, sha256 = split_address(address)
    return _from_file(fetch(url, sha256), container)


def _read_random(
    seed: str, architecture: str | None, build: Callable[[], nn.Module] | None
) -> SourceWeights:
    """Make the architecture's own initialisation from a seed; global generators are unchanged."""
    import timm

    if build is None:
        if architecture is None:
            raise SourceError(
                f"random:{seed} needs a timm architecture or a function that builds one."
            )
        build = partial(timm.create_model, architecture, num_classes=0)
    with private_random_numbers(int(seed)):
        network = build()
    return SourceWeights(dict(network.state_dict()), f"random:{seed}")


def _read_torchvision(name: str, architecture: str | None) -> SourceWeights:
    """Read weights that torchvision publishes."""
    import torchvision

    try:
        entry = torchvision.models.get_weight(name)
    except (ValueError, AttributeError, KeyError) as error:
        names = _torchvision_names()
        raise SourceError(
            f"torchvision has no weights {name!r}.{nearest(name, names)} Expected a name such as "
            "ResNet50_Weights.IMAGENET1K_V2."
        ) from error
    file_name = PurePosixPath(urlparse(entry.url).path).name
    digest = re.search(r"-([0-9a-f]{8,})\.", file_name)
    path = fetch(entry.url, digest[1] if digest else None, file_name)
    transforms = entry.transforms()
    own = known(getattr(transforms, "mean", None), getattr(transforms, "std", None))
    if own is None and name.startswith(DETECTORS):
        own = IMAGENET
    return _from_file(path, None, own)


def _torchvision_names() -> list[str]:
    """Return the names of all weights that torchvision publishes."""
    from torchvision.models import get_model_weights, list_models

    enums = {get_model_weights(model) for model in list_models()}
    return sorted(f"{enum.__name__}.{entry.name}" for enum in enums for entry in enum)


def _read_timm(name: str, architecture: str | None) -> SourceWeights:
    """Read weights that timm publishes, through timm."""
    import timm

    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise SourceError(f"timm has no model {base!r}.{nearest(base, timm.list_models())}")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if not timm.is_model_pretrained(base) or (tag and tag not in tags):
        raise SourceError(
            f"timm publishes no weights {name!r}.{nearest(tag, tags)} "
            f"Known for {base}: {', '.join(tags) or 'none'}."
        )
    if architecture is not None and not _same_network(base, _base(architecture)):
        raise SourceError(
            f"timm:{name} is of architecture {base}, whose tensors differ in name or shape from "
            f"those of {architecture}. Take sources of one architecture."
        )
    return _create_pretrained(name, f"timm:{name}")


def _read_hub(name: str, architecture: str | None) -> SourceWeights:
    """Read weights of a repository on the Hugging Face hub, through timm."""
    return _create_pretrained(f"hf-hub:{name}", f"hf-hub:{name}")


def _create_pretrained(name: str, origin: str) -> SourceWeights:
    """Let timm make a headless network with its published weights and take its state."""
    import timm

    try:
        network = timm.create_model(name, pretrained=True, num_classes=0)
    except Exception as error:  # the network, the cache and the repository fail in many ways
        lines = str(error).strip().splitlines() or [""]
        raise SourceError(
            f"{origin} cannot be read: neither the network nor the local cache gave its weights "
            f"({type(error).__name__}: {lines[0]}). Connect to the network, or download its weight "
            "file elsewhere and give the file's path as weights."
        ) from error
    config = getattr(network, "pretrained_cfg", None) or {}
    own = known(config.get("mean"), config.get("std"))
    return SourceWeights(dict(network.state_dict()), origin, own)


def _base(architecture: str) -> str:
    """Return a timm name without its weights' tag."""
    return architecture.partition(".")[0]


def _same_network(first: str, second: str) -> bool:
    """Whether two timm architectures have tensors of the same names and shapes."""
    if first == second:
        return True
    import timm

    shapes = []
    for name in (first, second):
        with torch.device("meta"):
            state = timm.create_model(name, pretrained=False, num_classes=0).state_dict()
        shapes.append({key: tensor.shape for key, tensor in state.items()})
    return shapes[0] == shapes[1]


READERS: dict[str, Callable[[str, str | None], SourceWeights]] = {
    "builtin": _read_builtin,
    "timm": _read_timm,
    "hf-hub": _read_hub,
    "torchvision": _read_torchvision,
}
"""Readers of the kinds of weights that are published under a name."""

FILE_READERS: dict[str, Callable[[str, str | None, str | None], SourceWeights]] = {
    "package": _read_package,
    "https": _read_address,
    "http": _read_address,
    "path": _read_path,
}
"""Readers of the kinds of weights that are files, those of
:data:`~zoo_lightning.sources.spec.FILES`."""
