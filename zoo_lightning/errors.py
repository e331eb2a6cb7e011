"""The errors a user can cause. Each message names what was found, what was expected and the mend.

The command line prints these as one line; anything else that escapes is a fault of ours.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ZooError(Exception):
    """Root of all errors that come from what the user gave."""


class ConfigError(ZooError):
    """Options that contradict each other, the data or a checkpoint."""


class ArchitectureError(ZooError):
    """An architecture that does not exist or that cannot be aggregated."""


class SourceError(ZooError):
    """A source whose weights cannot be found, read safely, or fitted to the architecture."""


class DataError(ZooError):
    """A data folder, an annotation file or an image that cannot be used."""


class NumbersError(ZooError):
    """NaN or infinity in a training."""


class StorageError(ZooError):
    """A disk or a folder that does not take what is to be written."""


class LostProcessError(ZooError):
    """A process that a training needs and that is gone: killed, or its machine lost."""


class ExportError(ZooError):
    """An export that does not compute what its checkpoint does."""


def cause_of(error: BaseException) -> ZooError | None:
    """The error of ours that another one is or comes from."""
    found: BaseException | None = error
    while found is not None and not isinstance(found, ZooError):
        found = found.__cause__ or found.__context__
    return found


def message_of(error: ZooError) -> str:
    """An error's own message, without the traceback that a loader's process puts around it."""
    text = str(error)
    marks = [f"{kind.__module__}.{kind.__name__}: " for kind in type(error).__mro__]
    starts = [text.rfind(mark) + len(mark) for mark in marks if mark in text]
    if not text.startswith("Caught ") or not starts:
        return text
    return text[max(starts) :].strip()


def nearest(name: str, known: Iterable[str]) -> str:
    """Suggest the known name closest to a mistyped one.

    Returns:
        ``" Did you mean 'X'?"`` with a leading space, or an empty string if nothing is near.
    """
    matches = get_close_matches(name, list(known), n=1)
    return f" Did you mean {matches[0]!r}?" if matches else ""
