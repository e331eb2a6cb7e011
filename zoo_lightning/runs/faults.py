"""Explain interruptions from outside a run, such as signals and full disks."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from zoo_lightning.callbacks.checkpoints import TrainingInterrupted
from zoo_lightning.errors import LostProcessError, StorageError, ZooError, message_of
from zoo_lightning.files.atomic import storage_error
from zoo_lightning.runs.run_folder import last_checkpoint


class Terminated(KeyboardInterrupt):
    """Raised on SIGTERM outside of training, where nothing is saved; handled like Ctrl-C."""

    signal_number = signal.SIGTERM


@contextmanager
def raise_on_sigterm() -> Iterator[None]:
    """Context manager that raises :class:`Terminated` on SIGTERM, in the main thread.

    Otherwise Lightning only records the signal, and a test runs to its end.
    """

    def handle(number: int, frame: object) -> None:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def explained_faults(run_dir: Path, trained: bool = False) -> Iterator[None]:
    """Context manager that converts interruptions to errors which explain how to resume a run.

    Args:
        run_dir: run folder.
        trained: whether the run's training is finished.

    Raises:
        TrainingInterrupted: the process received a signal.
        StorageError: a disk or folder cannot be written to.
        LostProcessError: a process of the run has died.
    """
    last = last_checkpoint(run_dir)
    try:
        yield
    except KeyboardInterrupt as error:
        raise _stopped(error, last, trained) from error
    except SystemExit as end:  # what Lightning makes of it
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        raise _stopped(end.__context__, last, trained) from end
    except Exception as error:
        ours = external_fault(error)
        if ours is None:
            raise
        raise type(ours)(f"{message_of(ours)}. {_how_to_resume(last)}") from error


def external_fault(error: BaseException) -> ZooError | None:
    """Convert an error with a cause outside the program to a ZooError; ``None`` for others."""
    if isinstance(error, (StorageError, LostProcessError)):
        return error
    if isinstance(error, BrokenPipeError):
        return LostProcessError("a process that reads what this one writes is gone (closed pipe)")
    if isinstance(error, OSError):
        return storage_error(error)
    text = " ".join(str(error).split())
    if isinstance(error, RuntimeError) and text.startswith("DataLoader worker"):
        return LostProcessError(
            f"a process that loads data is gone ({text.rstrip('. ')}). If the memory was full, "
            "lower data.num_workers or data.cache_mb"
        )
    # Gloo's errors have no class of their own.
    if isinstance(error, dist.DistError) or "/gloo/" in text:
        return LostProcessError(f"another process of this training is gone ({text[:120]})")
    return None


def _stopped(error: KeyboardInterrupt, last: Path, trained: bool) -> TrainingInterrupted:
    number = getattr(error, "signal_number", signal.SIGINT)
    return TrainingInterrupted(number, last if last.is_file() else None, trained)


def _how_to_resume(last: Path) -> str:
    if last.is_file():
        return f"Then resume with the same command and --ckpt_path {last}"
    return "Nothing had been saved yet: then give the same command again"
