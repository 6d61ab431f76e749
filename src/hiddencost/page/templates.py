"""The templates of the page, and what happens to the values that they are given."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2

TEMPLATES = Path(__file__).parent.parent / "templates"


def html_template(name: str) -> jinja2.Template:
    """Every value is escaped as HTML."""
    return _template(name, autoescape=True)


def plain_text(name: str) -> jinja2.Template:
    """Values stand as they are: code, which is escaped where it is shown."""
    return _template(name, autoescape=False)


def _template(name: str, **options: Any) -> jinja2.Template:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    return environment.get_template(name)
