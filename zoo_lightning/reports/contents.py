"""Contents of a report: sections of facts, tables, pictures and code, free of any layout.

Readers of folders build them, :mod:`~zoo_lightning.reports.page` makes HTML of them. Texts are
plain: nothing here is escaped, and the page escapes everything but the charts, which it makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

MINUS = "\N{MINUS SIGN}"


@dataclass(frozen=True)
class Value:
    """Cell of a table: its text, and the number that it is sorted by.

    Attributes:
        text: text to show.
        key: number to sort by; ``None`` sorts by the text.
        link: relative address of a page about the value; empty for none.
    """

    text: str
    key: float | None = None
    link: str = ""


@dataclass(frozen=True)
class Table:
    """Table that can be sorted by each column.

    Attributes:
        heads: titles of the columns.
        rows: cells of each row, as many as there are titles.
        note: explanation below the table.
        marked: index of the row to emphasise; ``None`` for none.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""
    marked: int | None = None
    kind: str = "table"


def without_gaps(table: Table) -> Table:
    """Leave out the columns of a table that are empty in all rows."""
    kept = [
        place
        for place in range(len(table.heads))
        if not table.rows or any(row[place].text for row in table.rows)
    ]
    rows = [[row[place] for place in kept] for row in table.rows]
    return replace(table, heads=[table.heads[place] for place in kept], rows=rows)


@dataclass(frozen=True)
class Facts:
    """Names and values, such as what was trained."""

    pairs: Sequence[tuple[str, str]]
    kind: str = "facts"


@dataclass(frozen=True)
class Text:
    """Paragraphs.

    Attributes:
        lines: a paragraph each.
        warning: whether they point at something missing or damaged.
    """

    lines: Sequence[str]
    warning: bool = False
    kind: str = "text"


@dataclass(frozen=True)
class Code:
    """Text to be copied: a command, or a configuration.

    Attributes:
        text: the text.
        title: title of a long text, which is folded away; empty to show it at once.
    """

    text: str
    title: str = ""
    kind: str = "code"


@dataclass(frozen=True)
class Chart:
    """Chart drawn for the report.

    Attributes:
        svg: SVG element in which text has the page's colour.
        title: what it shows.
    """

    svg: str
    title: str
    kind: str = "chart"


@dataclass(frozen=True)
class Picture:
    """Picture that a run has drawn.

    Attributes:
        address: ``data:`` address with the whole picture.
        title: what it shows.
        width: width, pixels.
        height: height, pixels.
        name: name of its file without the suffix.
    """

    address: str
    title: str
    width: int
    height: int
    name: str
    kind: str = "picture"


@dataclass(frozen=True)
class Gallery:
    """Charts and pictures side by side where the page is wide enough."""

    shown: Sequence[Chart | Picture]
    kind: str = "gallery"


Block: TypeAlias = Table | Facts | Text | Code | Gallery


@dataclass
class Section:
    """Part of a report with a title.

    Attributes:
        title: its title.
        blocks: what it shows, in order.
        level: 2 for a part of the report, 3 for a part of such a part.
    """

    title: str
    blocks: list[Block] = field(default_factory=list)
    level: int = 2

    def add(self, *blocks: Block | None) -> None:
        """Append blocks; ``None`` is left out."""
        self.blocks += [block for block in blocks if block is not None]


@dataclass(frozen=True)
class Report:
    """Whole report.

    Attributes:
        title: title of the page.
        lead: the most important figures in a sentence.
        sections: its parts.
    """

    title: str
    lead: str
    sections: Sequence[Section]


def number(value: Any, digits: int = 4) -> str:
    """Format a number with some significant digits and grouped thousands; other values as text.

    Args:
        value: number, or anything else.
        digits: significant digits of fractions.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return "" if value is None else str(value)
    if not math.isfinite(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        text = f"{int(value):,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    else:
        text = f"{value:.{digits}g}"
    return text.replace("-", MINUS)


def value(content: Any, digits: int = 4) -> Value:
    """Make a table's cell of a number or a text."""
    key = None
    if isinstance(content, (int, float)) and not isinstance(content, bool):
        key = float(content) if math.isfinite(content) else None
    return Value(number(content, digits), key)


def duration(seconds: float) -> str:
    """Format seconds, minutes or hours with two units at most."""
    whole = round(seconds)
    if whole < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def operations(count: float) -> str:
    """Format a number of multiply-adds with its power of a thousand."""
    for size, word in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if count >= size:
            return f"{count / size:.3g} {word}"
    return number(count)


def facts(pairs: Iterable[tuple[str, Any]]) -> Facts:
    """Make facts of names and values, without those whose value is ``None`` or empty."""
    return Facts([(name, number(each)) for name, each in pairs if each not in (None, "", [], {})])
