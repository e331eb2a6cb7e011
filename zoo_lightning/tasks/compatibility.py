"""Check a checkpoint against the task, its options and its data, and explain what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from zoo_lightning.data.classification.base import is_integer
from zoo_lightning.data.image_files import one_form
from zoo_lightning.data.values import parse_value_range
from zoo_lightning.errors import ConfigError

FROM_DATA = ("num_points", "num_classes", "num_actions", "target_names")
"""Task options that the command line sets from the data."""

OF_IMAGES = ("mean", "std")
"""Backbone options that the command line sets from the data."""

COSTING = ("compile", "checkpoint_activations", "fused")
"""Task options that change time and memory only; the result changes by rounding at most."""

SHAPING = ("task", *FROM_DATA, "head", "heatmap_stride", "stride", "head_width")
"""Task options that determine the network's shape."""

SHAPING_BACKBONE = ("architecture", "mode", "align", "gating", "output", "in_chans", "image_size")
"""Backbone options that determine the network's shape."""


def task_differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], everything: bool
) -> list[str]:
    """List the options of a task in which a checkpoint differs from the configuration.

    Args:
        found: hyper-parameters in the checkpoint.
        wanted: hyper-parameters given now.
        everything: whether to compare all options; otherwise only those that shape the network.

    Returns:
        One phrase for each differing option, such as ``lr is 0.1 in the checkpoint, 0.2 here``.
    """
    rows = []
    for key in sorted(set(found) | set(wanted)):
        if key in ("backbone", *COSTING) or not (everything or key in SHAPING):
            continue
        if found.get(key) != wanted.get(key):
            rows.append(f"{key} is {found.get(key)!r} in the checkpoint, {wanted.get(key)!r} here")
    return rows + _backbone_differences(found["backbone"], wanted["backbone"], everything)


def data_differences(
    found: Mapping[str, Any], wanted: Mapping[str, Any], prefix: str = "data"
) -> list[str]:
    """List the options of the data in which a checkpoint differs from the configuration.

    Options that only one of the two has are not compared.

    Args:
        found: options in the checkpoint; empty in checkpoints of versions that did not keep them.
        wanted: options given now.
        prefix: dotted name of the options' parent, for the phrases.
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
    found: Mapping[str, Any], wanted: Mapping[str, Any], everything: bool
) -> list[str]:
    rows = []
    if found["class_path"] != wanted["class_path"]:
        rows.append(
            f"backbone is {found['class_path']} in the checkpoint, {wanted['class_path']} here"
        )
        return rows
    before, now = found["init_args"], wanted["init_args"]
    for key in sorted(set(before) | set(now)):
        # A plan changes speed only, and images are compared with the options of the data.
        if key in ("sources", "plan", *OF_IMAGES) or not (everything or key in SHAPING_BACKBONE):
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


def check_options(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Check that a checkpoint's network has the shape of the task's, for evaluation.

    Args:
        found: hyper-parameters in the checkpoint, and the task's class as ``task``.
        wanted: hyper-parameters given now, and the task's class as ``task``.

    Raises:
        ConfigError: with each option, its value in the checkpoint and the value given.
    """
    _refuse(
        task_differences(found, wanted, everything=False),
        "leave --experiment out, for --ckpt_path RUN_DIR knows what it was trained with, or give "
        "--config RUN_DIR/config.yaml",
    )


def check_resumed(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    lengths: tuple[int | None, int | None] | None = None,
    data: tuple[Mapping[str, Any], Mapping[str, Any]] = ({}, {}),
) -> None:
    """Check that a resumed training has the options of its checkpoint.

    Args:
        found: hyper-parameters in the checkpoint, and the task's class as ``task``.
        wanted: hyper-parameters given now, and the task's class as ``task``.
        lengths: schedule's steps in the checkpoint and now; ``None`` if the schedule does not
            depend on them.
        data: options of the data module in the checkpoint and now.

    Raises:
        ConfigError: with each option, its value in the checkpoint and the value given.
    """
    different = task_differences(found, wanted, everything=True)
    if lengths is not None and lengths[0] != lengths[1]:
        different.append(
            f"length of the {wanted['schedule']} schedule is {lengths[0]} steps in the "
            f"checkpoint, {lengths[1]} here"
        )
    different += data_differences(*data)
    _refuse(
        different,
        "resuming a run takes its own options: fit --ckpt_path RUN_DIR alone has them; to start a "
        "new run from its weights use --init_from instead of --ckpt_path",
    )


def _refuse(different: Sequence[str], remedy: str) -> None:
    if not different:
        return
    if all(row.partition(" is ")[0] in FROM_DATA for row in different):
        raise ConfigError(
            f"the data are not those that the checkpoint is for: {'; '.join(different)}, which "
            "come from the data; give data with the same classes, points or targets, or train a "
            "new head for these: fit with --sources RUN_DIR takes the run as a source"
        )
    raise ConfigError(f"the checkpoint has other options: {'; '.join(different)}. {remedy}")


def class_difference(found: Sequence[str] | None, wanted: Sequence[str] | None) -> str | None:
    """Describe the first output whose class name differs between checkpoint and data.

    If all names are integers, they are compared as numbers. Otherwise a class whose name is its own
    index, and no class's in the other list, counts as unnamed and is not compared.

    Args:
        found: class names in the checkpoint, in the order of the outputs, or ``None``.
        wanted: class names in the data, in the same order, or ``None``.

    Returns:
        A phrase for messages; ``None`` if all names agree or the numbers of classes differ.
    """
    if found is None or wanted is None or len(found) != len(wanted):
        return None
    found, wanted = ([one_form(str(name)) for name in names] for names in (found, wanted))
    numbers = [_as_numbers(names) for names in (found, wanted)]
    numbered = None not in numbers
    pairs = zip(*numbers, strict=True) if numbered else zip(found, wanted, strict=True)
    for output, (before, now) in enumerate(pairs):
        own = str(output)
        unnamed = own in (before, now) and (own in found) != (own in wanted)
        if before != now and (numbered or not unnamed):
            order = sorted(map(str, found)) == sorted(map(str, wanted))
            return (
                f"output {output} is class {str(found[output])!r} in the checkpoint, "
                f"{str(wanted[output])!r} in the data"
                f"{' (the same names in another order)' if order else ''}"
            )
    return None


def _as_numbers(names: Sequence[str]) -> list[int] | None:
    """Class names as integers, or ``None`` if some are not written as integers."""
    return [int(name) for name in names] if all(map(is_integer, names)) else None


def trained_classes(ours: Mapping[str, Any]) -> list[str] | None:
    """Class names of a checkpoint's outputs, or ``None`` if it has none.

    Args:
        ours: the checkpoint's ``zoo_lightning`` entry.
    """
    return (ours.get("data") or {}).get("classes")


def check_class_names(trained: Sequence[str] | None, data: Any) -> None:
    """Check that the data have the classes of a checkpoint's outputs, in the same order.

    Args:
        trained: class names in the checkpoint, as for :func:`class_difference`.
        data: data module; one without ``class_names`` is not checked.

    Raises:
        ConfigError: an output's class differs.
    """
    if other := class_difference(trained, getattr(data, "class_names", None)):
        raise ConfigError(
            f"the checkpoint has other classes: {other}. Give the data's classes the names, and "
            "with them the order, that they had in training; to train on others take the run as "
            "a source: fit with --sources RUN_DIR"
        )


def take_value_range(options: Any, content: Mapping[str, Any]) -> None:
    """Set ``value_range`` of the data to a checkpoint's, unless the user gave one.

    So are mean and deviation of images of chosen bands, which are those of its training images.

    Args:
        options: configuration of the data module; changed in place.
        content: the checkpoint's ``zoo_lightning`` entry.
    """
    found = (content.get("data") or {}).get("value_range")
    given = options.get("init_args") or {}
    if found and "value_range" in given and given["value_range"] is None:
        given["value_range"] = tuple(found)
    if "bands" in (content.get("data") or {}) and given.get("bands") is not None:
        for name in OF_IMAGES:
            given[name] = tuple(content["data"][name])


def check_value_range(ours: Mapping[str, Any], data: Any) -> None:
    """Check that images with more than 8 bits are scaled as in training.

    Args:
        ours: the checkpoint's ``zoo_lightning`` entry.
        data: data module; one without ``value_range`` is not checked.

    Raises:
        ConfigError: the ranges differ.
    """
    before = parse_value_range((ours.get("data") or {}).get("value_range"))
    now = getattr(data, "value_range", None)
    if before and now and before != now:
        raise ConfigError(
            f"data.value_range is {list(before)} in the checkpoint, {list(now)} here; give "
            f"value_range {before[0]:g},{before[1]:g}"
        )
