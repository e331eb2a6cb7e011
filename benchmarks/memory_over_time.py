"""Memory over time in a long training and in many rollouts, run by the program itself.

    python -m benchmarks.memory_over_time steps --output results/robustness
    python -m benchmarks.memory_over_time rollouts --output results/robustness

``steps`` are 20,000 optimiser steps of a lite zoo of two sources, each of two convolutions, on
images of 16×16 in batches of 2, validated ten times; ``rollouts`` are 200 rollouts of PPO with a
lite zoo, 16 steps of 8 games each and four optimiser steps on them, validated four times. Networks,
images and rollouts are small, because a leak grows with each step, whatever its size. Memory is the
process's resident set. Each command writes a JSON file, and a plot of all JSON files.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn

from benchmarks.memory import status
from zoo_lightning.cli.program import main as zoo_lightning
from zoo_lightning.files.atomic import atomic_file
from zoo_lightning.plotting.figures import new_figure, save_figure

SAMPLES = 200
"""Number of measurements in a training."""

SMALL_ZOO = [
    "--model.init_args.backbone.init_args.sources=[random:1, random:2]",
    "--model.init_args.backbone.init_args.gate_init=auto",
    "--model.init_args.backbone.init_args.norm_weights=uniform",
]

COMMANDS: dict[str, tuple[int, list[str]]] = {
    "steps": (
        20_000,
        ["fit", "--experiment", "classification", *SMALL_ZOO, "--data.image_size", "16",
         "--model.init_args.backbone.init_args.architecture",
         "benchmarks.memory_over_time.SmallNetwork", "--data.batch_size", "2",
         "--data.num_workers", "0", "--trainer.limit_val_batches", "50"],
    ),
    "rollouts": (
        200,
        ["fit", "--experiment", "rl", *SMALL_ZOO, "--data.game", "breakout", "--data.num_envs", "8",
         "--data.num_steps", "16", "--data.val_games", "2", "--data.test_games", "2",
         "--data.max_frames", "2000", "--model.update_epochs", "2", "--model.num_minibatches", "2"],
    ),
}  # fmt: skip
"""Number of batches, and the command that trains on them."""


class SmallNetwork(nn.Module):
    """Two convolutions with norm layers, so that a step is mostly overhead."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        )  # fmt: skip
        self.input_size = (3, 16, 16)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, 16)`` of images ``(B, 3, H, W)``."""
        return self.layers(images).mean(dim=(2, 3))


class MemoryLog(Callback):
    """Log the resident set at regular intervals.

    Args:
        file: JSON file for the log.
        every: batches between measurements.
    """

    def __init__(self, file: str, every: int) -> None:
        self.file, self.every = Path(file), every
        self.rows: list[tuple[int, float, float]] = []
        self.start = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        """Measure, and write the log."""
        batches = trainer.fit_loop.total_batch_idx + 1
        if batches % self.every == 0:
            mb = status("VmRSS") / 2**20
            self.rows.append((batches, round(mb, 2), round(time.monotonic() - self.start, 1)))
            self.file.write_text(json.dumps(self.rows))


def command_of(kind: str, batches: int, folder: Path, notes: Path) -> list[str]:
    """Command line of a training."""
    every = max(batches // SAMPLES, 1)
    length = (
        ["--data.total_steps", str(batches * 8 * 16), "--trainer.val_check_interval",
         str(max(batches // 4, 1))]
        if kind == "rollouts"
        else ["--trainer.max_steps", str(batches), "--trainer.val_check_interval",
              str(max(batches // 10, 1))]
    )  # fmt: skip
    return [
        *COMMANDS[kind][1], *length, "--run_dir", str(folder), "--trainer.accelerator", "cpu",
        "--trainer.enable_progress_bar", "false",
        "--trainer.callbacks+=benchmarks.memory_over_time.MemoryLog",
        f"--trainer.callbacks.file={notes}", f"--trainer.callbacks.every={every}",
    ]  # fmt: skip


def growth(rows: Sequence[Sequence[float]]) -> dict[str, float]:
    """Growth of memory over the last three quarters, after everything was allocated.

    Args:
        rows: batches, megabytes and seconds of each measurement.

    Returns:
        ``settled_mb`` (median of the second quarter), ``end_mb`` (median of the last quarter),
        ``per_1000_batches_mb`` (least squares over the last three quarters).
    """
    quarter = max(len(rows) // 4, 1)
    late = rows[quarter:]
    batches, mb = [row[0] for row in late], [row[1] for row in late]
    slope = statistics.linear_regression(batches, mb).slope
    return {
        "settled_mb": round(statistics.median(row[1] for row in rows[quarter : 2 * quarter]), 1),
        "end_mb": round(statistics.median(row[1] for row in rows[-quarter:]), 1),
        "per_1000_batches_mb": round(1000 * slope, 3),
    }


def measure(kind: str, batches: int) -> dict[str, Any]:
    """Train, and measure the memory."""
    with tempfile.TemporaryDirectory() as place:
        notes = Path(place, "notes.json")
        words = command_of(kind, batches, Path(place, "run"), notes)
        if zoo_lightning(words) != 0:
            raise SystemExit("the training failed")
        rows = json.loads(notes.read_text())
    command = f"python -m benchmarks.memory_over_time {kind} --batches {batches}"
    return {"command": command, "batches": batches, "seconds": rows[-1][2],
            **growth(rows), "rows": rows}  # fmt: skip


def draw(folder: Path) -> None:
    """Plot all measurements in ``memory.png``."""
    found = {kind: folder / f"memory_{kind}.json" for kind in COMMANDS}
    found = {kind: json.loads(p.read_text()) for kind, p in found.items() if p.is_file()}
    figure = new_figure(4.5 * len(found), 3)
    for axes, (kind, content) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        batches, mb, _ = zip(*content["rows"], strict=True)
        axes.plot(batches, mb, color="black", linewidth=1)
        axes.set_ylim(0, 1.2 * max(mb))
        axes.set(xlabel=kind, ylabel="resident set, MB")
        axes.set_title(f"{content['per_1000_batches_mb']:+.2f} MB per 1,000 {kind}", fontsize=9)
    save_figure(figure, folder / "memory.png")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=COMMANDS)
    parser.add_argument("--batches", type=int, help="steps or rollouts (default: 20,000 or 200)")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    found = measure(options.kind, options.batches or COMMANDS[options.kind][0])
    with atomic_file(options.output / f"memory_{options.kind}.json") as part:
        part.write_text(json.dumps(found) + "\n")
    draw(options.output)
    print(json.dumps({key: value for key, value in found.items() if key != "rows"}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
