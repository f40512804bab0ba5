"""Colours of figures by name. Drawings hold placeholders; a renderer puts the colours in."""

INK = {
    "fg": "#010101",
    "muted": "#020202",
    "grid": "#030303",
    "a": "#040404",
    "b": "#050505",
    "c": "#060606",
    "d": "#070707",
    "paper": "#080808",
}
"""Placeholders, by the names of the CSS variables in `style.css`."""

LIGHT = {
    "fg": "#1b1f24",
    "muted": "#5c6673",
    "grid": "#e8eae6",
    "a": "#3056d3",
    "b": "#c2560c",
    "c": "#0f8a6d",
    "d": "#8a3ab9",
    "paper": "#98a1ad",
}
SERIES = ("a", "b", "c", "d", "muted", "paper")
"""Curves of one panel, in order."""


def on_page(svg: str) -> str:
    """A drawing whose colours follow the page's light or dark style."""
    return _coloured(svg, {name: f"var(--{name})" for name in INK})


def standalone(svg: str) -> str:
    """A drawing for a file of its own: light colours on white."""
    return _coloured(svg, LIGHT).replace("<svg ", '<svg style="background: #ffffff" ', 1)


def _coloured(svg: str, colours: dict[str, str]) -> str:
    for name, placeholder in INK.items():
        svg = svg.replace(placeholder, colours[name])
    return svg
