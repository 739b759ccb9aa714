"""A page of HTML, taken apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

#: What browsers close by themselves.
VOID = {"meta", "link", "input", "br"}


@dataclass
class Page(HTMLParser):
    """A page taken apart; what isn't well-formed fails."""

    ids: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    code: dict[str, list[str]] = field(default_factory=dict)
    _open: list[str] = field(default_factory=list)
    _reading: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if named.get("id"):
            self.ids.append(named["id"] or "")
        if tag == "a":
            self.links.append(named.get("href") or "")
        if tag not in VOID:
            self._open.append(tag)
        if tag == "code":
            self._reading = named.get("id") or named.get("class") or "plain"
            self.code.setdefault(self._reading, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, self.getpos()
        self._reading = "" if tag == "code" else self._reading

    def handle_data(self, data: str) -> None:
        if self._reading:
            self.code[self._reading][-1] += data


def parse(html: str) -> Page:
    """Take a page apart."""
    page = Page()
    page.feed(html)
    page.close()
    assert not page._open
    return page
