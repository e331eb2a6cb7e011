"""Fixtures of all tests: no network, no files left behind, the same random numbers every time."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from zoo_lightning.cli.program import main
from zoo_lightning.sources import files

WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if WORKERS > 1:
    # Processes share the cores; each one's children find their number in the environment.
    THREADS = max((os.cpu_count() or 1) // WORKERS, 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(THREADS))
    torch.set_num_threads(THREADS)

REPOSITORY = Path(__file__).resolve().parents[1]
REAL_DATA = REPOSITORY.parent / "shared" / "data"

OFFLINE = Path(__file__).with_name("offline")
"""Folder whose ``sitecustomize`` refuses connections that leave this machine."""

NOWHERE = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")
"""Sends programs that are not Python, such as W&B's, to a port where nobody listens."""


LONG = (
    "experiments/test_user_callbacks.py",
    "runs/test_resume.py",
    "benchmarking/test_command.py",
    "cli/test_cli.py",
    "test_experiments.py",
    "deployment/test_export.py",
    "pipelines/test_command.py",
    "sweeps/test_command.py",
)
"""Modules that take longest, these first, so that no process is left with one at the end."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep modules whole in ``-n auto``, so that what their tests share is made once."""
    if config.option.dist != "load":
        return None  # the user asked for another distribution
    from xdist.scheduler import LoadScopeScheduling

    config.option.loadscopereorder = False  # keep the order of pytest_collection_modifyitems
    return LoadScopeScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of long modules first; the others stay in order."""
    places = {name: place for place, name in enumerate(LONG)}
    here = Path(__file__).parent
    items.sort(key=lambda item: places.get(item.path.relative_to(here).as_posix(), len(LONG)))


def without_network(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment of a process that is to stay on this machine."""
    paths = environment.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(OFFLINE), *(path for path in paths if path and path != str(OFFLINE))]
    proxies = NOWHERE | {"no_proxy": "127.0.0.1,localhost,::1"}
    proxies |= {name.upper(): value for name, value in proxies.items()}
    return {**environment, **proxies, "PYTHONPATH": os.pathsep.join(paths)}


def _refuse_network() -> None:
    """Keep this process, and all that it starts, on this machine."""
    module_beside("offline/sitecustomize")
    os.environ.update(without_network(os.environ))
    sys.path.append(str(OFFLINE))  # for libraries that hand sys.path on to their processes
    sys.addaudithook(_refuse_other_environments)


def _refuse_other_environments(event: str, arguments: tuple) -> None:
    """Audit hook: a process that a test starts gets the environment that keeps it offline.

    Raises:
        RuntimeError: the environment was not made from that of this process.
    """
    if event != "subprocess.Popen":
        return
    environment = arguments[3]
    if environment is None:
        return
    if str(OFFLINE) not in environment.get("PYTHONPATH", "").split(os.pathsep):
        raise RuntimeError("env must contain os.environ with its PYTHONPATH; use `program`")


@pytest.fixture(autouse=True)
def _alone(request, tmp_path_factory, monkeypatch):
    """Caches and Weights & Biases kept away from the user's own; a fixed seed."""
    home = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("TORCH_HOME", str(home / "torch"))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    elif not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    monkeypatch.setenv("MPLBACKEND", "agg")
    torch.manual_seed(0)


@pytest.fixture
def _heard():
    """Signals reach this process and those it starts, also where tests run in the background."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def real_data():
    """Folder of a real data set by name; skips where the data sets are not beside the project."""

    def folder(name: str) -> Path:
        path = REAL_DATA / name
        if not path.is_dir():
            pytest.skip(f"the real data set {name} is not beside this checkout")
        return path

    return folder


def header(num_points):
    return ",".join(["image", *(f"{axis}{k}" for k in range(num_points) for axis in "xy")])


def write_csv(path, names, points):
    """Write a landmark file; points (N, K, 2)."""
    lines = [header(points.shape[1])]
    for name, row in zip(names, points.reshape(len(points), -1), strict=True):
        lines.append(",".join([name, *(f"{value:.3f}" for value in row)]))
    path.write_text("\n".join(lines) + "\n")


@pytest.fixture(name="write_csv")
def _write_csv():
    return write_csv


@pytest.fixture
def landmark_root(tmp_path):
    """Ten persons with two images of 40x40 pixels and five points each, and four test images."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for table, people, each in (("train", 10, 2), ("test", 2, 2)):
        names = [f"{table}{chr(97 + p)}_{i:02d}.png" for p in range(people) for i in range(each)]
        for name in names:
            pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name)
        write_csv(tmp_path / f"{table}.csv", names, rng.uniform(5, 35, (len(names), 5, 2)))
    return tmp_path


@pytest.fixture
def class_root(tmp_path):
    """Three classes of 40x30 pixels, told apart by their colour: six to train on, two to test."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 6), ("test", 2)):
        for label, name in enumerate(("ant", "bee", "cat")):
            folder = tmp_path / "classes" / part / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 80, (30, 40, 3), dtype=np.uint8)
                pixels[..., label] += 170
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "classes"


@pytest.fixture
def number_root(tmp_path):
    """Images of 40x30 pixels with two numbers: twelve to train on, four to test.

    ``bright`` is the mean grey value, ``red`` a thousand minus a tenth of the red channel's.
    """
    rng = np.random.default_rng(0)
    folder = tmp_path / "numbers"
    (folder / "images").mkdir(parents=True)
    for part, count in (("train", 12), ("test", 4)):
        lines = ["image,bright,red"]
        for index in range(count):
            grey, red = rng.integers(20, 200), rng.integers(0, 50)
            pixels = np.full((30, 40, 3), grey, dtype=np.uint8)
            pixels[..., 0] += np.uint8(red)
            name = f"{part}{index:02d}.png"
            Image.fromarray(pixels).save(folder / "images" / name)
            lines.append(f"{name},{pixels.mean():.3f},{1000 - pixels[..., 0].mean() / 10:.3f}")
        (folder / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def label_root(tmp_path):
    """Images of 40x30 pixels with the labels red, green and blue, their bright channels.

    Twelve groups of two images (``NAME_NUMBER.png``) to train on, and eight images to test.
    """
    rng = np.random.default_rng(0)
    root = tmp_path / "labels"
    (root / "images").mkdir(parents=True)
    for part, count in (("train", 24), ("test", 8)):
        lines = ["image,labels"]
        for index in range(count):
            # Every combination of labels, none among them.
            channels = [channel for channel in range(3) if index >> channel & 1]
            pixels = rng.integers(0, 80, (30, 40, 3), dtype=np.uint8)
            pixels[..., channels] += 170
            image = f"{part}{chr(97 + index // 2)}_{index % 2}.png"
            Image.fromarray(pixels).save(root / "images" / image)
            present = ";".join(("red", "green", "blue")[channel] for channel in channels)
            lines.append(f"{image},{present}")
        (root / f"{part}.csv").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def mask_root(tmp_path):
    """Images of 40x30 pixels with masks: a red and a blue rectangle on grey; eight and four."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 8), ("test", 4)):
        for index in range(count):
            pixels = rng.integers(0, 80, (30, 40, 3), dtype=np.uint8)
            mask = np.zeros((30, 40), np.uint8)
            for label, channel in ((1, 0), (2, 2)):
                left, top = 20 * (label - 1) + rng.integers(1, 9), rng.integers(1, 17)
                mask[top : top + 12, left : left + 10] = label
                pixels[mask == label, channel] = 250
            for folder, content, suffix in (("images", pixels, "jpg"), ("masks", mask, "png")):
                path = tmp_path / "scenes" / part / folder / f"{part}{index}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(content).save(path)
    (tmp_path / "scenes" / "classes.txt").write_text("ground\nred\nblue\n")
    return tmp_path / "scenes"


def module_beside(name: str) -> ModuleType:
    """A module in or below this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_refuse_network()


@pytest.fixture(scope="session")
def class_files() -> ModuleType:
    """The module beside this one that writes small files in the layouts of published data sets."""
    return module_beside("class_files")


@pytest.fixture(scope="session")
def wandb_records() -> ModuleType:
    """The module beside this one that reads what offline runs of Weights & Biases wrote."""
    return module_beside("wandb_records")


TINY = {
    "seed_everything": 0,
    "pictures": False,
    "trainer": {
        "accelerator": "cpu",
        "max_steps": 8,
        "max_epochs": -1,
        "val_check_interval": 4,
        "check_val_every_n_epoch": None,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    },
    "model": {
        "class_path": "LandmarkTask",
        "init_args": {
            "lr": 0.002,
            "backbone": {
                "class_path": "ZooBackbone",
                "init_args": {
                    "architecture": "test_resnet",
                    "sources": ["random:1", "random:2"],
                    "mode": "lite",
                },
            },
        },
    },
    "data": {
        "class_path": "DrawnFaces",
        "init_args": {
            "train_size": 24,
            "val_size": 6,
            "test_size": 6,
            "image_size": 32,
            "batch_size": 4,
            "num_workers": 0,
        },
    },
}
"""An experiment of a second: eight steps of a lite zoo of two random sources on drawn faces."""


def write_tiny(folder: Path, **changes: object) -> Path:
    """Write the experiment ``tiny`` into a folder's ``experiments``; changes have dotted names."""
    config = yaml.safe_load(yaml.safe_dump(TINY))  # a copy in plain types
    for dotted, value in changes.items():
        *parents, last = dotted.split(".")
        place = config
        for key in parents:
            place = place.setdefault(key, {})
        place[last] = value
    path = folder / "experiments" / "tiny.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Go to an empty folder with the experiment ``tiny``; called with changes, write it again."""
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    return lambda **changes: write_tiny(tmp_path, **changes)


@pytest.fixture(scope="session")
def tiny_in() -> Callable[..., Path]:
    """Write the experiment ``tiny`` into any folder."""
    return write_tiny


@dataclass(frozen=True)
class Outcome:
    """What a command line came to.

    Attributes:
        status: of its exit.
        out: what it printed.
        err: likewise, to the standard error.
    """

    status: int
    out: str
    err: str

    def refused(self, *words: object) -> str:
        """The one line of error that a mistake ends with; it has all of some words."""
        lines = self.err.strip().splitlines()
        assert self.status == 2, self.err
        assert [line for line in lines if line.startswith("error: ")] == lines[-1:], self.err
        assert not any(line.startswith(("Traceback", "usage:")) for line in lines), self.err
        assert [word for word in words if str(word) not in lines[-1]] == [], lines[-1]
        return lines[-1]


@pytest.fixture
def command(capfd, monkeypatch) -> Callable[..., Outcome]:
    """Run a command line in this process, for its exit status and what it prints."""
    # Lightning's logger keeps writing to the standard error of the test that imported it.
    monkeypatch.setattr(logging, "raiseExceptions", False)

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        try:
            status = main([str(word) for word in arguments])
        except SystemExit as end:
            status = end.code or 0
        out, err = capfd.readouterr()
        return Outcome(status, out, err)

    return run


@pytest.fixture(scope="session")
def _finished_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    write_tiny(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert not main(["fit", "--experiment", "tiny", "--run_dir", "done", "--pictures=true"])
    return folder / "done"


@pytest.fixture
def finished(_finished_once, tiny) -> Path:
    """A finished run of the experiment ``tiny`` in ``done``, for the test alone."""
    return shutil.copytree(_finished_once, Path("done"))


@pytest.fixture
def reads(monkeypatch) -> Counter[Path]:
    """How often this process has read each weight file, by the files' places."""
    seen: Counter[Path] = Counter()

    def counted(read: Callable[..., Any]) -> Callable[..., Any]:
        def note(file: Any, *args: Any, **options: Any) -> Any:
            path = file if isinstance(file, (str, os.PathLike)) else file.name
            seen[Path(path).resolve()] += 1
            return read(file, *args, **options)

        return note

    monkeypatch.setattr(torch, "load", counted(torch.load))
    monkeypatch.setattr(files, "load_file", counted(files.load_file))
    return seen


@pytest.fixture(scope="session")
def program() -> SimpleNamespace:
    """Words that start the program in a process of its own, and that process's environment."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{os.environ['PYTHONPATH']}",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "WANDB_MODE": "disabled",
    }
    return SimpleNamespace(words=[sys.executable, "-m", "zoo_lightning"], environment=environment)


@pytest.fixture
def one_thread():
    """The same sums in the same order as a process that was started with one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
