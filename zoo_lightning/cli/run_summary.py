"""Build the summary of a run: what was trained, at what cost, with what result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule

from zoo_lightning.callbacks.training_compute import TrainingCompute
from zoo_lightning.models.backbone import ZooBackbone
from zoo_lightning.models.plain import PlainBackbone
from zoo_lightning.runs.run_folder import CONFIG, METRICS, PAGE, PICTURES, compute_of
from zoo_lightning.sources.own_runs import SUMMARY
from zoo_lightning.sources.teachers import parse_teachers
from zoo_lightning.tasks import BaseTask, PPOTask


def preprocessing_of(datamodule: LightningDataModule) -> dict[str, list[float]]:
    """Return the mean and standard deviation by which the data's images are normalised."""
    names = ("mean", "std")
    if not all(hasattr(datamodule, name) for name in names):
        return {}
    return {name: list(getattr(datamodule, name)) for name in names}


def total_compute(
    counter: TrainingCompute,
    seconds: float,
    start_cost: Mapping[str, float],
    earlier: Mapping[str, Sequence[str]],
    processes: int,
) -> dict[str, Any]:
    """Add up the cost of a training, its informed start and the runs that it needed.

    Args:
        counter: callback that counted the training.
        seconds: duration of the training, seconds.
        start_cost: cost of the informed start; empty without one.
        earlier: run folders or checkpoints that the training needed, by part (``teachers``,
            ``init_from``).
        processes: number of processes, each with the same amount of work.

    Returns:
        ``multiply_adds`` in total, ``parts`` (multiply-adds by part) and ``seconds``, and ``unit``
        if there is a budget; multiply-adds are ``None`` if the training was compiled, or if an
        earlier run did not count them.
    """
    parts: dict[str, int | None] = {}
    counted: dict[str, int | None] = dict.fromkeys(counter.parts)
    if not counter.uncounted:
        counted |= counter.parts
    spent = seconds
    if start_cost:
        counted["start"] = int(start_cost["multiply_adds"])
        spent += start_cost["seconds"]
    for name, each in counted.items():
        parts[name] = None if each is None else each * processes
    for part, runs in earlier.items():
        costs = [compute_of(Path(run)) for run in runs]
        known = [cost["multiply_adds"] for cost in costs if cost.get("multiply_adds") is not None]
        if runs:
            parts[part] = sum(known) if len(known) == len(costs) else None
        spent += sum(cost.get("seconds", 0.0) for cost in costs)
    known = [each for each in parts.values() if each is not None]
    return {
        "multiply_adds": sum(known) if len(known) == len(parts) else None,
        "seconds": round(spent, 1),
        "parts": parts,
        **({"unit": counter.unit * processes} if counter.unit else {}),
    }


def describe_result(
    summary: Mapping[str, Any], run_dir: Path, checkpoint: Path, seconds: float
) -> str:
    """Format the end of a run: what it was, its checkpoint, its folder, how to train on."""
    # Without a logger there are no curves.
    files = [n for n in (CONFIG, METRICS, SUMMARY) if (run_dir / n).is_file()]
    files += [f"{PICTURES}/"] if (run_dir / PICTURES).is_dir() else []
    files += [PAGE] if (run_dir / PAGE).is_file() else []
    ended = ""
    if stopped := summary.get("stop_after"):
        ended = (
            f"\nended early  after {stopped:g} of the steps; to train on: "
            f"fit --ckpt_path {run_dir} --stop_after 1"
        )
    method = summary["method"]
    if result := summary.get("result"):  # which method auto selected
        method += f" ({' + '.join(result)})"
    return (
        f"\n{summary['experiment']}: {method}, {summary['steps']} steps, "
        f"{seconds:.0f} s\ncheckpoint   {checkpoint}\nrun folder   {run_dir}  ({', '.join(files)})"
        f"{ended}"
    )


def teacher_lines(task: BaseTask) -> list[str]:
    """Format a line for each teacher: name, weights, what it teaches and with which weight.

    Args:
        task: task to be trained.
    """
    options = task.hparams
    lines = []
    for spec in parse_teachers(options["teachers"] or []):
        name, weights = spec.source.name, spec.source.weights
        label = weights if name == weights else f"{name} ({weights})"
        taught = f"outputs, weight {options['teacher_weight']:g}"
        if not spec.teaches_outputs():
            taught = f"features, weight {options['feature_weight']:g}"
        lines.append(f"teacher       {label}: {taught}")
    return lines


def one_network_note(task: BaseTask) -> list[str]:
    """Format a note that one network, or a lite zoo equivalent to one, is trained.

    Args:
        task: task to be trained.

    Returns:
        One line, or none if the note does not apply; see ``docs/lite_is_one_network.md``.
    """
    zoo, options = task.backbone, task.hparams
    if isinstance(zoo, PlainBackbone) and len(zoo.config.get("sources") or ()) > 1:
        return [
            "note          one ordinary network, from the average of the sources; --experiment "
            "methods/lite behind the experiment trains the zoo"
        ]
    if not isinstance(zoo, ZooBackbone) or isinstance(task, PPOTask):
        return []
    lite = zoo.mode == "lite" and zoo.align == "none"
    # Gates that begin at a sum of one: numbers from the data, or equal parts.
    summing = isinstance(zoo.gate_init, list) or zoo.gate_init == "sum_to_one"
    adam = options["optimizer"] == "adamw" or (
        options["optimizer"] == "adam" and not options["weight_decay"]
    )
    if not (lite and summing and adam):
        return []
    return [
        "note          a lite zoo without alignment learns what one network learns, but for its "
        "gates (docs/lite_is_one_network.md); --experiment methods/start trains that network, at "
        "the cost of one"
    ]
