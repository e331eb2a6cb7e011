"""Parameters and their values as tables and figures show them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def text_of(value: Any) -> str:
    """A value as JSON, the same text for equal mappings."""
    return json.dumps(value, sort_keys=True)


def shown(value: Any) -> str:
    """A value for people to read."""
    return f"{value:.4g}" if isinstance(value, float) else text_of(value).strip('"')


def is_numeric(values: Sequence[Any]) -> bool:
    """Whether all values are numbers, true and false not counted as such."""
    return all(isinstance(each, (int, float)) and not isinstance(each, bool) for each in values)


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Names without what comes before their last dots, as far as they differ then."""
    found = {}
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts) + 1):
            short = ".".join(parts[-length:])
            if sum(other == short or other.endswith(f".{short}") for other in names) == 1:
                break
        found[name] = short
    return found
