"""Configuration of the documentation's site: `sphinx-build -W -b html docs docs/_build`."""

import importlib.metadata
import pathlib
import re

from jaxcnn.demo.page import build_page
from jaxcnn.interop.pretrained import load_pretrained

project = "jaxcnn"
release = version = importlib.metadata.version("jaxcnn")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "jupyter_execute"]  # outputs of the build
html_theme = "furo"
html_title = "jaxcnn"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
highlight_language = "none"  # most blocks without a language are shell commands
toc_object_entries = False

# The notebook takes minutes to run, so its committed outputs are shown.
nb_execution_mode = "off"
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# Replaces a colon while napoleon runs, because it reads "text: text" of an attribute as a type.
COLON = "\ue000"


def translate_markdown(app, what, name, obj, options, lines):
    """Translate the Markdown of docstrings to RST: code, tables, and characters special to RST."""
    text = re.sub(r"(?:^ *\|.*\n?)+", _literal_block, "\n".join(lines), flags=re.MULTILINE)
    parts = re.split(r"(`[^`]+`|^::\n\n(?:    .*\n?)+)", text, flags=re.MULTILINE)
    for i, part in enumerate(parts):
        if i % 2 == 0:
            parts[i] = re.sub(r"([*|])", r"\\\1", part)
        elif part.startswith("`"):
            parts[i] = f"``{' '.join(part[1:-1].split())}``"
    text = "".join(parts)
    if what == "attribute":
        text = text.replace(":", COLON)
    lines[:] = text.split("\n")


def _literal_block(table):
    return "::\n\n" + re.sub(r"^ *", "    ", table.group(), flags=re.MULTILINE)


def restore_colons(app, what, name, obj, options, lines):
    """Restore the colons that `translate_markdown` replaced."""
    lines[:] = [line.replace(COLON, ":") for line in lines]


def write_demo(app, exception):
    """Write the demo's page, which the guide shows in a frame, beside the built pages."""
    if exception is None and app.builder.format == "html":
        page = build_page(load_pretrained("lenet5-mnist"))
        pathlib.Path(app.outdir, "lenet5.html").write_text(page, encoding="utf-8")


def setup(app):
    """Connect one function before and one after napoleon, whose priority is 500, and the demo."""
    app.connect("autodoc-process-docstring", translate_markdown, priority=400)
    app.connect("autodoc-process-docstring", restore_colons, priority=600)
    app.connect("build-finished", write_demo)
