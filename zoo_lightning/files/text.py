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
