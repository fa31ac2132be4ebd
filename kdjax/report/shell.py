"""The self-contained HTML document around a page."""

import base64
import hashlib
from pathlib import Path

from kdjax.report.markup import Markup, element

# Opens all <details> for printing, because the content of a closed one is not printed.
_SCRIPT = """addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details:not([open])")) { one.open = true; one.dataset.closed = ""; }
});
addEventListener("afterprint", () => {
  for (const one of document.querySelectorAll("details[data-closed]")) { one.open = false; delete one.dataset.closed; }
});
"""


def document(title: str, subtitle: str, *content: Markup) -> str:
    """Returns a whole document: a title with a subtitle, and the content of the page."""
    header = element("header", element("h1", title), element("p", subtitle, class_="what"))
    # The policy lets the page load nothing and run this one script only, so a hostile name can do no harm.
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("title", title),
        element("link", rel="icon", href="data:,"),  # otherwise browsers request favicon.ico
        element("style", Markup(Path(__file__).with_name("style.css").read_text(encoding="utf-8"))),
        element("script", Markup(_SCRIPT)),
    )
    body = element("body", header, element("main", *content))
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
