"""Errors that a user can cause. Each message names what was found, what was expected and a fix.

The command line prints them in one line; any other exception is a bug of this package.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ZooError(Exception):
    """Base class of all errors that a user can cause and fix."""


class ConfigError(ZooError):
    """Options that have invalid values or contradict each other, the data or a checkpoint."""


class ArchitectureError(ZooError):
    """An architecture that does not exist or that cannot be aggregated."""


class SourceError(ZooError):
    """A source whose weights cannot be found, read safely, or fitted to the architecture."""


class DataError(ZooError):
    """A data folder, an annotation file or an image that cannot be used."""


class NumbersError(ZooError):
    """NaN or infinity in the loss or the gradients of a training."""


class StorageError(ZooError):
    """A disk or a folder that a file cannot be written to."""


class LostProcessError(ZooError):
    """A process of the run that ended unexpectedly: it was killed, or its machine was lost."""


class ExportError(ZooError):
    """An exported model whose outputs differ from its checkpoint's."""


def cause_of(error: BaseException) -> ZooError | None:
    """Find the ZooError that an exception is or was raised from; ``None`` if there is none."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ZooError):
        found = found.__cause__ or found.__context__
    return found


def message_of(error: ZooError) -> str:
    """Return an error's message without the traceback that a DataLoader worker adds to it."""
    text = str(error)
    marks = [f"{kind.__module__}.{kind.__name__}: " for kind in type(error).__mro__]
    starts = [text.rfind(mark) + len(mark) for mark in marks if mark in text]
    if not text.startswith("Caught ") or not starts:
        return text
    return text[max(starts) :].strip()


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name closest to a mistyped one.

    Args:
        name: mistyped name.
        known: names to choose from.

    Returns:
        ``" Did you mean 'X'?"`` with a leading space, or an empty string if none is close.
    """
    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
