"""Parses report pages and checks what must hold for each of them."""

import re
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """A parsed page: elements, text, `<data>` values, and whether every tag is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.source = text
        self.open: list[str] = []
        self.faults: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.data: list[tuple[float, str]] = []
        self.rows: list[list[tuple[str, list[tuple[float, str]]]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        self.faults += [f"never closed: {tag}" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        self.faults += [f"{tag}: attribute twice: {name}" for name in set(names) if names.count(name) > 1]
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append(("", []))
        if tag == "data":
            self.data.append((float(dict(attrs)["value"] or "nan"), ""))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.faults.append(f"</{tag}> closes {self.open[-1:]}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("style", "title"):
            return
        self.words.append(data)
        if self.open and self.open[-1] == "data":
            value, text = self.data[-1]
            self.data[-1] = (value, text + data)
        if {"td", "th"} & set(self.open) and self.rows:
            text, values = self.rows[-1][-1]
            if self.open[-1] == "data":
                values.append(self.data[-1])
            self.rows[-1][-1] = (text + data, values)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def table_row(self, first: str, which: int = 0) -> list[tuple[str, list[tuple[float, str]]]]:
        """The which-th row whose heading is `first`."""
        return [row for row in self.rows if row and row[0][0] == first][which]


def check_page(path: Path) -> Page:
    """Parses a page and checks what must hold for each: well-formed, self-contained, inner links lead somewhere."""
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert page.faults == []
    policies = [a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; img-src data:; style-src 'unsafe-inline'"]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], tag
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:image/") or value.removeprefix("#") in ids, (tag, value)
    assert not re.search(r"url\(|@import", text)
    assert "http:" not in text
    assert "https:" not in text
    assert "nan" not in [word.lower() for word in page.text.split()]
    return page
