"""Whether a checkpoint belongs to the configuration that is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zoo_lightning.errors import ConfigError


def differences(found: dict[str, Any], wanted: dict[str, Any], everything: bool) -> list[str]:
    """Options in which a checkpoint differs from the present configuration, for people to read.

    Args:
        found: hyper-parameters in the checkpoint.
        wanted: those given now.
        everything: compare all of them; otherwise only those that shape the network.
    """
    shaping = (
        "task",
        "num_points",
        "num_classes",
        "num_actions",
        "head",
        "heatmap_stride",
        "stride",
        "head_width",
    )
    rows = []
    for key in sorted(set(found) | set(wanted)):
        if key == "backbone" or not (everything or key in shaping):
            continue
        if found.get(key) != wanted.get(key):
            rows.append(f"{key} is {found.get(key)!r} in the checkpoint, {wanted.get(key)!r} here")
    return rows + _backbone_differences(found["backbone"], wanted["backbone"], everything)


def data_differences(
    found: dict[str, Any], wanted: dict[str, Any], prefix: str = "data"
) -> list[str]:
    """Options of the data in which a checkpoint differs from the present configuration.

    Args:
        found: in the checkpoint; none of versions that did not keep them.
        wanted: those given now; what one of both lacks is not compared.
        prefix: of the options' names.
    """
    classes = found.get("class_path"), wanted.get("class_path")
    if None not in classes and classes[0] != classes[1]:
        return [f"{prefix} are {classes[0]} in the checkpoint, {classes[1]} here"]
    rows = []
    for key in sorted(set(found) & set(wanted)):
        before, now, name = found[key], wanted[key], f"{prefix}.{key}"
        if isinstance(before, dict) and isinstance(now, dict):
            rows += data_differences(before, now, name)
        elif before != now:
            rows.append(f"{name} is {before!r} in the checkpoint, {now!r} here")
    return rows


def _backbone_differences(
    found: dict[str, Any], wanted: dict[str, Any], everything: bool
) -> list[str]:
    rows = []
    if found["class_path"] != wanted["class_path"]:
        rows.append(
            f"backbone is {found['class_path']} in the checkpoint, {wanted['class_path']} here"
        )
        return rows
    shaping = ("architecture", "mode", "align", "gating", "output", "in_chans")
    before, now = found["init_args"], wanted["init_args"]
    for key in sorted(set(before) | set(now)):
        # A plan changes speed only.
        if key in ("sources", "plan") or not (everything or key in shaping):
            continue
        if before.get(key) != now.get(key):
            rows.append(
                f"backbone.{key} is {before.get(key)!r} in the checkpoint, {now.get(key)!r} here"
            )
    # Only how many: files may have moved, and their weights are in the checkpoint.
    if found["class_path"] == "ZooBackbone" and len(before["sources"]) != len(now["sources"]):
        rows.append(
            f"backbone.sources are {len(before['sources'])} in the checkpoint, "
            f"{len(now['sources'])} here"
        )
    return rows


def class_difference(found: Sequence[str] | None, wanted: Sequence[str] | None) -> str | None:
    """The first output whose class has another name in the data than in the checkpoint.

    Where all names of both are integers they are compared as numbers. Otherwise a class that is
    called by its own number has no name, and is not compared.

    Args:
        found: names in the checkpoint, in the order of the outputs; ``None`` if it has none.
        wanted: those of the data.

    Returns:
        A sentence for people to read, or ``None`` where all agree or their number is another.
    """
    if found is None or wanted is None or len(found) != len(wanted):
        return None
    numbers = [_as_numbers(names) for names in (found, wanted)]
    numbered = None not in numbers
    pairs = zip(*numbers, strict=True) if numbered else zip(found, wanted, strict=True)
    for output, (before, now) in enumerate(pairs):
        if before != now and (numbered or str(output) not in (before, now)):
            order = sorted(map(str, found)) == sorted(map(str, wanted))
            return (
                f"output {output} is class {str(found[output])!r} in the checkpoint, "
                f"{str(wanted[output])!r} in the data"
                f"{' (the same names in another order)' if order else ''}"
            )
    return None


def _as_numbers(names: Sequence[str]) -> list[int] | None:
    """Names that are all written as integers, as numbers; ``None`` of others."""
    words = [str(name) for name in names]
    return (
        [int(word) for word in words] if all(w.isascii() and w.isdigit() for w in words) else None
    )


def trained_classes(ours: dict[str, Any]) -> list[str] | None:
    """Names of a checkpoint's outputs, from its ``zoo_lightning``; ``None`` if it has none."""
    return (ours.get("data") or {}).get("classes")


def check_class_names(trained: Sequence[str] | None, data: Any) -> None:
    """Refuse data whose classes are not those of a checkpoint's outputs.

    Args:
        trained: names in the checkpoint, as for :func:`class_difference`.
        data: a data module, or anything else, whose classes then have no names.

    Raises:
        ConfigError: naming the first output whose class is another.
    """
    if other := class_difference(trained, getattr(data, "class_names", None)):
        raise ConfigError(
            f"the checkpoint has other classes: {other}. Give the data's classes the names, and "
            "with them the order, that they had in training; to train on others start anew, from "
            "its weights with --init_from"
        )
