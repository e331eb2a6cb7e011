"""Fixtures of tests that do to a run what the world does: killing, full disks, lost rights."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest

from zoo_lightning.files.atomic import PART


@pytest.fixture(scope="session")
def runs() -> ModuleType:
    """The module that knows when two runs are the same."""
    file = Path(__file__).parents[1] / "runs/test_resume.py"
    spec = importlib.util.spec_from_file_location("same_runs", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def halves(folder: Path) -> list[Path]:
    """Files that somebody has begun to write and not finished."""
    return [path for path in folder.rglob("*") if PART.fullmatch(path.name)]


@pytest.fixture(name="halves")
def _halves() -> Callable[[Path], list[Path]]:
    return halves


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """The system takes no file of this process beyond so many bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture(name="file_limit")
def _file_limit() -> Callable:
    return file_limit


class Capabilities(ctypes.Structure):
    """What ``capset`` takes, version 3: low and high words of three sets (capabilities(7))."""

    _fields_ = [
        (f"{name}{word}", ctypes.c_uint32)
        for word in range(2)
        for name in ("effective", "permitted", "inheritable")
    ]


OVERRIDING = 0b1110
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER: by which root may write anywhere."""


@contextmanager
def ordinary_user() -> Iterator[None]:
    """The modes of files count for this process, even if it is root's."""
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), Capabilities()
    if libc.capget(header, ctypes.byref(sets)) != 0:
        pytest.skip("root's rights cannot be looked at here")
    before = sets.effective0
    sets.effective0 = before & ~OVERRIDING
    if libc.capset(header, ctypes.byref(sets)) != 0:
        pytest.skip("root's rights cannot be given up here")
    try:
        yield
    finally:
        sets.effective0 = before
        libc.capset(header, ctypes.byref(sets))


@pytest.fixture(name="ordinary_user")
def _ordinary_user() -> Callable:
    return ordinary_user


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of its own with 48 MB, where this process may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode != 0:
        pytest.skip("no file system may be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def descendants(pid: int) -> list[int]:
    """Processes below one, from the system's table."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


@pytest.fixture(name="descendants")
def _descendants() -> Callable[[int], list[int]]:
    return descendants


def kill(pid: int, number: int, everything: bool = False) -> None:
    """Signal a process; ``everything`` sends it to those below as well, as a machine's end does."""
    for each in [*(descendants(pid) if everything else []), pid]:
        try:
            os.kill(each, number)
        except ProcessLookupError:
            continue


@pytest.fixture(name="kill")
def _kill() -> Callable[..., None]:
    return kill


def lives(pid: int) -> bool:
    """Whether a process is there and not just waiting to be buried."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def all_gone() -> Callable[[list[int]], None]:
    """Wait until processes have ended by themselves."""

    def wait(pids: list[int], seconds: float = 120.0) -> None:
        end = time.monotonic() + seconds
        while left := [pid for pid in pids if lives(pid)]:
            if time.monotonic() > end:
                for pid in left:
                    os.kill(pid, signal.SIGKILL)
                pytest.fail(f"{left} live on")
            time.sleep(0.2)

    return wait
