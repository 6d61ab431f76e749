"""The templates of the page, and what happens to the values that they are given."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent.parent / "templates"


@cache
def html_template(name: str) -> jinja2.Template:
    """Every value is escaped as HTML."""
    return _template(name, autoescape=True)


@cache
def markdown_template(name: str) -> jinja2.Template:
    """Every value is escaped as Markdown (see `escaped`)."""
    return _template(name, finalize=escaped, keep_trailing_newline=True, lstrip_blocks=False)


@cache
def plain_text(name: str) -> jinja2.Template:
    """Values stand as they are: code, which is escaped where it is shown."""
    return _template(name)


def _template(name: str, **options: Any) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        **{"lstrip_blocks": True, "autoescape": False, **options},
    )
    return environment.get_template(name)


def escaped(value: object) -> str:
    """Text that Markdown shows as it is: no HTML, no table cell, no link and no line break of its own."""
    text = " ".join(str(value).split())
    for mark, harmless in (
        ("&", "&amp;"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("\\", "\\\\"),
        ("|", "\\|"),
        ("`", "\\`"),
        ("*", "\\*"),
        ("](", "]\\("),
    ):
        text = text.replace(mark, harmless)
    return text
