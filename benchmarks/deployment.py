"""Inference time of exported models against a plain timm model, timed alternately.

    python -m benchmarks.deployment --ckpt_path RUN_DIR [--batch 32] [--rounds 30] [--json FILE]

``RUN_DIR`` is a run that can be exported to timm (lite, single or average; classes or coordinates).
The results ``timm_vs_plain`` and ``onnx_vs_plain`` are medians over the rounds of ratios of times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import onnxruntime
import timm
import torch

from zoo_lightning import export


def seconds(run: Callable[[], object], repeats: int) -> float:
    """Time of a number of calls."""
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return time.perf_counter() - start


@torch.inference_mode()
def main() -> None:
    """Export a run, time its models and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ckpt_path", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--repeats", type=int, default=20, help="calls in each round")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = export(options.ckpt_path, "timm,onnx", Path(name) / "model", say=lambda line: None)
        folded = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        config = json.loads((folder / "config.json").read_text())
        plain = timm.create_model(config["architecture"], num_classes=config["num_classes"]).eval()
        sessions = onnxruntime.SessionOptions()
        sessions.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            folder / "model.onnx", sessions, providers=["CPUExecutionProvider"]
        )
        x = torch.randn(options.batch, *config["pretrained_cfg"]["input_size"])
        runs: dict[str, Callable[[], object]] = {
            "plain": lambda: plain(x),
            "timm": lambda: folded(x),
            "onnx": lambda: session.run(None, {"images": x.numpy()}),
        }
        times = {kind: [] for kind in runs}
        for number in range(options.rounds + 1):
            for kind, run in runs.items():
                taken = seconds(run, options.repeats)
                if number:  # the first round is a warm-up
                    times[kind].append(taken)
    found = {
        f"{kind}_vs_plain": statistics.median(
            taken / base for taken, base in zip(times[kind], times["plain"], strict=True)
        )
        for kind in ("timm", "onnx")
    }
    found["images_per_second_plain"] = (
        options.batch * options.repeats / statistics.median(times["plain"])
    )
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
