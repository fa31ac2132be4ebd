"""Pieces that several sections are built from."""

import base64
import io
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from kdjax.report import findings
from kdjax.report.markup import Markup, element, joined
from kdjax.report.material import Side

THUMBNAIL = 128


def figure(content: Markup, caption: Any) -> Markup:
    """Something with a caption below it."""
    return element("figure", content, element("figcaption", caption))


def panels(charts: Iterable[tuple[str, Markup]], class_: str = "panels") -> Markup:
    """Charts side by side, each below its heading."""
    return element("div", *(element("figure", element("h3", name), chart) for name, chart in charts), class_=class_)


def scroll(content: Markup, label: str) -> Markup:
    """A box that scrolls sideways where its content is too wide, by keyboard as well."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def table(label: str, header: Sequence[Any], rows: Iterable[Sequence[Any]], class_: str | None = None) -> Markup:
    """A table in a `scroll` box; the first cell of each row names it."""
    body = (
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    )
    head = element("thead", element("tr", *(element("th", cell, scope="col") for cell in header)))
    return scroll(element("table", head, element("tbody", *body), class_=class_), label)


def details(summary: str, *content: Markup) -> Markup:
    """Content that is unfolded on demand."""
    return element("details", element("summary", summary), *content)


def tile(side: Side, image: int, *said: Markup) -> Markup:
    """An image of a split with what is said of it and its name."""
    shown = picture(side.images[image], f"{side.name} image {side.names[image]}")
    return element("figure", shown, element("figcaption", *lines(*said, file_name(side.names[image]))), class_="tile")


def lines(*parts: Markup) -> list[Markup]:
    """Each part on a line of its own."""
    return [element("div", part) for part in parts]


def file_name(name: str) -> Markup:
    """The last part of a name; the whole name shows on hovering."""
    return element("span", PurePosixPath(name).name, class_="name", title=name)


def says(who: str, name: str, probability: float) -> Markup:
    """Whom a network takes an image for."""
    return joined(f"{who} ", element("b", name), f" {100 * probability:.0f}\u00a0%")


def teacher_says(log_probabilities: np.ndarray, classes: Sequence[str]) -> Markup:
    """The teacher's class of one image, from (C,)."""
    best = int(log_probabilities.argmax())
    return says("teacher", classes[best], np.exp(log_probabilities[best]))


def students_say(log_probabilities: np.ndarray, classes: Sequence[str]) -> Markup:
    """The students' classes of one image, from (networks, C): how many name which."""
    if len(log_probabilities) == 1:
        best = int(log_probabilities[0].argmax())
        return says("student", classes[best], np.exp(log_probabilities[0, best]))
    named = [
        joined(f"{count}\u00a0", element("b", classes[one]))
        for one, count in findings.votes(log_probabilities.argmax(-1))
    ]
    return joined("students ", named[0], *(joined(", ", one) for one in named[1:]))


def picture(pixels: np.ndarray, alt: str) -> Markup:
    """An image (height, width, 3) uint8 within the page, at most `THUMBNAIL` px wide and high."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=None)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=82)
    data = base64.b64encode(content.getvalue()).decode()
    return element("img", src=f"data:image/jpeg;base64,{data}", alt=alt, width=image.width, height=image.height)
