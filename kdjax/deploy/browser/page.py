"""Writes try.html, a page that decodes, resizes and classifies images like `kdjax.deploy.predict`."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdjax.data.meaning import BYTES, Meaning
from kdjax.deploy.trust import KEY, Trust

PARTS_DIR = Path(__file__).parent

FACTS_START, FACTS_END = '<script id="facts" type="application/json">', "</script>"
"""The text of a page before and after its facts."""


def document(title: str, classes: Sequence[str], size: int, meaning: Meaning, trust: Trust, sha256: str) -> str:
    """The text of the page, which is to lie beside student.onnx.

    Args:
        title: heading of the page.
        classes: class names, in the order of the logits.
        size: side of the images that student.onnx takes, px.
        meaning: what the numbers and the size of the training tiles were.
        trust: fitted to student.onnx.
        sha256: of student.onnx, in hexadecimal digits; with another file the page would name wrong classes.
    """
    trust_fields = json.loads(trust.metadata()[KEY])
    facts = {
        "classes": list(classes),
        "size": size,
        "tile_px": meaning.tile_px,
        "deep": bool(meaning.value_range) and BYTES not in meaning.numbers,
        "trust": trust_fields,
        "sha256": sha256,
    }
    script = "\n".join((PARTS_DIR / name).read_text(encoding="utf-8") for name in ("answer.mjs", "page.mjs"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Even if a class name contains code, the page runs only this script and the runtime beside it, and sends no data.
    policy = (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{digest}'; connect-src 'self'; "
        "img-src blob: data:; style-src 'unsafe-inline'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(title),
        "count": str(len(classes)),
        "size": str(size),
        "levels": "".join(
            f'<option value="{level}">{100 * float(level):g} %</option>' for level in trust_fields["limits"]
        ),
        "facts": json.dumps(facts).replace("<", "\\u003c"),
        "warning": f'<p class="unknown">Warning: {html.escape(trust.warning)}.</p>' if trust.warning else "",
        "script": script,
    }
    text = (PARTS_DIR / "page.html").read_text(encoding="utf-8")
    result, *pieces = text.split("{")
    # The style sheet has braces too, so only names of parts are replaced; the inserted text is not searched again.
    for piece in pieces:
        name, brace, after = piece.partition("}")
        result += parts[name] + after if brace and name in parts else "{" + piece
    return result


def facts(text: str) -> dict[str, Any]:
    """Reads the facts in a page. Pages of earlier versions have no `sha256`.

    Raises:
        ValueError: the text is not such a page.
    """
    _, marker, rest = text.partition(FACTS_START)
    fields = json.loads(rest.partition(FACTS_END)[0]) if marker else None
    if not isinstance(fields, dict):
        raise ValueError("it holds no facts of a student")
    return fields
