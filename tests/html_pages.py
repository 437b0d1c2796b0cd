"""Reading the HTML of representations, and refusing what none of them may hold."""

from __future__ import annotations

import html.parser
import re
from collections import Counter

VOID = ("br", "img")
ALLOWED = {
    "br", "details", "div", "i", "img", "p", "small", "span", "strong", "style", "summary", "table",
    "tbody", "td", "tfoot", "th", "thead", "tr",
}  # fmt: skip


class Page(html.parser.HTMLParser):
    """A fragment whose elements close in order, that runs nothing and fetches nothing.

    Attributes
    ----------
    tags
        How many elements there are of each kind.
    text
        What one reads, piece by piece.
    rows
        How many cells each row of a table has.
    unfolded
        How many of the elements that fold begin unfolded.
    """

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.text: list[str] = []
        self.rows: list[int] = []
        self.unfolded = 0
        self._open: list[str] = []
        self.feed(fragment)
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED, tag
        self.tags[tag] += 1
        if tag not in VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append(0)
        elif tag in ("td", "th"):
            self.rows[-1] += 1
        for name, value in attrs:
            assert name in ("alt", "class", "open", "src", "style", "title", "width"), name
            assert name != "src" or (value or "").startswith("data:image/")
            self.unfolded += name == "open"
            if name == "style":
                _check_style(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] == ["style"]:
            _check_style(data)
        elif data.strip():
            self.text.append(data.strip())

    @property
    def words(self) -> str:
        """All that one reads, in one line."""
        return " ".join(self.text)


def _check_style(style: str) -> None:
    """Nothing fetched, and no colour of text or ground that would hide in one of the themes."""
    assert not re.search(r"url\(|@import|expression", style)
    for colour in re.findall(r"(?<![-\w])color:([^;}]*)", style):
        assert colour in ("inherit", "var(--jp-content-font-color1,inherit)"), colour
