"""Download files into torch's cache, atomically and with checked digests."""

from __future__ import annotations

import hashlib
import re
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote, urlparse
from urllib.request import Request, urlopen

import torch

from zoo_lightning.errors import SourceError
from zoo_lightning.files.atomic import atomic_file

BLOCK = 1 << 20
"""Bytes read at a time."""

TIMEOUT = 30.0
"""Seconds without an answer after which a download fails."""


def cache_folder() -> Path:
    """Return the folder where torch keeps downloaded checkpoints."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def cached_name(url: str) -> str:
    """Return an address's file name in the cache: its own, after a hash of the address."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", PurePosixPath(unquote(urlparse(url).path)).name)
    return f"{hashlib.sha256(url.encode()).hexdigest()[:8]}-{name[-100:] or 'weights'}"


def fetch(url: str, sha256: str | None = None, file_name: str | None = None) -> Path:
    """Return the local copy of a file, downloading it the first time.

    The file appears under its name only when it is complete and checked, so several processes may
    ask for it at once. A cached copy whose digest is wrong is downloaded again.

    Args:
        url: The address, without a fragment.
        sha256: The expected digest, or its beginning, in lower case.
        file_name: The name in the cache; derived from the address by default.

    Raises:
        SourceError: If the download fails, is incomplete, or has another digest.
    """
    path = cache_folder() / (file_name or cached_name(url))
    if path.is_file() and (sha256 is None or sha256_of(path).startswith(sha256)):
        return path
    try:
        with atomic_file(path) as part:
            with part.open("xb") as file:
                found = _copy(url, file)
            if sha256 is not None and not found.startswith(sha256):
                raise SourceError(
                    f"{url} has SHA-256 {found}, expected {sha256}: it was changed or damaged. "
                    "Nothing was kept; check the address and the digest."
                )
    except (OSError, HTTPException, ValueError) as error:
        raise SourceError(
            f"{url} cannot be downloaded ({error or type(error).__name__}). Check the network and "
            "the address, or download it elsewhere and give the file's path as weights."
        ) from error
    return path


def _copy(url: str, file: BinaryIO) -> str:
    """Copy an address's content into a file and return its SHA-256."""
    request = Request(url, headers={"User-Agent": "zoo_lightning"})
    digest, received = hashlib.sha256(), 0
    with urlopen(request, timeout=TIMEOUT) as answer:
        if url.startswith("https:") and not answer.geturl().startswith("https:"):
            raise SourceError(f"{url} leads to {answer.geturl()}, which is not encrypted.")
        expected = answer.headers.get("Content-Length")
        while block := answer.read(BLOCK):
            digest.update(block)
            file.write(block)
            received += len(block)
    if expected is not None and int(expected) != received:
        raise SourceError(f"{url} broke off after {received} of {expected} bytes: try again.")
    return digest.hexdigest()
