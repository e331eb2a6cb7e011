"""Settings of Sphinx; ``python -m docs.build`` runs it."""

import os
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("MPLBACKEND", "agg")

import zoo_lightning
from docs import docstrings, mathml

project = "zoo_lightning"
author = "The zoo_lightning authors"
copyright = author  # without a year, so that the pages do not change with the date
release = version = zoo_lightning.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
root_doc = "index"
default_role = "code"
smartquotes = False  # it would turn the two hyphens of options into a dash
suppress_warnings = ["mystnb.unknown_mime_type"]  # a notebook's outputs have several forms

# Notebooks are committed as they were executed, and python -m notebooks.execute renews them.
nb_execution_mode = "off"
nb_merge_streams = True
myst_enable_extensions = ["attrs_block", "colon_fence", "dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 6
myst_linkify_fuzzy_links = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "pydata_sphinx_theme"
html_title = "zoo_lightning"
html_static_path = [str(Path(__file__).parent / "static")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_math_renderer = "mathml"
html_last_updated_fmt = None
html_theme_options = {
    "show_prev_next": False,
    "navigation_with_keys": False,
    "header_links_before_dropdown": 8,
    "navbar_persistent": ["search-button"],
    "navbar_end": ["theme-switcher"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
}


def without_missing_sources(app: Sphinx) -> list:
    """Leave modules without a source file, such as builtins, out of the index of sources.

    ``sphinx.ext.viewcode`` lists them there and makes no page for them.
    """
    found = getattr(app.env, "_viewcode_modules", {})
    for name in [name for name, source in found.items() if not source]:
        del found[name]
    return []


def setup(app: Sphinx) -> None:
    """Add what this site needs beyond Sphinx's extensions."""
    docstrings.setup(app)
    mathml.setup(app)
    app.connect("html-collect-pages", without_missing_sources, priority=400)
