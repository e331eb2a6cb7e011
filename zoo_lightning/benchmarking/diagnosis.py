"""Diagnose a zoo: similarity of its sources by layer, and the value of each source."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from lightning.pytorch import LightningDataModule
from matplotlib.figure import Figure
from torch import Tensor, nn

from zoo_lightning.analysis.report import gate_report
from zoo_lightning.analysis.writing import format_report, write_report
from zoo_lightning.benchmarking.grid import Cell, Comparison
from zoo_lightning.benchmarking.plots import line_style
from zoo_lightning.experiments.resolving import run_data
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.files.text import TEXT
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.models.architecture import Architecture
from zoo_lightning.models.backbone import load_architecture
from zoo_lightning.plotting.figures import new_figure, save_figure
from zoo_lightning.runs.pool import Report
from zoo_lightning.runs.run_folder import find_checkpoint
from zoo_lightning.tasks import ClassificationTask, LandmarkTask, RegressionTask
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.transfer.ranking import training_batches

FOLDER = "diagnosis"

IMAGES = 512
"""Number of training images for the similarity of sources."""


def diagnose(comparison: Comparison, cells: Sequence[Cell], report: Report) -> Path:
    """Write the similarity of the sources, and for each zoo a gate report.

    The first finished run of each zoo method is analysed on the validation data, so that no
    decision depends on the test data.

    Args:
        comparison: comparison with finished runs.
        cells: cells of the comparison.
        report: function that receives the conclusions.

    Returns:
        The folder with ``similarity.json``, ``similarity.png``, and a folder for each zoo with the
        files of its gate report.
    """
    folder = comparison.folder / FOLDER
    compared = False
    seen: set[str] = set()
    for cell in cells:
        zoo = RECIPES[cell.method].zoo and cell.fraction == max(c.fraction for c in cells)
        if not zoo or cell.label in seen or comparison.summary(cell) is None:
            continue
        seen.add(cell.label)
        checkpoint = find_checkpoint(str(comparison.run(cell)), None, "")
        task = load_task(checkpoint)
        data = run_data(checkpoint)
        if not compared:
            compared = True
            loaded = load_architecture(task.backbone.architecture, task.backbone.sources)
            states = [each.state for each in loaded]
            found = similarities(task.backbone.architecture, states, _images(data))
            names = [source.name for source in task.backbone.sources]
            write_similarity(found, names, folder)
            report(f"similarity of the sources: {_summary(found, names)}")
        if isinstance(task, (ClassificationTask, LandmarkTask, RegressionTask)):
            gates = gate_report(task, data, "val", layer_samples=0)
            write_report(gates, folder / cell.label, {"checkpoint": str(checkpoint)})
            report(f"\n{cell.label}, seed {cell.seed}:\n{format_report(gates)}")
    return folder


def _images(data: LightningDataModule) -> list[torch.Tensor]:
    batches = training_batches(data, IMAGES)
    return [
        data.on_after_batch_transfer({"image": batch["image"]}, 0)["image"] for batch in batches
    ]


def write_similarity(found: Sequence[Similarity], names: Sequence[str], folder: Path) -> None:
    """Write ``similarity.json`` and ``similarity.png``."""
    content = {
        "sources": list(names),
        "layers": [
            {"layer": each.layer, "cka": each.cka.tolist(), "cosine": each.cosine.tolist()}
            for each in found
        ],
    }
    with atomic_file(folder / "similarity.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n", **TEXT)
    save_figure(plot_similarity(found, names), folder / "similarity.png")


def _summary(found: Sequence[Similarity], names: Sequence[str]) -> str:
    """Mean CKA of each pair of sources over the layers."""
    mean = torch.stack([each.cka for each in found]).mean(dim=0)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    return ", ".join(f"{names[i]} and {names[j]} {float(mean[i, j]):.2f}" for i, j in pairs)


class Similarity(NamedTuple):
    """Similarity of ``m`` sources in one layer.

    Attributes:
        layer: name of the layer.
        cka: ``(m, m)`` linear CKA of the layer's outputs for the images, in [0, 1].
        cosine: ``(m, m)`` cosine similarity of the kernels, in [-1, 1].
    """

    layer: str
    cka: Tensor
    cosine: Tensor


def linear_cka(first: Tensor, second: Tensor) -> float:
    """Compute the linear centred kernel alignment (CKA) of two feature matrices, in [0, 1].

    Kornblith et al., *Similarity of Neural Network Representations Revisited*, ICML 2019,
    equation 5 with linear kernels. It is invariant to order, rotation and isotropic scale of the
    channels, and 1 for features that are equal up to these.

    Args:
        first: ``(n, p)`` features of ``n`` samples.
        second: ``(n, q)`` features of the same samples.

    Returns:
        A number in [0, 1]; 0 if features do not vary.
    """
    x, y = (each.double() - each.double().mean(dim=0) for each in (first, second))
    # Products of samples or of features, whichever are fewer: both give the same norms.
    if len(x) < max(x.shape[1], y.shape[1]):
        x, y = x @ x.T, y @ y.T
        joint, ours, theirs = (x * y).sum(), x.norm(), y.norm()
    else:
        joint = (y.T @ x).square().sum()
        ours, theirs = (x.T @ x).norm(), (y.T @ y).norm()
    scale = float(ours * theirs)
    return float(joint) / scale if scale > 0 else 0.0


@torch.inference_mode()
def similarities(
    architecture: Architecture,
    states: Sequence[Mapping[str, Tensor]],
    images: Iterable[Tensor],
) -> list[Similarity]:
    """Compute the similarity of sources in every convolution and linear layer.

    Args:
        architecture: architecture of all sources.
        states: weights of the ``m`` sources.
        images: normalised batches ``(B, C, H, W)``; outputs are averaged over positions.

    Returns:
        A similarity for each layer, in the order in which the layers run.
    """
    batches = list(images)
    networks = [architecture.plain(state).eval() for state in states]
    features = [_features(network, architecture, batches) for network in networks]
    found = []
    for name in features[0]:
        outputs = [each[name] for each in features]
        kernels = [state[f"{name}.weight"] for state in states]
        found.append(Similarity(name, _pairwise(linear_cka, outputs), _pairwise(_cosine, kernels)))
    return found


def _pairwise(compare: Callable[[Tensor, Tensor], float], each: Sequence[Tensor]) -> Tensor:
    return torch.tensor([[compare(first, second) for second in each] for first in each])


def _features(
    network: nn.Module, architecture: Architecture, batches: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Outputs ``(n, channels)`` of every layer by name, averaged over positions."""
    kept: dict[str, list[Tensor]] = {}
    hooks = []
    for name, module in network.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            hooks.append(
                module.register_forward_hook(
                    lambda module, inputs, y, name=name: kept.setdefault(name, []).append(
                        y.mean(dim=(2, 3)) if y.dim() == 4 else y.flatten(1)
                    )
                )
            )
    for batch in batches:
        architecture.features(network, batch)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(parts) for name, parts in kept.items()}


def _cosine(first: Tensor, second: Tensor) -> float:
    return float(nn.functional.cosine_similarity(first.flatten(), second.flatten(), dim=0))


def plot_similarity(found: Sequence[Similarity], names: Sequence[str]) -> Figure:
    """Plot the linear CKA of every pair of sources over the layers.

    Args:
        found: similarities of the layers, in order.
        names: names of the sources.

    Returns:
        The figure.

    Raises:
        ValueError: fewer than two sources, or no layers.
    """
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    if not pairs or not found:
        raise ValueError(f"{len(names)} sources and {len(found)} layers; expected two and one")
    figure = new_figure(8.0, 4.5)
    axes = figure.subplots()
    for index, (i, j) in enumerate(pairs):
        similarity = [float(each.cka[i, j]) for each in found]
        axes.plot(similarity, label=f"{names[i]}, {names[j]}", **line_style(index))
    axes.set(ylim=(0, 1.02), ylabel="linear CKA of the layer's outputs")
    axes.set_xticks(range(len(found)), [each.layer for each in found], rotation=90, fontsize=6)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside right upper", fontsize=8, handlelength=4)
    return figure
