"""HTML and SVG that is escaped by construction: whatever is no `Markup` is text."""

import html
from typing import Any

from kdjax.results import text

_VOID = {"br", "img", "link", "meta"}


class Markup(str):
    """A string that is HTML already."""

    __slots__ = ()


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """One element.

    Args:
        tag: its name.
        *children: markup, or anything else as text.
        **attributes: `class_` is written class, other underscores become hyphens. None is left out, floats are rounded
            to two decimals.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>" if tag in _VOID else f"<{tag}{written}>{joined(*children)}</{tag}>")


def joined(*children: Any) -> Markup:
    """Markup and text, one after the other. Of what cannot be seen in a text only its line breaks stay."""
    return Markup("".join(child if isinstance(child, Markup) else _escaped(str(child)) for child in children))


def _escaped(content: str) -> str:
    return html.escape(text.printable(content, keep="\n\t"))


def _value(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
