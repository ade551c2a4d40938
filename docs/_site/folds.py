"""Long pages folded by their second-level headings, which stay in view; a link to anything inside opens its part."""

from __future__ import annotations

import re

SECTION = re.compile(r'(<h2 id="[^"]*">.*?</h2>)(.*?)(?=<h2 id=|\Z)', re.DOTALL)


def folded(html: str, open_until: str) -> str:
    """The page with each part from a heading on folded.

    Args:
        html: Of the page.
        open_until: The anchor of the first heading that is folded.
    """
    start = html.index(f'<h2 id="{open_until}">')
    return html[:start] + SECTION.sub(r'<details class="st-vi-fold"><summary>\1</summary>\2</details>', html[start:])
