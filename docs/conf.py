"""The documentation site: ``sphinx-build -W --keep-going docs build/site``. It needs no internet, and runs no notebook."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import links  # noqa: E402
import pages  # noqa: E402

import numnet  # noqa: E402

project = "numnet"
author = "The numnet founders"
copyright = author
release = version = numnet.__version__
language = "en"

extensions = ["myst_nb", "mathml"]
exclude_patterns = ["_ext", "_static", "explainer", "**/README.md"]
nb_execution_mode = "off"  # notebooks are shown as they were executed, with their own outputs
nb_merge_streams = True
nb_ipywidgets_js = {}  # nothing is loaded from elsewhere
myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_block", "deflist"]
myst_heading_anchors = 4
html_math_renderer = "mathml"
suppress_warnings = ["myst.header"]  # notebooks may go from a title to a third-level exercise
pygments_style = "friendly"
pygments_dark_style = "monokai"

html_theme = "furo"
html_title = "numnet"
html_static_path = ["_static"]
html_css_files = ["numnet.css"]
html_copy_source = False
html_show_sourcelink = False

pages.make()


def setup(app):
    app.connect("source-read", pages.source_read)
    app.connect("build-finished", pages.copy_explainer)
    app.connect("build-finished", links.check)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
