"""Peak memory of a variant's training steps, in a process of its own.

This is the largest resident set during two training steps, less the resident set before the network
was built: parameters, gradients, optimizer state, activations and memory that the allocator keeps.
The peak is reset after the network is built, so that building does not count.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.variants import SpeedSetting, Variant

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to ``CLEAR`` to reset the peak resident set to the present one (proc(5))."""


def status(key: str) -> int:
    """Memory of this process in bytes, ``VmRSS`` (present) or ``VmHWM`` (peak)."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key} in {STATUS}: peak memory is measured on Linux only")


def _settle() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def measure_here(name: str, setting: SpeedSetting) -> int:
    """Peak bytes of two training steps in this process."""
    _settle()
    before = status("VmRSS")
    variant = Variant(name, setting)
    _settle()
    CLEAR.write_text(RESET_PEAK)
    for _ in range(2):
        variant.train_step()
    return status("VmHWM") - before


def peak_memory(name: str, setting: SpeedSetting, threads: int) -> int:
    """Peak bytes of two training steps in a process of their own."""
    order = json.dumps([name, asdict(setting), threads])
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", order],
        cwd=Path(__file__).resolve().parents[1], check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    import torch

    chosen, options, number = json.loads(sys.argv[1])
    torch.set_num_threads(number)
    print(measure_here(chosen, SpeedSetting(**options)))
