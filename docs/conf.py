"""Settings of Sphinx: ``sphinx-build -W docs runs/docs`` makes the site, warnings being errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

project = "future_l1_verl"
copyright = "the authors of future_l1_verl, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.githubpages"]
html_theme = "furo"
html_title = "future_l1_verl"
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# Docstrings are plain text with ``literals``; single backticks name things of the package.
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
