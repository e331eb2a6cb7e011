"""Sweeps whose trials are fake processes."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from zoo_lightning.sweeps.schema import SweepMetric, read_sweep

if importlib.util.find_spec("optuna") is None:
    collect_ignore = ["test_search.py", "test_worker.py"]

FAKE = Path(__file__).with_name("fake_trial.py")
REPOSITORY = Path(__file__).resolve().parents[2]

COMMAND = ["${env}", "${interpreter}", "-m", "zoo_lightning", "fit", "--experiment=tiny",
           "--config", "${args_json_file}"]  # fmt: skip

SCRIPT = f"""
import sys
from pathlib import Path
from zoo_lightning.sweeps import study, worker
from zoo_lightning.sweeps.schema import read_sweep

study.HEARTBEAT, study.GRACE = 1, 3
real = worker.words_of
worker.POLL = 0.05
worker.words_of = lambda trials, taken: [
    sys.executable, "-S", {str(FAKE)!r}, str(taken.folder), *real(trials, taken)]
sweep = read_sweep(Path(sys.argv[1]))
trials = study.SweepStudy(sweep, sweep.metric, Path(sys.argv[2]), sys.argv[3])
print("begins", flush=True)
worker.run_here(trials, int(sys.argv[4]), None, [], lambda line: print(line, flush=True))
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
    """A sweep in ``tmp_path`` whose trials are fake processes.

    ``write`` changes the file, ``open`` returns the study, ``run`` runs it and returns the lines
    that it logs, ``start`` runs it in another process, ``ran`` counts the starts of each trial.
    """
    pytest.importorskip("optuna")
    from zoo_lightning.sweeps import study, worker

    monkeypatch.setattr(study, "HEARTBEAT", 1)
    monkeypatch.setattr(study, "GRACE", 3)
    real = worker.words_of
    monkeypatch.setattr(worker, "POLL", 0.05)
    monkeypatch.setattr(
        worker,
        "words_of",
        lambda trials, taken: [
            sys.executable, "-S", str(FAKE), str(taken.folder), *real(trials, taken)
        ],
    )  # fmt: skip
    file, folder = tmp_path / "fake.yaml", tmp_path / "out"
    write_sweep(file)
    url = f"sqlite:///{folder / 'study.db'}"

    def trials(**options: object) -> study.SweepStudy:
        sweep = read_sweep(file)
        given = {"folder": folder, "url": url} | options
        return study.SweepStudy(sweep, sweep.metric or SweepMetric("val/nme"), **given)

    def run(workers: int = 1, count: int | None = None) -> list[str]:
        lines: list[str] = []
        worker.run_here(trials(), workers, count, [], lines.append)
        return lines

    def start(workers: int = 1) -> subprocess.Popen:
        words = [sys.executable, "-c", SCRIPT, file, folder, url, workers]
        paths = f"{REPOSITORY}{os.pathsep}{os.environ['PYTHONPATH']}"
        environment = os.environ | {"PYTHONPATH": paths}
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
