"""HTML in small safe pieces: everything that comes from files is escaped here, and numbers are printed one way."""

import base64
import html
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

DASH = "\u2013"
"""Printed where a value does not exist."""
MINUS = "\u2212"
TIMES = "\u00d7"

ARM_TITLES = {
    "none": "No supervision",
    "deep_supervision": "Deep supervision",
    "hs3": "HS3",
    "hs3_fuse": "HS3-Fuse",
    "hs3_class_heads": "HS3, heads of all classes",
    "online": "Single-phase HS3",
    "online_coarse_to_fine": "Single-phase, coarse to fine",
    "hs3_diagonal": "HS3, diagonal kept",
    "deep_supervision_long": "Deep supervision, as long as HS3",
    "none_long": "No supervision, as long as HS3",
    "kmeans": "k-means groups",
    "manual": "Groups by hand",
    "random": "Random groups (control)",
    "reversed": "Reversed order (control)",
    "phase_one": "Phase one (measuring run)",
}


def arm_title(name: str) -> str:
    """What an arm is called in print."""
    return ARM_TITLES.get(name, name)


def in_sentence(name: str) -> str:
    """An arm's title inside a sentence: `deep supervision`, but `HS3`."""
    title = arm_title(name)
    return title[0].lower() + title[1:] if name in ARM_TITLES and not title.startswith("HS3") else title


def clean(text: object) -> str:
    """Plain one-line text: control characters and lone surrogates, which no page may hold, become U+FFFD."""
    return _printable(" ".join(str(text).split()))


def _printable(text: str) -> str:
    return "".join(c if _may_stand(c) else "\ufffd" for c in text)


def _may_stand(character: str) -> bool:
    """Not control characters, halves of pairs, and what turns the direction of the text after it.

    Joiners (U+200C, U+200D) are letters' business: Persian, Indic scripts and joined emoji need them.
    """
    if character.isprintable():
        return True
    turns = "\u202a" <= character <= "\u202e" or "\u2066" <= character <= "\u2069"
    category, code = unicodedata.category(character), ord(character)
    none = code & 0xFFFE == 0xFFFE or 0xFDD0 <= code <= 0xFDEF
    return category not in ("Cc", "Cs", "Zl", "Zp") and not turns and not none


def escape(text: object) -> str:
    """Text for HTML, SVG or an attribute in double quotes."""
    return html.escape(clean(text), quote=True)


def escape_line(line: str) -> str:
    """A line for `<pre>`, with all its spaces: as it is copied, so it has to work."""
    return html.escape(_printable(line.expandtabs(4)), quote=True)


def tag(name: str, content: str = "", **attributes: object) -> str:
    """An element; attribute values are escaped, `content` must be HTML already. `class_` stands for class."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return f"<{name}{words}>{content}</{name}>"


def percent(fraction: float | None) -> str:
    """`56.3` for 0.5631; a dash for a value that does not exist."""
    return DASH if fraction is None else f"{100 * fraction:.1f}"


def points(difference: float) -> str:
    """`+1.2` for a difference of 0.012 between two fractions, with a real minus sign and no signed zero."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", MINUS)


def data(value: float | None, text: str) -> str:
    """Printed text with its exact value beside it, for machines (`<data value>`)."""
    return escape(text) if value is None else f'<data value="{float(value)!r}">{escape(text)}</data>'


def swatch(colour: Sequence[int]) -> str:
    """A small square of a class's colour."""
    return f'<i class="swatch" style="background:{hex_colour(colour)}"></i>'


def hex_colour(colour: Sequence[int]) -> str:
    """`#rrggbb`."""
    return "#" + "".join(f"{value:02x}" for value in colour)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], class_: str = "") -> str:
    """A table that scrolls sideways where it does not fit; cells are HTML, a row's first cell is its heading."""
    columns = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    words = html.unescape(re.sub("<[^>]*>", " ", ", ".join(cell for cell in head if cell)))
    inner = f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
    return tag("div", inner, class_=f"scroll {class_}".strip(), tabindex=0, role="region", aria_label=f"table: {words}")


def definitions(entries: Mapping[str, object]) -> str:
    """A list of facts; values are escaped."""
    return tag("dl", "".join(f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in entries.items()))


def details(summary: str, content: str, *, opened: bool = False) -> str:
    """A part that can be folded; `summary` is text."""
    return f"<details{' open' if opened else ''}><summary>{escape(summary)}</summary>{content}</details>"


def data_uri(content: bytes, kind: str) -> str:
    """A picture inside the page; `kind` is png or webp."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode('ascii')}"


def duration(seconds: float) -> str:
    """`3 h 12 min`, `4 min 05 s`, `12.3 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def number(value: Any) -> float | None:
    """A finite number, or None for anything else that a file may hold in its place."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""
