"""The colours of the page and its pictures: one table for both, so that SVG, PNG and CSS agree."""

LIGHT = {
    "page": "#fbfaf8",
    "card": "#ffffff",
    "ink": "#22242a",
    "muted": "#696d76",
    "faint": "#a6a9b0",
    "rule": "#e4e2dd",
    "accent": "#2c64a5",
    "final": "#2c64a5",
    "stage0": "#c4513c",
    "stage1": "#3f8757",
    "stage2": "#a9771e",
    "stage3": "#7d57a4",
    "stage4": "#2d8a8f",
    "stage5": "#8a6d5a",
    "better": "#2d7a4a",
    "worse": "#b4442f",
}
DARK = {
    "page": "#17181b",
    "card": "#1e2024",
    "ink": "#e6e6e3",
    "muted": "#a0a3aa",
    "faint": "#6d7078",
    "rule": "#34363c",
    "accent": "#79abe6",
    "final": "#79abe6",
    "stage0": "#ea8570",
    "stage1": "#76c08f",
    "stage2": "#dbae5a",
    "stage3": "#b797dc",
    "stage4": "#6cc3c7",
    "stage5": "#c2a592",
    "better": "#7cc596",
    "worse": "#ee8b76",
}
HEAT = (44, 100, 165)
"""Colour of a full cell of a matrix; emptier cells are more transparent, so it works on either ground."""


def stage_colour(number: int) -> str:
    """Theme name of the colour of the number-th stage, shallow to deep."""
    return f"stage{number % 6}"


def css_variables() -> str:
    """The two themes as CSS custom properties; the reader's system chooses. Paper is always light."""

    def block(theme: dict[str, str]) -> str:
        return "".join(f"--{name}:{value};" for name, value in theme.items())

    return (
        f":root{{color-scheme:light dark;{block(LIGHT)}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{block(DARK)}}}}}\n"
    )


def resolve(colour: str) -> str:
    """A theme name's value in the light theme (PNG files are light); other colours as they are."""
    return LIGHT.get(colour, colour)


def css(colour: str) -> str:
    """A theme name as a CSS variable; other colours as they are."""
    return f"var(--{colour})" if colour in LIGHT else colour
