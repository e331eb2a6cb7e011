"""Sweeps whose trials are quick stand-ins."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from zoo_lightning.sweeping import local
from zoo_lightning.sweeping.schema import Metric, read_sweep
from zoo_lightning.sweeping.study import Trials

FAKE = Path(__file__).with_name("fake_trial.py")
REPOSITORY = Path(__file__).resolve().parents[2]

COMMAND = ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment=tiny",
           "--config", "${args_json_file}"]  # fmt: skip

SCRIPT = f"""
import sys
from pathlib import Path
from zoo_lightning.sweeping import local
from zoo_lightning.sweeping.schema import read_sweep
from zoo_lightning.sweeping.study import Trials

real = local.words_of
local.POLL = 0.05
local.words_of = lambda trials, taken: [
    sys.executable, "-S", {str(FAKE)!r}, str(taken.folder), *real(trials, taken)]
sweep = read_sweep(Path(sys.argv[1]))
trials = Trials(sweep, sweep.metric, Path(sys.argv[2]), sys.argv[3])
print("begins", flush=True)
local.run_here(trials, int(sys.argv[4]), None, [], lambda line: print(line, flush=True))
"""
"""A sweep in a process of its own: file, folder, database, workers."""


def write_sweep(path: Path, **changes: object) -> Path:
    """Write a sweep file; ``None`` removes a key."""
    content = {
        "name": "fake",
        "method": "grid",
        "metric": {"name": "val/nme"},
        "parameters": {"x": {"values": [3.0, 1.0, 2.0]}},
        "command": COMMAND,
    } | changes
    path.write_text(yaml.safe_dump({k: v for k, v in content.items() if v is not None}))
    return path


@pytest.fixture
def fake(tmp_path, monkeypatch) -> SimpleNamespace:
    """A sweep in ``tmp_path`` whose trials are stand-ins.

    ``write`` changes the file, ``open`` gives its trials, ``run`` works through them for the lines
    that it says, ``start`` does so in another process, ``ran`` counts starts by trial.
    """
    pytest.importorskip("optuna")
    real = local.words_of
    monkeypatch.setattr(local, "POLL", 0.05)
    monkeypatch.setattr(
        local,
        "words_of",
        lambda trials, taken: [
            sys.executable, "-S", str(FAKE), str(taken.folder), *real(trials, taken)
        ],
    )  # fmt: skip
    file, folder = tmp_path / "fake.yaml", tmp_path / "out"
    write_sweep(file)
    url = f"sqlite:///{folder / 'study.db'}"

    def trials(**options: object) -> Trials:
        sweep = read_sweep(file)
        given = {"folder": folder, "url": url} | options
        return Trials(sweep, sweep.metric or Metric("val/nme"), **given)

    def run(workers: int = 1, count: int | None = None) -> list[str]:
        lines: list[str] = []
        local.run_here(trials(), workers, count, [], lines.append)
        return lines

    def start(workers: int = 1) -> subprocess.Popen:
        words = [sys.executable, "-c", SCRIPT, file, folder, url, workers]
        environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
        return subprocess.Popen(
            list(map(str, words)),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def ran() -> dict[int, int]:
        files = sorted(folder.glob("trials/*/ran.txt"))
        return {int(f.parent.name): len(f.read_text().splitlines()) for f in files}

    write: Callable[..., Path] = lambda **changes: write_sweep(file, **changes)  # noqa: E731
    return SimpleNamespace(
        file=file, folder=folder, write=write, open=trials, run=run, start=start, ran=ran
    )
