"""try.html: one page that decodes, resizes, classifies and answers as `kdjax.deploy.predict` does."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kdjax.data.meaning import BYTES, Meaning
from kdjax.deploy.trust import KEY, Trust

HERE = Path(__file__).parent


FACTS = '<script id="facts" type="application/json">', "</script>"
"""What stands before and behind the facts in a page."""


def document(title: str, classes: Sequence[str], size: int, meaning: Meaning, trust: Trust, sha256: str) -> str:
    """The page, which goes beside student.onnx.

    Args:
        title: its heading.
        classes: class names, in the order of the logits.
        size: side of the images that the file reads, px.
        meaning: what the training tiles were.
        trust: what validation says of the file's answers.
        sha256: of the file, in hexadecimal digits: beside another one the page would name wrong classes.
    """
    answers = json.loads(trust.metadata()[KEY])
    facts = {
        "classes": list(classes),
        "size": size,
        "tile_px": meaning.tile_px,
        "deep": bool(meaning.value_range) and BYTES not in meaning.numbers,
        "trust": answers,
        "sha256": sha256,
    }
    script = "\n".join((HERE / name).read_text(encoding="utf-8") for name in ("answer.mjs", "page.mjs"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # Whatever a class is called, the page runs this script and the runtime beside it, and sends nothing anywhere.
    policy = (
        f"default-src 'none'; script-src 'self' 'wasm-unsafe-eval' 'sha256-{digest}'; connect-src 'self'; "
        "img-src blob: data:; style-src 'unsafe-inline'"
    )
    parts = {
        "policy": policy,
        "title": html.escape(title),
        "count": str(len(classes)),
        "size": str(size),
        "levels": "".join(f'<option value="{level}">{100 * float(level):g} %</option>' for level in answers["limits"]),
        "facts": json.dumps(facts).replace("<", "\\u003c"),
        "warning": f'<p class="unknown">Warning: {html.escape(trust.warning)}.</p>' if trust.warning else "",
        "script": script,
    }
    text = (HERE / "page.html").read_text(encoding="utf-8")
    before, *rest = text.split("{")
    # The style sheet has braces, too: only names of parts are replaced, and what was put in is not looked at again.
    for piece in rest:
        name, brace, after = piece.partition("}")
        before += parts[name] + after if brace and name in parts else "{" + piece
    return before


def facts(text: str) -> dict[str, Any]:
    """The facts in a page. Those of earlier versions lack `sha256`.

    Raises:
        ValueError: this is no such page.
    """
    before, found, rest = text.partition(FACTS[0])
    held = json.loads(rest.partition(FACTS[1])[0]) if found else None
    if not isinstance(held, dict):
        raise ValueError("it holds no facts of a student")
    return held
