"""Peak memory of a variant's training steps, each in a process of its own.

What is measured is the largest resident set during two training steps, less that of the same
process before it built anything: parameters, gradients, optimiser state, activations and whatever
the allocator keeps. The mark is reset after the network is built, so that building does not count.
"""

from __future__ import annotations

import ctypes
import gc
import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks.variants import Setting, Variant

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""What Linux wants written to reset the highest resident set to the present one (proc(5))."""


def _status(key: str) -> int:
    """A figure of this process in bytes: ``VmRSS`` or ``VmHWM``."""
    for line in STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"no {key} in {STATUS}: peak memory is measured on Linux only")


def _settle() -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


def measure_here(name: str, setting: Setting) -> int:
    """Bytes at the peak of two training steps in this process."""
    _settle()
    before = _status("VmRSS")
    variant = Variant(name, setting)
    _settle()
    CLEAR.write_text(RESET_PEAK)
    for _ in range(2):
        variant.train_step()
    return _status("VmHWM") - before


def peak_memory(name: str, setting: Setting, threads: int) -> int:
    """Bytes at the peak of two training steps, measured in a fresh process."""
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
    print(measure_here(chosen, Setting(**options)))
