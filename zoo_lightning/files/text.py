"""Encoding of all text files, independent of the system's locale.

File names need not be UTF-8 (an old archive, a share of another system). Python holds the bytes it
cannot decode as lone surrogates; written with the same rule they are the same bytes again.
"""

from __future__ import annotations

from typing import TypedDict


class _Encoding(TypedDict):
    encoding: str
    errors: str


TEXT: _Encoding = {"encoding": "utf-8", "errors": "surrogateescape"}
"""Keyword arguments for ``open``, ``read_text`` and ``write_text``."""

ANNOTATIONS: _Encoding = {"encoding": "utf-8-sig", "errors": "surrogateescape"}
"""The same for reading text that others wrote, which may begin with a byte order mark."""


def encoding_hint(name: str) -> str:
    """Sentence about a name that is absent and no UTF-8 text; empty for other names."""
    if not any("\udc80" <= each <= "\udcff" for each in name):
        return ""
    return (
        " The name is no UTF-8 text, and no image has its very bytes: save the file as UTF-8 if it "
        "is in another encoding."
    )
