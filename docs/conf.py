"""How the documentation becomes a site: `make docs`, which asks for nothing outside this machine.

The pages are the repository's own Markdown files, where they lie, so that a link which works on one works in the other.
Every warning is an error: a page without a place in the navigation, a link or an anchor that leads nowhere.
"""

import re
import sys
from dataclasses import fields, is_dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # the Python page is made of the docstrings beside it

from headstart import __version__  # noqa: E402  (the path above comes first)

project = "headstart"
author = "The headstart developers"
copyright = author  # Sphinx's own name for it
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
root_doc = "docs/index"
include_patterns = [
    "docs/*.md",
    "benchmarks/README.md",
    "benchmarks/decode.md",
    "benchmarks/results/*.md",
    "examples/README.md",
    "examples/*/README.md",
    "examples/transferability/results/*.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
]
exclude_patterns = [".venv", "build", "dist", "src", "tests", "**/node_modules"]

myst_heading_anchors = 4  # a link names a heading by its words, as on a forge
myst_enable_extensions = ["attrs_inline"]
default_role = "literal"  # docstrings mark names by one backtick
highlight_language = "text"
autodoc_typehints = "none"  # what is allowed stands in words beside each name
autodoc_member_order = "bysource"
toc_object_entries_show_parents = "hide"

html_theme = "pydata_sphinx_theme"
html_title = "headstart"
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_static_path = ["site/static"]
html_css_files = ["site.css"]
html_additional_pages = {"index": "redirect.html"}  # the pages lie in docs/
templates_path = ["site"]
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "headstart"},
    "navbar_end": ["theme-switcher"],
    "navbar_persistent": ["search-button"],
    "header_links_before_dropdown": 7,
    "show_prev_next": True,
    "show_nav_level": 1,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}


def settings_apart(app, what, name, obj, options, lines):
    """In the docstring of an estimator the settings stand in one paragraph, "name: what it is. other: ..."; here each
    gets a line of its own."""
    if what != "class" or not is_dataclass(obj):
        return
    names = "|".join(field.name for field in fields(obj))
    found, paragraph = [], []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line.strip())
            continue
        text = " ".join(paragraph)
        parts = re.split(rf"(?:^|(?<=[.;] ))({names}): ", text)
        if len(parts) > 3 and not parts[0]:
            for one, said in zip(parts[1::2], parts[2::2], strict=True):
                found += [f"``{one}``", f"   {said.strip().rstrip(';')}", ""]
        else:
            found += paragraph
        found.append("")
        paragraph = []
    lines[:] = found


def setup(app):
    app.connect("autodoc-process-docstring", settings_apart)
