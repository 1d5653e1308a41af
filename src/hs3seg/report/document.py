"""The frame that all pages have: one file that loads nothing from anywhere."""

from collections.abc import Mapping, Sequence
from importlib.resources import files

from hs3seg.report.markup import escape
from hs3seg.report.theme import css_variables

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""A second lock beside escaping: nothing runs and nothing is loaded, whatever a class may be called."""


def document(title: str, kind: str, opening: str, content: str, *, kicker: str = "", styles: Sequence[str] = ()) -> str:
    """A page of HTML.

    Args:
        title: Of the run, folder or study; text.
        kind: What page it is, as in `hs3seg report`; text.
        opening: HTML below the title.
        content: HTML of the rest, as `sections` gives it.
        kicker: Text above the title; default `kind`.
        styles: Further style sheets of this package.
    """
    sheets = [files("hs3seg.report").joinpath(name).read_text(encoding="utf-8") for name in ("style.css", *styles)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}: {escape(kind)}</title><style>{css_variables()}{''.join(sheets)}</style></head><body>"
        f'<header><p class="kicker">{escape(kicker or kind)}</p><h1>{escape(title)}</h1>{opening}</header>'
        f"{content}</body></html>\n"
    )


def sections(made: Mapping[str, tuple[str, str]]) -> str:
    """Sections and the links to them: key -> title and HTML; empty ones are left out."""
    shown = {key: (title, content) for key, (title, content) in made.items() if content}
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in shown.items())
    body = "".join(
        f'<section id="{key}"><h2>{title}</h2>{content}</section>' for key, (title, content) in shown.items()
    )
    return f"<nav>{links}</nav><main>{body}</main>"
