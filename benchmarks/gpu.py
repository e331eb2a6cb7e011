"""Measure one GPU: time and memory of training steps, PPO's speed, and the planner's constants.

    python -m benchmarks.gpu --out results/speed/NAME
    python -m benchmarks.gpu --out results/speed/NAME --fit-constants
    python -m benchmarks.gpu --device cpu --quick --out FOLDER

Needs no network: sources have random weights. It begins nothing after ``--seconds``, writes
``gpu.json`` and ``gpu.md`` after every figure, and names what it left out. Variants are measured
one after the other, so that each one's memory is its own; nothing else should run on the GPU.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import json
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks import ppo
from benchmarks.planner_rates import LAYERS, QUICK, fitted, measure_layers
from benchmarks.variants import SpeedSetting, Variant

ROOT = Path(__file__).resolve().parents[1]

COLUMNS = ("plain", "lite", "lite unaligned", "full", "usual lite", "usual full", "folded")
NAMES = {"usual lite": "reference_lite", "usual full": "reference_full", "lite unaligned": "lite"}

SETTINGS = (
    SpeedSetting("resnet50", 64, 224, precision="bf16"),
    SpeedSetting("vit_small_patch16_224", 64, 224, precision="bf16"),
    SpeedSetting("resnet50", 64, 224),
    SpeedSetting("test_resnet", 64, 64),
)
QUICK_SETTINGS = (
    SpeedSetting("test_resnet", 2, 32, sources=2, precision="bf16"),
    SpeedSetting("test_vit", 2, 160, sources=2),
)


class Report:
    """Figures so far, written to a folder after each.

    Args:
        out: folder for ``gpu.json`` and ``gpu.md``.
        device: type of the device.
        seconds: time after which nothing is begun.
    """

    def __init__(self, out: Path, device: str, seconds: float) -> None:
        self.out, self.deadline = out, time.monotonic() + seconds
        name = torch.cuda.get_device_name() if device == "cuda" else platform.processor()
        self.content: dict[str, Any] = {
            "device": name or platform.machine(),
            "kind": device,
            "torch": torch.__version__,
            "commit": _commit(),
            "tests": None,
            "steps": [],
            "ppo": None,
            "constants": None,
            "left_out": [],
        }
        out.mkdir(parents=True, exist_ok=True)

    def has_time(self, what: str) -> bool:
        """Whether there is time for another figure; notes what is left out otherwise."""
        if time.monotonic() < self.deadline:
            return True
        self.leave_out(what, "no time left")
        return False

    def leave_out(self, what: str, reason: str) -> None:
        """Note a figure that is not measured."""
        self.content["left_out"].append(f"{what}: {reason}")
        self.write()

    def write(self) -> None:
        """Write both files."""
        (self.out / "gpu.json").write_text(json.dumps(self.content, indent=1) + "\n")
        (self.out / "gpu.md").write_text(table(self.content))


def _commit() -> str:
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def measure_step(name: str, setting: SpeedSetting, turns: int, warm_up: int) -> dict[str, Any]:
    """Measure a variant's training step and evaluation step.

    Args:
        name: one of ``COLUMNS``.
        setting: network, batch, device and precision.
        turns: number of timed steps of each kind.
        warm_up: number of untimed steps before.

    Returns:
        ``train`` and ``eval`` in seconds, ``bytes``, the most memory allocated in training, and
        ``waits``, the number of times that a training step makes the host wait; ``None`` for what
        does not exist or cannot be seen on the device.
    """
    if name == "lite unaligned":
        setting = replace(setting, align="none")
    gpu = setting.device == "cuda"
    if gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    variant = Variant(NAMES.get(name, name), setting)
    found: dict[str, Any] = {"train": None, "bytes": None, "waits": None}
    if name != "folded":
        found["train"] = _seconds(variant.train_step, gpu, turns, warm_up)
        if gpu:
            found["bytes"] = torch.cuda.max_memory_allocated()
            found["waits"] = _waits(variant)
    variant.eval_step()
    found["eval"] = _seconds(variant.eval_step, gpu, turns, warm_up)
    return found


def _seconds(step: Any, gpu: bool, turns: int, warm_up: int) -> float:
    def once() -> float:
        start = time.perf_counter()
        step()
        if gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - start

    for _ in range(warm_up):
        once()
    return median(once() for _ in range(turns))


def _waits(variant: Variant) -> int:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            variant.train_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing" in str(each.message) for each in seen)


def steps(report: Report, device: str, quick: bool) -> None:
    """Measure the training steps of all settings and variants."""
    for setting in QUICK_SETTINGS if quick else SETTINGS:
        setting = replace(setting, device=device, fused=device == "cuda")
        for name in COLUMNS:
            label = f"{setting.architecture} {setting.precision}, {name}"
            if not report.has_time(label):
                continue
            row: dict[str, Any] = {**vars(setting), "variant": name}
            try:
                row |= measure_step(name, setting, 2 if quick else 10, 1 if quick else 5)
            except TypeError as error:  # the usual implementation has convolutions only
                report.leave_out(label, str(error))
                continue
            except torch.OutOfMemoryError:
                report.leave_out(label, "out of memory")
                continue
            finally:
                gc.collect()
            report.content["steps"].append(row)
            report.write()
            print(label, {key: row[key] for key in ("train", "eval", "bytes", "waits")}, flush=True)


def policies(report: Report, device: str, quick: bool) -> None:
    """Measure PPO's agent steps per second, with games on the CPU."""
    if importlib.util.find_spec("ale_py") is None:
        report.leave_out("PPO", "ale_py is not installed")
        return
    turns, length = (1, 8) if quick else (4, 128)
    found: dict[str, float] = {}
    for name in ("plain", "lite", "full"):
        if not report.has_time(f"PPO, {name}"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            accelerator = "gpu" if device == "cuda" else "cpu"
            turn = ppo.our_turns(
                name, "breakout", length, turns + 1, folder, accelerator=accelerator
            )
            seconds = []
            for _ in range(turns + 1):
                start = time.perf_counter()
                turn()
                seconds.append(time.perf_counter() - start)
        found[name] = ppo.ENVS * length / median(seconds[1:])
        report.content["ppo"] = found
        report.write()
        print(f"PPO, {name}: {found[name]:.0f} steps/s", flush=True)


def constants(report: Report, device: str, quick: bool) -> None:
    """Fit the planner's constants and print the row of ``RATES``."""
    layers, batch = (QUICK, 2) if quick else (LAYERS, 64)
    measured = measure_layers(layers, batch, 2 if quick else 5, device, report.deadline)
    if len(measured) < 2 * len(layers):
        report.leave_out("planner constants", f"{len(measured)} of {2 * len(layers)} layers")
    if not measured:
        return
    report.content["constants"] = found = fitted(measured, device)
    report.write()
    print(found["row"])
    print(f"lost to the fastest ways: {found['lost_before']:.1%} before, "
          f"{found['lost_after']:.1%} with this row")  # fmt: skip


def gpu_tests(report: Report) -> None:
    """Run the tests marked ``gpu``."""
    words = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider",
             "tests/test_gpu.py", "tests/nn/test_random_numbers.py"]  # fmt: skip
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr]
    report.content["tests"] = {"passed": done.returncode == 0, "summary": lines[-1]}
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n")
    report.write()


def table(content: dict[str, Any]) -> str:
    """Format the figures as Markdown."""
    lines = [f"{content['device']}, torch {content['torch']}, commit {content['commit']}", ""]
    lines += _step_table(content["steps"])
    if content["ppo"]:
        each = ", ".join(f"{name} {speed:.0f}" for name, speed in content["ppo"].items())
        lines += ["", f"PPO, agent steps per second, games on the CPU: {each}"]
    if content["constants"]:
        lines += ["", f"`{content['constants']['row']}`"]
    if content["tests"]:
        lines += ["", f"Tests: {content['tests']['summary']}"]
    lines += ["", *(f"- not measured: {each}" for each in content["left_out"])]
    return "\n".join(lines).rstrip() + "\n"


def _step_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    head = ("network", "batch", "size", "precision", "variant", "training ms", "x plain",
            "evaluation ms", "memory GB", "waits")  # fmt: skip
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    keys = ("architecture", "batch", "size", "precision")
    plain = {tuple(r[k] for k in keys): r["train"] for r in rows if r["variant"] == "plain"}
    for row in rows:
        base = plain.get(tuple(row[key] for key in keys))
        ratio = row["train"] / base if row["train"] and base else None
        cells = [*(row[key] for key in keys), row["variant"], _number(row["train"], 1e3),
                 _number(ratio, 1), _number(row["eval"], 1e3), _number(row["bytes"], 1e-9),
                 "" if row["waits"] is None else row["waits"]]  # fmt: skip
        yield "| " + " | ".join(map(str, cells)) + " |"


def _number(value: float | None, factor: float) -> str:
    return "" if value is None else f"{value * factor:.2f}"


def main(arguments: list[str] | None = None) -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small networks, to try the script")
    parser.add_argument("--fit-constants", action="store_true", help="the planner's constants only")
    parser.add_argument("--no-tests", action="store_true", help="leave out the tests marked gpu")
    parser.add_argument("--seconds", type=float, default=420, help="begin nothing after these")
    parser.add_argument("--out", type=Path, required=True, help="folder for gpu.json and gpu.md")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no GPU; --device cpu --quick tries the script")
    report = Report(options.out, options.device, options.seconds)
    if options.fit_constants:
        constants(report, options.device, options.quick)
        return
    if options.device == "cuda" and not options.no_tests:
        gpu_tests(report)
    steps(report, options.device, options.quick)
    policies(report, options.device, options.quick)
    constants(report, options.device, options.quick)


if __name__ == "__main__":
    main()
