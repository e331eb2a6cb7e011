"""Encoded images inside larger files: shards of an archive, rows of a table.

They are opened where an image file would be, so that nothing has to be unpacked.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, BinaryIO


class StoredImage(ABC):
    """Encoded image inside a larger file. Its text names that file and its place there.

    Attributes:
        name: readable name with forward slashes, unique in the data.
        suffix: lower-case suffix of the image's format with its dot; empty if it is unknown.
    """

    name: str
    suffix: str

    @abstractmethod
    def open(self, mode: str = "rb") -> BinaryIO:
        """Open the encoded image for reading.

        Raises:
            OSError: there is nothing that can be read.
        """


ImageFile = Path | StoredImage
"""An image file, or an encoded image inside a larger file."""


class FileSection(io.RawIOBase):
    """Section of a file, read as if it were a file of its own.

    Args:
        path: the file.
        offset: first byte of the section.
        size: bytes of the section.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, offset: int, size: int) -> None:
        super().__init__()
        self._file = path.open("rb", buffering=0)
        self._offset, self._size, self._position = offset, size, 0

    def readable(self) -> bool:
        """Whether the section can be read: always."""
        return True

    def seekable(self) -> bool:
        """Whether the position can be set: always."""
        return True

    def tell(self) -> int:
        """Position within the section, bytes."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position within the section; returns it."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if start + offset < 0:
            raise OSError(f"a section has no position {start + offset}")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read bytes into a buffer; returns how many."""
        count = max(min(len(buffer), self._size - self._position), 0)
        self._file.seek(self._offset + self._position)
        found = self._file.readinto(memoryview(buffer)[:count]) or 0
        self._position += found
        return found

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()
