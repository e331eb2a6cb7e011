"""Equations as MathML, which browsers show without a script and without the network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.errors import SphinxError


def _mathml(node: nodes.Element, display: bool) -> str:
    """An equation of a page as MathML.

    Raises:
        SphinxError: the equation is not understood.
    """
    text = node.astext()
    try:
        return tex2mathml(text, as_block=display)
    except MathError as error:
        raise SphinxError(f"{node.source}:{node.line}: equation {text!r}: {error}") from error


def _inline(translator: Any, node: nodes.Element) -> None:
    translator.body.append(_mathml(node, display=False))
    raise nodes.SkipNode


def _block(translator: Any, node: nodes.Element) -> None:
    translator.body.append(f'<div class="math">{_mathml(node, display=True)}</div>\n')
    raise nodes.SkipNode


def setup(app: Any) -> None:
    """Let ``html_math_renderer = "mathml"`` use this module."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
