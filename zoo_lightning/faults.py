"""What happens to a run from outside, told in one line that says how to go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch.distributed as dist

from zoo_lightning.callbacks.interrupt import TrainingInterrupted
from zoo_lightning.errors import LostProcessError, StorageError, ZooError, message_of
from zoo_lightning.run_folder import CHECKPOINTS
from zoo_lightning.whole_files import storage_error


class Terminated(KeyboardInterrupt):
    """SIGTERM outside of a training, where nothing is to be saved; Lightning knows its kind."""

    signal_number = signal.SIGTERM


@contextmanager
def terminable() -> Iterator[None]:
    """Raise :class:`Terminated` on SIGTERM, in the main thread.

    Otherwise Lightning only makes a note of the signal, and tests go on to their end.
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
def told(run_dir: Path) -> Iterator[None]:
    """Say of a run that is stopped from outside how it goes on.

    Args:
        run_dir: of the run.

    Raises:
        TrainingInterrupted: by a signal.
        StorageError: a disk or folder takes no more.
        LostProcessError: a process of the run is gone.
    """
    last = run_dir / CHECKPOINTS / "last.ckpt"
    try:
        yield
    except KeyboardInterrupt as error:
        raise _stopped(error, last) from error
    except SystemExit as end:  # what Lightning makes of it
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        raise _stopped(end.__context__, last) from end
    except Exception as error:
        ours = fault_of(error)
        if ours is None:
            raise
        raise type(ours)(f"{message_of(ours)}. {_how_to_go_on(last)}") from error


def fault_of(error: BaseException) -> ZooError | None:
    """What an error has to do with the world outside, as one of ours; ``None`` for others."""
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


def _stopped(error: KeyboardInterrupt, last: Path) -> TrainingInterrupted:
    number = getattr(error, "signal_number", signal.SIGINT)
    return TrainingInterrupted(number, last if last.is_file() else None)


def _how_to_go_on(last: Path) -> str:
    if last.is_file():
        return f"Then go on with the same command and --ckpt_path {last}"
    return "Nothing had been saved yet: then give the same command again"
