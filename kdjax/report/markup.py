"""Builds HTML and SVG that are escaped by construction: anything that is not `Markup` is escaped as text."""

import html
from typing import Any

from kdjax.results import text

_VOID = {"br", "img", "link", "meta"}


class Markup(str):
    """A string that is already HTML."""

    __slots__ = ()


def element(tag: str, *children: Any, **attributes: Any) -> Markup:
    """Returns one element.

    Args:
        tag: the name of the element.
        *children: markup, or anything else, which is escaped as text.
        **attributes: `class_` is written as class, and other underscores as hyphens. Attributes that are None are left
            out; floats are rounded to two decimals.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_escaped(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{tag}{written}>" if tag in _VOID else f"<{tag}{written}>{joined(*children)}</{tag}>")


def joined(*children: Any) -> Markup:
    """Concatenates markup and text. Of the invisible characters in a text, only line breaks and tabs are kept."""
    return Markup("".join(child if isinstance(child, Markup) else _escaped(str(child)) for child in children))


def _escaped(content: str) -> str:
    return html.escape(text.printable(content, keep="\n\t"))


def _value(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
