"""Normalisation that a checkpoint notes about itself: how the images of its training were prepared.

Runs of this project note it for those who use the model without its data, OpenMMLab's checkpoints
contain their configuration, and older ones of Detectron2 have mean and deviation as tensors. In
other files nothing says it. No code of a configuration is run; it is only parsed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from zoo_lightning.sources.files import Contents
from zoo_lightning.sources.normalisation import Channels, Normalisation, Range, known
from zoo_lightning.sources.stems import GREY

LONGEST = 1_000_000
"""Characters of a configuration above which it is not parsed."""


def noted_normalisation(contents: Contents) -> Normalisation | None:
    """Normalisation that a weight file notes; ``None`` if it notes none.

    Args:
        contents: Contents of the file.
    """
    whole = contents.whole if isinstance(contents.whole, Mapping) else {}
    return _of_run(whole) or _of_openmmlab(whole) or _of_detectron(contents.state)


def _of_run(whole: Mapping[str, Any]) -> Normalisation | None:
    """Normalisation of a checkpoint of this project: that of its data."""
    ours = whole.get("zoo_lightning")
    data = ours.get("data") if isinstance(ours, Mapping) else None
    if not isinstance(data, Mapping):
        return None
    bands = data.get("bands")
    names = bands.get("names") if isinstance(bands, Mapping) else None
    named = names if isinstance(names, list) and names != [GREY] else None
    return known(data.get("mean"), data.get("std"), bands=named)


def _of_openmmlab(whole: Mapping[str, Any]) -> Normalisation | None:
    """Normalisation in a configuration of OpenMMLab, whose images are BGR in 0..255 as read.

    ``None`` if it has none, or several that differ.
    """
    meta = whole.get("meta")
    texts = [meta.get(key) for key in ("config", "cfg")] if isinstance(meta, Mapping) else []
    found = set()
    for text in texts:
        if not isinstance(text, str) or len(text) > LONGEST:
            continue
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for entry in _mappings(tree):
            to_rgb = entry.get("bgr_to_rgb", entry.get("to_rgb"))
            if isinstance(to_rgb, bool):
                order: Channels = "rgb" if to_rgb else "bgr"
                found.add(known(entry.get("mean"), entry.get("std"), "0..255", order))
    found.discard(None)
    return found.pop() if len(found) == 1 else None


def _mappings(tree: ast.AST) -> Iterator[dict[str, Any]]:
    """Yield the literal entries of every ``dict(...)`` and ``{...}`` of a configuration."""
    for node in ast.walk(tree):
        pairs: list[tuple[Any, ast.expr]] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "dict":
            pairs = [(each.arg, each.value) for each in node.keywords]
        elif isinstance(node, ast.Dict):
            pairs = [
                (key.value, value)
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant)
            ]
        entries = {}
        for key, value in pairs:
            if key in ("mean", "std", "to_rgb", "bgr_to_rgb"):
                try:
                    entries[key] = ast.literal_eval(value)
                except (ValueError, TypeError, RecursionError):
                    continue
        if entries:
            yield entries


def _of_detectron(state: Mapping[str, Tensor]) -> Normalisation | None:
    """Normalisation in the tensors ``pixel_mean`` and ``pixel_std``.

    Which channel is red shows in the mean: in photographs red is brighter than blue on average.
    ``None`` where it does not show.
    """
    mean, std = (
        next((t for key, t in state.items() if key.rpartition(".")[2] == name), None)
        for name in ("pixel_mean", "pixel_std")
    )
    if mean is None or std is None or mean.numel() != 3 or std.numel() != 3:
        return None
    means, stds = mean.flatten().tolist(), std.flatten().tolist()
    if means[0] == means[2]:
        return None
    order: Channels = "rgb" if means[0] > means[2] else "bgr"
    span: Range = "0..255" if max(means) > 1 else "0..1"
    return known(means, stds, span, order)
