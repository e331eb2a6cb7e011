"""A disk that takes no more: nothing that was there is lost, and the message says what to do."""

import csv
import os
import subprocess
from pathlib import Path

import pytest
from PIL import Image

FILLING = """
import os
import resource
from pathlib import Path

from lightning.pytorch.callbacks import Callback


class LimitAt(Callback):
    \"\"\"From a step on, no file may become larger than so many bytes.\"\"\"

    def __init__(self, step: int, size: int) -> None:
        self.step, self.size = step, size

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, hard))


class FillAt(Callback):
    \"\"\"In a step, another program fills the disk.\"\"\"

    def __init__(self, step: int, file: str) -> None:
        self.step, self.file = step, file

    def on_train_batch_start(self, trainer, *args) -> None:
        if trainer.global_step == self.step:
            with open(self.file, "wb", buffering=0) as stream:
                try:
                    while stream.write(bytes(2**16)):
                        pass
                except OSError:
                    pass
"""
"""Callbacks by which the disk is full from a certain step on."""

FIT = ("fit", "--experiment", "tiny", "--run_dir")
AUGMENT = {"data.init_args.augment": True}


def stopped_by(found, *words):
    """One line that says what to do, and no traceback."""
    last = found.err.strip().splitlines()[-1]
    assert found.status == 2, found.err
    assert last.startswith("error: cannot write ")
    assert "Traceback" not in found.err
    for word in words:
        assert word in last


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("way", ["limit", pytest.param("disk", marks=pytest.mark.slow)])
def test_a_training_whose_disk_fills_goes_on_to_the_same_weights(
    tmp_path, tiny, command, monkeypatch, request, runs, halves, file_limit, way
):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "filling.py").write_text(FILLING)
    place = request.getfixturevalue("small_disk") if way == "disk" else tmp_path
    run = place / "run"
    fill = {
        "limit": {"class_path": "filling.LimitAt", "init_args": {"step": 5, "size": 2**16}},
        "disk": {
            "class_path": "filling.FillAt",
            "init_args": {"step": 5, "file": str(place / "ballast")},
        },
    }[way]
    tiny(**AUGMENT)
    assert command(*FIT, "straight").status == 0
    tiny(**AUGMENT, **{"trainer.callbacks": [fill]})
    with file_limit(2**40):  # what the callback sets ends here
        full = command(*FIT, run)
    last = run / "checkpoints" / "last.ckpt"
    told = {"limit": "File too large", "disk": "No space left on device"}[way]
    stopped_by(full, told, f"the same command and --ckpt_path {last}")
    assert int(runs.weights(run)["step"]) == 4
    assert halves(run) == []
    (place / "ballast").unlink(missing_ok=True)
    tiny(**AUGMENT)
    resumed = command(*FIT, run, "--ckpt_path", last)
    assert resumed.status == 0, resumed.err
    runs.assert_same_run(run, tmp_path / "straight")


def test_a_run_that_cannot_save_at_all_says_that_nothing_was_saved(tiny, command, file_limit):
    tiny()
    with file_limit(2**16):
        found = command(*FIT, "run")
    stopped_by(found, "run/", ": File too large", "Nothing had been saved yet")
    assert list(Path("run").rglob("*.ckpt")) == []


def test_predictions_are_whole_or_those_from_before(tiny, command, file_limit):
    tiny()
    assert command(*FIT, "run").status == 0
    Path("photos").mkdir()
    Image.new("RGB", (32, 32), "grey").save("photos/00.png")
    for number in range(1, 40):
        os.link("photos/00.png", f"photos/{number:02d}.png")
    words = (
        "predict",
        "--ckpt_path",
        "run",
        "--images",
        "photos",
        "--output",
        "out",
        "--overlays",
        "0",
    )
    assert command(*words).status == 0
    before = Path("out/predictions.csv").read_bytes()
    with file_limit(len(before) // 2):
        stopped_by(command(*words, "--overwrite"), "out/predictions.csv: File too large")
    assert Path("out/predictions.csv").read_bytes() == before
    assert [path.name for path in Path("out").iterdir()] == ["predictions.csv"]


@pytest.mark.slow
def test_a_comparison_whose_disk_is_full_goes_on_when_it_is_not(tiny, program, tmp_path):
    tiny()
    words = ("compare", "--run_dir", "out", "--experiment", "tiny", "--methods", "scratch",
             "--seeds", "0,1", "--no_costs")  # fmt: skip
    found = limited(program, tmp_path, *words)
    assert found.returncode == 1, found.stderr
    assert found.stdout.count("failed  runs/data-1/scratch/") == 2
    assert "File too large" in found.stdout
    again = limited(program, tmp_path, *words, kilobytes=None)
    assert again.returncode == 0, again.stderr
    with Path("out/table.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 2


def limited(program, folder, *words, kilobytes=256):
    """Run a command whose files may not become larger than so much."""
    limit = f"ulimit -f {kilobytes}; " if kilobytes else ""
    return subprocess.run(
        ["bash", "-c", f'{limit}exec "$@"', "bash", *program.words, *words],
        cwd=folder, env=program.environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
