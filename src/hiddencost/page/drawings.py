"""Plots inside the page: the same SVG, with colours that follow the page's light or dark, and with names of
its own, so that several stand in one document."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable
from html import escape, unescape
from pathlib import Path

from matplotlib.colors import to_hex, to_rgb

from hiddencost.plots import style

COLOUR = re.compile(r"#[0-9a-fA-F]{6}\b")
DARK = "#14171c"
"""The page at night."""
CONTRAST = 4.5
"""Of a colour to the ground behind it, at least (WCAG 2 level AA)."""


def inline(svg: Path, name: str, title: str) -> str:
    """The drawing of a file as an element of a page. Its ids get the name before them. title: what a screen
    reader says. What it tells under the mouse is in `data-told`."""
    text = svg.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(
        r"<title>[^<]*</title>\s*<metadata>.*?</metadata>\s*<defs>\s*<style.*?</defs>", "", text, flags=re.S
    )
    text = re.sub(r'(?<=\bid=")', f"{name}-", text)
    text = re.sub(r'(?<=href="#)|(?<=url\(#)', f"{name}-", text)
    text = re.sub(r'<g class="told"><title>([^<]*)</title>', r'<g class="told" data-told="\1">', text)
    text = COLOUR.sub(lambda found: variable(found.group()), text)
    return re.sub(
        r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
        lambda found: f'<svg viewBox="{found.group(1)}" role="img" aria-label="{escape(title)}">',
        text,
        count=1,
    )


def title_of(svg: Path) -> str:
    """What a plot says: the title that it was saved with, as plain text."""
    found = re.search(r"<dc:title>(.*?)</dc:title>", svg.read_text(encoding="utf-8"), flags=re.S)
    return unescape(found.group(1)) if found else svg.stem


def variable(colour: str) -> str:
    """What stands for a colour in the page: a variable of its style sheet."""
    return f"var(--c-{colour.lstrip('#').lower()})"


def palette(texts: Iterable[str]) -> list[tuple[str, str, str]]:
    """(variable, colour by day, colour at night) of every colour variable that the texts use."""
    found = sorted({match for text in texts for match in re.findall(r"var\(--c-([0-9a-f]{6})\)", text)})
    return [(f"--c-{colour}", f"#{colour}", at_night(f"#{colour}")) for colour in found]


def at_night(colour: str) -> str:
    """The colour on a dark ground. A grey takes the place from black to white that it had from white to
    black; a colour is lightened until it stands out."""
    red, green, blue = to_rgb(colour)
    hue, lightness, saturation = colorsys.rgb_to_hls(red, green, blue)
    if saturation < 0.08:
        red, green, blue = (dark + (1 - lightness) * (0.93 - dark) for dark in to_rgb(DARK))
        return to_hex((red, green, blue))
    lighter = to_hex((red, green, blue))
    while style.contrast(to_rgb(lighter), to_rgb(DARK)) < CONTRAST:
        lightness += 0.02
        lighter = to_hex(colorsys.hls_to_rgb(hue, lightness, saturation))
    return lighter
