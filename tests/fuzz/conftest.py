"""How often a property is tried: a little in every run, a lot with ``-m slow``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test of ``cases`` runs with the two numbers of its mark, the larger one marked slow."""
    if "cases" in metafunc.fixturenames:
        quick, thorough = metafunc.definition.get_closest_marker("cases").args
        numbers = [quick, pytest.param(thorough, marks=pytest.mark.slow)]
        metafunc.parametrize("cases", numbers)


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "cases(quick, thorough): how often a property is tried")


@pytest.fixture
def try_all(cases: int) -> Callable[..., None]:
    """Function that tries a property on values drawn from strategies, the same in every run."""

    def run(check: Callable[..., None], **drawn: st.SearchStrategy[Any]) -> None:
        limited = settings(
            max_examples=cases,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        limited(given(**drawn)(check))()

    return run


@pytest.fixture
def attempt() -> Callable[..., tuple[Any, str]]:
    """Function that calls another: what it returns, and what its error of a kind says."""

    def run(kind: type[Exception], call: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
        try:
            return call(*arguments), ""
        except kind as error:
            return None, str(error)

    return run


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """A file with parts of it overwritten, taken out, doubled or cut off."""
    place = st.integers(0, len(whole))
    change = st.tuples(
        st.sampled_from(["overwrite", "insert", "remove", "double", "cut"]),
        place,
        st.integers(0, 40),
        st.binary(max_size=12),
    )

    def apply(changes: list[tuple[str, int, int, bytes]]) -> bytes:
        content = whole
        for what, start, count, new in changes:
            before, after = content[:start], content[start:]
            content = {
                "overwrite": before + new + after[len(new) :],
                "insert": before + new + after,
                "remove": before + after[count:],
                "double": before + after[:count] + after,
                "cut": before,
            }[what]
        return content

    return st.lists(change, min_size=1, max_size=4).map(apply)


SPOILERS = [
    *("", " ", "-1", "0", "nan", "inf", "-inf", "1e999", "1e300", "abc", "1,5", "²", "٣", "0x10"),
    *('"', "'", '"a', ";", "\t", ",", ",,,", "\n", "\r", "\r\n", "\0", "\x1b[2J", "\ufeff"),
    *("\u2028", "../../etc/passwd", "/etc/passwd", "C:\\x", "a/../../b", "~root", "a" * 5000),
    *("{", "}", "[", "]", "{}", "[]", "null", "true", "9" * 5000, " " * 300, "n_points: 999999999"),
]
"""Pieces of text that a careless reader stumbles over."""


def spoilt(whole: str) -> st.SearchStrategy[str]:
    """A text of which cells, lines or any stretches are replaced by something unwelcome."""
    piece = st.one_of(st.sampled_from(SPOILERS), st.text(max_size=8))
    change = st.tuples(st.integers(0, len(whole)), st.integers(0, 30), piece)

    def apply(changes: list[tuple[int, int, str]]) -> str:
        text = whole
        for start, count, new in changes:
            text = text[:start] + new + text[start + count :]
        return text

    return st.one_of(
        st.lists(change, min_size=1, max_size=4).map(apply),
        st.text(max_size=200),
        st.lists(st.sampled_from(SPOILERS), max_size=20).map("".join),
    )


@pytest.fixture(name="damaged")
def _damaged() -> Callable[[bytes], st.SearchStrategy[bytes]]:
    return damaged


@pytest.fixture(name="spoilt")
def _spoilt() -> Callable[[str], st.SearchStrategy[str]]:
    return spoilt
