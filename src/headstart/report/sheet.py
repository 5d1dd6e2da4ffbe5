"""Pictures to look at, on one page."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.report.content import Picture
from headstart.report.page import clean, environment, picture_source


def render_sheet(pictures: Sequence[Picture]) -> str:
    """The whole page as the text of one HTML file."""
    page = environment().get_template("sheet.html.jinja")
    return clean(page.render(pictures=pictures, source_of=picture_source))
