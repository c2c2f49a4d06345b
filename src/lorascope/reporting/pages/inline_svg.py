"""A figure's SVG as part of an HTML page: colours from the page, unique ids, words for readers."""

from __future__ import annotations

import re
from html import escape

from lorascope.reporting.figures.style import AXIS, GRID, INK, NEUTRAL, PALETTE, PAPER

VARIABLES = {
    INK: "ink",
    GRID: "rule",
    AXIS: "axis",
    NEUTRAL: "quiet",
    PAPER: "paper",
    **{color.lower(): f"mode{place}" for place, color in enumerate(PALETTE)},
}
"""Colour in a figure -> the page's CSS variable, so that figures follow light and dark."""


def inline_svg(svg: bytes, key: str, title: str, description: str) -> str:
    """The <svg> element alone, as an image with a text alternative.

    Args:
        key: unique on the page; every id inside begins with it.
    """
    text = svg.decode()
    text = text[text.index("<svg") :].strip()
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    text = re.sub(r"<style type=\"text/css\">.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{key}-', text)
    text = re.sub(r'(xlink:href="|url\()#', rf"\1#{key}-", text)
    text = re.sub(r"#[0-9a-fA-F]{6}\b", _variable, text)
    text = re.sub(r"(<!--.*?-->)|(font: ([0-9.]+)px[^;\"]*)", _plain_font, text)
    text = re.sub(r">\s+<", "><", text)
    opening, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', opening)
    assert box is not None, f"{key}: the SVG has no viewBox"
    return (
        f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {box.group()} role="img" '
        f'aria-labelledby="{key}-title {key}-desc">'
        f'<title id="{key}-title">{escape(title)}</title>'
        f'<desc id="{key}-desc">{escape(description)}</desc>{rest}'
    )


def _variable(match: re.Match[str]) -> str:
    """The page's variable for a colour, or the colour itself where the page has none."""
    name = VARIABLES.get(match.group().lower())
    return f"var(--{name})" if name else match.group()


def _plain_font(match: re.Match[str]) -> str:
    """The size alone: the family is the page's. Comments go."""
    return "" if match.group(1) else f"font-size: {match.group(3)}px"
