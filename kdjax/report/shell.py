"""The HTML document around a page: it needs no other file."""

import base64
import hashlib
from pathlib import Path

from kdjax.report.markup import Markup, element

# Details are opened for printing: a closed one would not be on paper.
_SCRIPT = """addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) { one.open = true; one.dataset.closed = ""; }
});
addEventListener("afterprint", () => {
  for (const one of document.querySelectorAll("details[data-closed]")) { one.open = false; delete one.dataset.closed; }
});
"""


def document(title: str, subtitle: str, *content: Markup) -> str:
    """A whole document: a heading with a line below it, and what the page shows."""
    header = element("header", element("h1", title), element("p", subtitle, class_="what"))
    # The page itself forbids whatever a hostile name might try: it loads nothing and runs this one script.
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("link", rel="icon", href="data:,"),  # else browsers ask for favicon.ico
        element("style", Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))),
        element("script", Markup(_SCRIPT)),
    )
    body = element("body", header, element("main", *content))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
