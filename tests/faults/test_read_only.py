"""Folders that may not be written into: one line, status 2, and everything stays as it was."""

import os
from pathlib import Path

import pytest

FIT = ("fit", "--experiment", "tiny")


def content(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def set_modes(folder: Path, writable: bool) -> None:
    """Let a folder and all in it be written to, or not."""
    paths = [folder, *folder.rglob("*")]
    for path in paths if writable else reversed(paths):
        mode = 0o755 if path.is_dir() else 0o644
        path.chmod(mode if writable else mode & 0o555)


@pytest.fixture
def sealed(tiny, command):
    """A run of four steps of eight in ``run``, and an empty folder, neither to be written into."""
    tiny(**{"model.init_args.schedule": "constant", "trainer.max_steps": 4})
    assert command(*FIT, "--run_dir", "run").status == 0
    tiny(**{"model.init_args.schedule": "constant"})
    Path("empty").mkdir()
    Path("photos").mkdir()
    for name in ("run", "empty"):
        set_modes(Path(name), writable=False)
    yield Path("run")
    for name in ("run", "empty"):
        set_modes(Path(name), writable=True)


def test_a_folder_that_takes_nothing_is_told_in_one_line_and_left_alone(
    sealed, command, ordinary_user, class_root
):
    before = content(sealed)
    photos = class_root / "test" / "ant"
    compare = ("compare", "--experiment", "tiny", "--methods", "scratch", "--seeds", "0")
    attempts = {
        (*FIT, "--run_dir", "run", "--ckpt_path", "last"): "run",
        (*FIT, "--run_dir", "empty/run"): "empty/run",
        (
            "test",
            "--experiment",
            "tiny",
            "--ckpt_path",
            "run",
            "--output",
            "empty/out",
        ): "empty/out",
        ("predict", "--ckpt_path", "run", "--images", photos, "--output", "empty/out"): "empty/out",
        ("export", "--ckpt_path", "run", "--format", "timm", "--output", "empty/out"): "empty/out",
        (*compare, "--run_dir", "empty/out"): "empty/out",
    }
    with ordinary_user():
        with pytest.raises(PermissionError):
            Path("empty/file").touch()
        for words, place in attempts.items():
            found = command(*words)
            last = found.err.strip().splitlines()[-1]
            assert found.status == 2, found.err
            assert last.startswith("error: cannot write"), (words, last)
            assert place in last
            assert "Permission denied" in last
            assert "Traceback" not in found.err
    assert content(sealed) == before
    assert list(Path("empty").iterdir()) == []


def test_a_run_whose_folder_may_be_written_again_goes_on(sealed, command, ordinary_user, runs):
    with ordinary_user():
        refused = command(*FIT, "--run_dir", "run", "--ckpt_path", "last")
        assert "the same command and --ckpt_path run/checkpoints/last.ckpt" in refused.err
    set_modes(sealed, writable=True)
    done = command(*FIT, "--run_dir", "run", "--ckpt_path", "last")
    assert done.status == 0, done.err
    assert command(*FIT, "--run_dir", "straight").status == 0
    assert runs.weights(sealed)["step"] == 8
    left, right = runs.weights(sealed), runs.weights(Path("straight"))
    assert [key for key in right if not (left[key] == right[key]).all()] == []


def test_a_sweep_in_a_folder_that_takes_nothing_is_refused(sealed, command, ordinary_user):
    pytest.importorskip("optuna")
    Path("small.yaml").write_text(
        "name: small\nmethod: grid\nmetric: {name: val/nme}\n"
        "parameters: {model.init_args.lr: {values: [0.002]}}\n"
        "command: ['${env}', '${interpreter}', -m, zoo_lightning, fit, --experiment=tiny, "
        "--config, '${args_json_file}']\n"
    )
    os.symlink("empty", "runs")
    with ordinary_user():
        found = command("sweep", "small.yaml", "--local")
    last = found.err.strip().splitlines()[-1]
    assert found.status == 2, found.err
    assert last.startswith("error: cannot write runs/sweeps")
    assert "Permission denied" in last
