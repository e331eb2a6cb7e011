"""Fake process of a trial: writes the files of a run at once, or when it may.

Parameters: ``x``, the metric; ``how``: ``quick``, ``waits`` (until the sweep's folder has a file
``go``; on SIGTERM it saves and ends with 143), ``fails``, ``silent``.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

folder = Path(sys.argv[1])
values = json.loads((folder / "parameters.json").read_text())
how = values.get("how", "quick")
with open(folder / "ran.txt", "a") as stream:
    stream.write(f"{os.getpid()} {' '.join(sys.argv[2:])}\n")


def save(number, frame):
    (folder / "checkpoints").mkdir(exist_ok=True)
    (folder / "checkpoints" / "last.ckpt").write_text("state")
    sys.exit(128 + number)


signal.signal(signal.SIGTERM, save)


def log(count):
    rows = [f"{values['x'] + 1 / (1 + i)},{i}" for i in range(count)]
    (folder / "metrics.csv").write_text("\n".join(["val/nme,step", *rows]) + "\n")


if how == "fails":
    sys.exit("out of luck")
if how == "silent":
    (folder / "metrics.csv").write_text("val/other,step\n1.0,0\n")
    sys.exit(0)
log(2)
until = time.monotonic() + 60
while how == "waits" and not (folder.parents[1] / "go").exists() and time.monotonic() < until:
    time.sleep(0.02)
log(4)
(folder / "summary.json").write_text("{}")
