"""What the sources of a comparison's zoo are: how alike, and what each is worth to the zoo."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule

from zoo_lightning.backbone import load_architecture
from zoo_lightning.comparing.grid import Cell, Comparison
from zoo_lightning.comparing.plots import plot_similarity
from zoo_lightning.comparing.similarity import Similarity, similarities
from zoo_lightning.experiment_sources import run_data
from zoo_lightning.gates.report import gate_report
from zoo_lightning.gates.writing import format_report, write_report
from zoo_lightning.methods.recipes import RECIPES
from zoo_lightning.plots import save_figure
from zoo_lightning.ranking import training_batches
from zoo_lightning.tasks import ClassificationTask, LandmarkTask
from zoo_lightning.tasks.loading import load_task
from zoo_lightning.text_files import TEXT
from zoo_lightning.whole_files import whole_file

FOLDER = "diagnosis"

IMAGES = 512
"""Training images that sources are compared on."""


def diagnose(comparison: Comparison, cells: Sequence[Cell], say: Callable[[str], object]) -> Path:
    """Write how alike the sources are, and for each zoo what each of them is worth.

    The first finished run of each zoo method is looked at, on the validation data, so that the test
    data decide nothing.

    Args:
        comparison: with finished runs.
        cells: of it.
        say: gets lines for people to read.

    Returns:
        The folder: ``similarity.json``, ``similarity.png``, and one of each zoo with the files of
        the report on its gates.
    """
    folder = comparison.folder / FOLDER
    compared = False
    seen: set[str] = set()
    for cell in cells:
        zoo = RECIPES[cell.method].zoo and cell.fraction == max(c.fraction for c in cells)
        if not zoo or cell.label in seen or comparison.summary(cell) is None:
            continue
        seen.add(cell.label)
        checkpoint = comparison.run(cell) / "checkpoints" / "best.ckpt"
        task = load_task(checkpoint)
        data = run_data(checkpoint)
        if not compared:
            compared = True
            loaded = load_architecture(task.backbone.architecture, task.backbone.sources)
            states = [each.state for each in loaded]
            found = similarities(task.backbone.architecture, states, _images(data))
            names = [source.name for source in task.backbone.sources]
            write_similarity(found, names, folder)
            say(f"similarity of the sources: {_summary(found, names)}")
        if isinstance(task, (ClassificationTask, LandmarkTask)):
            report = gate_report(task, data, "val", layer_samples=0)
            write_report(report, folder / cell.label, {"checkpoint": str(checkpoint)})
            say(f"\n{cell.label}, seed {cell.seed}:\n{format_report(report)}")
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
    with whole_file(folder / "similarity.json") as part:
        part.write_text(json.dumps(content, indent=1) + "\n", **TEXT)
    save_figure(plot_similarity(found, names), folder / "similarity.png")


def _summary(found: Sequence[Similarity], names: Sequence[str]) -> str:
    """The mean CKA of each pair over the layers."""
    mean = torch.stack([each.cka for each in found]).mean(dim=0)
    pairs = [(i, j) for i in range(len(names)) for j in range(i + 1, len(names))]
    return ", ".join(f"{names[i]} and {names[j]} {float(mean[i, j]):.2f}" for i, j in pairs)
