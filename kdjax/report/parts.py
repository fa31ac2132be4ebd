"""Elements that several sections are built from."""

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
    """Returns content with a caption below it."""
    return element("figure", content, element("figcaption", caption))


def panels(charts: Iterable[tuple[str, Markup]], class_: str = "panels") -> Markup:
    """Places charts side by side, each below its heading."""
    return element("div", *(element("figure", element("h3", name), chart) for name, chart in charts), class_=class_)


def scroll(content: Markup, label: str) -> Markup:
    """Returns a box that scrolls sideways, also by keyboard, if its content is too wide."""
    return element("div", content, class_="scroll", tabindex=0, role="region", aria_label=label)


def table(label: str, header: Sequence[Any], rows: Iterable[Sequence[Any]], class_: str | None = None) -> Markup:
    """Returns a table in a `scroll` box; the first cell of each row is its header."""
    body = (
        element("tr", element("th", row[0], scope="row"), *(element("td", cell) for cell in row[1:])) for row in rows
    )
    head = element("thead", element("tr", *(element("th", cell, scope="col") for cell in header)))
    return scroll(element("table", head, element("tbody", *body), class_=class_), label)


def details(summary: str, *content: Markup) -> Markup:
    """Returns content that the reader can unfold below a summary."""
    return element("details", element("summary", summary), *content)


def tile(side: Side, image: int, *remarks: Markup) -> Markup:
    """Returns an image of a split, with remarks and its file name below it."""
    thumbnail = picture(side.images[image], f"{side.name} image {side.names[image]}")
    return element(
        "figure", thumbnail, element("figcaption", *lines(*remarks, file_name(side.names[image]))), class_="tile"
    )


def lines(*parts: Markup) -> list[Markup]:
    """Puts each part on its own line."""
    return [element("div", part) for part in parts]


def file_name(name: str) -> Markup:
    """Returns the last part of a path; hovering shows the whole path."""
    return element("span", PurePosixPath(name).name, class_="name", title=name)


def prediction(who: str, name: str, probability: float) -> Markup:
    """Returns the class that a network predicts, and its probability; `who` names the network."""
    return joined(f"{who} ", element("b", name), f" {100 * probability:.0f}\u00a0%")


def teacher_prediction(log_probabilities: np.ndarray, classes: Sequence[str]) -> Markup:
    """Returns the teacher's prediction for one image, from log-probabilities (C,)."""
    best = int(log_probabilities.argmax())
    return prediction("teacher", classes[best], np.exp(log_probabilities[best]))


def student_predictions(log_probabilities: np.ndarray, classes: Sequence[str]) -> Markup:
    """Returns how many students predict which class for one image, from log-probabilities (networks, C)."""
    if len(log_probabilities) == 1:
        best = int(log_probabilities[0].argmax())
        return prediction("student", classes[best], np.exp(log_probabilities[0, best]))
    counted = [
        joined(f"{count}\u00a0", element("b", classes[label]))
        for label, count in findings.votes(log_probabilities.argmax(-1))
    ]
    return joined("students ", counted[0], *(joined(", ", part) for part in counted[1:]))


def picture(pixels: np.ndarray, alt: str) -> Markup:
    """Embeds an image (height, width, 3) uint8 as JPEG, at most `THUMBNAIL` px wide and high."""
    image = Image.fromarray(pixels)
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=None)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=82)
    data = base64.b64encode(content.getvalue()).decode()
    return element("img", src=f"data:image/jpeg;base64,{data}", alt=alt, width=image.width, height=image.height)
