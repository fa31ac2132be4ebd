"""Renders the page of one run: the table, and the sections in order."""

import json

from kdjax.report import images, measures
from kdjax.report.geography import geography
from kdjax.report.markup import Markup, element, joined
from kdjax.report.material import Material
from kdjax.report.parts import details, figure, scroll
from kdjax.report.shell import document
from kdjax.report.summary import finding, leading_arm
from kdjax.results import notes, tables
from kdjax.results.comparison import shown_arms, uses_teacher


def render(material: Material) -> str:
    """Returns the whole page as one self-contained HTML document."""
    results = material.results
    sections = [
        ("curves", "Learning curves", measures.curves(material)),
        ("classes", "Class by class", measures.classes(material)),
        ("calibration", "Calibration", measures.calibration(material)),
        ("cost", "Accuracy and cost", measures.cost(material)),
        *([("places", "Where the tiles lie", geography(material.locations))] if material.locations else []),
        ("confused", "Classes taken for each other", images.confused(material)),
        ("hardest", "Hardest test images", images.hardest(material)),
        ("suspects", "Labels to check", images.suspects(material)),
        ("views", "What the networks are shown", images.views(material)),
        ("setup", "Setup", _setup(material)),
    ]
    any_taught = any(map(uses_teacher, shown_arms(results).values()))
    origin = f"taught by {results['teacher']['model']}" if any_taught else "without a teacher"
    title = f"{results['config']['name']}: {results['student']['model']} {origin}"
    contents = element("ul", *(element("li", element("a", name, href=f"#{mark}")) for mark, name, _ in sections))
    return document(
        title,
        tables.title(results),
        element("p", finding(results), class_="finding"),
        *_table(material),
        element("nav", contents, aria_label="Sections"),
        *(element("section", element("h2", name), *parts, id=mark) for mark, name, parts in sections),
    )


def _table(material: Material) -> list[Markup]:
    """Returns the closing table of the run and its notes."""
    header, rows = tables.table_rows(material.results)
    leading = leading_arm(material.results)
    body = (
        element(
            "tr",
            element("th", row[0], scope="row"),
            *(element("td", cell) for cell in row[1:]),
            class_="leading" if row[0] == leading else None,
        )
        for row in rows
    )
    head = element("thead", element("tr", *(element("th", cell, scope="col") for cell in header)))
    caption = (
        "T: temperature; the columns before it: weights of the losses. Accuracies and losses are of the test images."
    )
    if leading:
        caption += f" Shaded: {leading}, which is looked at closely below."
    table = element("table", head, element("tbody", *body), class_="results")
    remarks = [*notes.table_notes(material.results), *([material.note] if material.note else [])]
    return [
        figure(scroll(table, "Results"), caption),
        element("ul", *(element("li", remark) for remark in remarks), class_="notes"),
    ]


def _setup(material: Material) -> list[Markup]:
    results = material.results
    devices = ", ".join(f"{device['count']} × {device['kind']}" for device in results["environment"]["devices"])
    facts = {
        **results["environment"],
        "devices": devices,
        "fingerprint of the data": results["dataset"]["fingerprint"],
    }
    rows = (
        element("tr", element("th", name, scope="row"), element("td", value, class_="name"))
        for name, value in facts.items()
        if value not in (None, "")
    )
    config = json.dumps(results["config"], indent=2, ensure_ascii=False)
    return [
        element("h3", "Environment"),
        scroll(element("table", element("tbody", *rows), class_="text"), "Environment"),
        element("h3", "Configuration"),
        details("All fields", joined(element("pre", config, tabindex=0))),
    ]
