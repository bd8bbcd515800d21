"""The site: Markdown pages, an API reference from numpydoc docstrings, and a gallery.

Sphinx is what PyTorch, NumPy and DALI use, and it reads numpydoc docstrings. Furo has a light and a
dark scheme and needs no fonts from the network. sphinx-gallery runs the scripts of ``examples/``.
"""

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_ext"), str(DOCS.parent)]

import dali_mixup  # noqa: E402

project = "dali-mixup"
author = "the dali-mixup developers"
release = dali_mixup.__version__
html_title = f"dali-mixup {release}"

extensions = [
    "layers_picture",
    "myst_parser",
    "numpydoc",
    "repository_tables",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples"]
suppress_warnings = ["config.cache"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "fieldlist"]
myst_heading_anchors = 3

autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
numpydoc_show_class_members = False
numpydoc_validation_checks = {"GL08", "SS01", "PR01", "PR02", "PR10"}
numpydoc_validation_exclude = {r"\.RECIPES$"}  # data has no __doc__ of its own

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
}

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]
