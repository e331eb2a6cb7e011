"""Numbers as YAML gives them, and what to say of those that are none."""

from __future__ import annotations

import re
from typing import Any


def expected(wanted: str, found: Any) -> str:
    """What was expected and found; with the mend for text that was meant as a number."""
    mend = ""
    if looks_scientific(found):
        mantissa, exponent = found.lower().split("e")
        mend = f"; write {mantissa}.0e{exponent}: without the point it is text to YAML"
    return f"expected {wanted}, found {found!r}{mend}"


def looks_scientific(value: Any) -> bool:
    """Whether a text is a number to anybody but YAML, which wants a point before the exponent."""
    return isinstance(value, str) and bool(re.fullmatch(r"[+-]?\d+[eE][+-]?\d+", value))


def is_integer(value: Any) -> bool:
    """Whether it is a whole number; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a number, and not NaN."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
