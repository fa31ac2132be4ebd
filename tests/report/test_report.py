"""The page of the report: what is on it, what it never loads, and how a browser takes it."""

import copy
import functools
import html
import html.parser
import json
import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.report_material import ARMS, HOSTILE, HOSTILE_FILE, PARITY, material

from kdjax.errors import InputError
from kdjax.report import page, stage
from kdjax.report.markup import Markup, element, joined
from kdjax.report.material import Material, Side, Views


class Balanced(html.parser.HTMLParser):
    """Elements of a page; raises where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        assert len(dict(attributes)) == len(attributes), f"{tag} repeats an attribute: {attributes}"
        self.elements.append((tag, dict(attributes)))
        if tag not in ("br", "img", "link", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def named(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@functools.cache
def rendered():
    return page.render(material(parity=PARITY))


VARIANTS = {
    "two seeds": {},
    "one seed": {"seeds": (0,)},
    "exported": {"parity": PARITY},
    "one failed": {"seeds": (0, 1, 2), "failed": (("kl", 1),)},
    "arm failed": {"failed": (("kl", 0), ("kl", 1))},
    "all failed": {"failed": tuple((arm, seed) for arm in ARMS for seed in (0, 1))},
    "families": {"families": True},
    "online": {"online": True},
    "stored logits": {"stored": True},
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_every_kind_of_run_has_a_page_with_all_figures(kind):
    given = material(**VARIANTS[kind])
    text = page.render(given)
    found = Balanced(text)
    said = " ".join(" ".join(found.text).split())
    assert [one.get("id") for one in found.named("section")] == [
        "curves", "classes", "calibration", "cost", "confused", "hardest", "suspects", "views", "setup",
    ]  # fmt: skip
    targets = {one["href"] for one in found.named("a")}
    assert targets == {f"#{one['id']}" for one in found.named("section")}
    assert all(one["alt"] and one["src"].startswith("data:image/jpeg;base64,") for one in found.named("img"))
    assert all(one.get("aria-label") or one.get("aria-hidden") for one in found.named("svg"))
    assert len(found.named("h1")) == 1
    headings = re.findall(r"<h3>(.*?)</h3>", text)
    for name in ("Weighted sum of the terms", "Validation top-1, %", "Recall", "Top-1 over parameters"):
        assert name in headings
    for network in ["teacher", *dict.fromkeys(arm for arm, _ in given.students)]:
        assert f"Confusion matrix: {network}" in headings
        assert any(name.startswith(f"{network}, ECE") for name in headings)
    assert ("Latency is not here" in said) != (kind == "exported")
    assert ("One seed proves nothing" in said) == (kind == "one seed")
    assert ("failed (no finite result)" in said) == ("failed" in kind)
    assert ("nothing to compare" in said) == (kind == "all failed")
    assert ("How large the teacher is, is not known" in said) == (kind == "stored logits")
    assert ("mixed (mixup 0.3)" in said) == (kind == "online")
    assert "Rendered scenes." in said and "60 test images" in said
    assert page.render(material(**VARIANTS[kind])) == text


def test_without_a_teacher_to_ask_or_to_train():
    given = material()
    views = Views(**{**vars(given.views), "teacher": None})
    text = page.render(Material(**{**vars(given), "views": views, "records": {**given.records, "teacher": []}}))
    assert "no teacher to ask" in text and "The teacher was not trained in this run" in text
    Balanced(text)


def test_nothing_is_loaded_from_elsewhere():
    found = Balanced(rendered())
    for tag, attributes in found.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:")), (tag, attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert not re.search(r"@import|url\(", rendered())
    assert len(rendered()) < 500_000


def test_hostile_names_stay_text():
    given = material(parity=PARITY)
    document = copy.deepcopy(given.results)
    document["dataset"]["classes"][1] = HOSTILE
    document["dataset"]["name"] = document["config"]["name"] = HOSTILE
    sides = [Side(**{**vars(one), "names": [HOSTILE_FILE] * len(one.names)}) for one in (given.test, given.validation)]
    views = Views(**{**vars(given.views), "names": [HOSTILE_FILE] * 2})
    text = page.render(
        Material(**{**vars(given), "results": document, "test": sides[0], "validation": sides[1], "views": views})
    )
    found = Balanced(text)
    assert len(found.named("script")) == 1 and "alert" not in re.search("<script>(.*?)</script>", text, re.S)[1]
    assert not any("onerror" in attributes for _, attributes in found.elements)
    assert any(one.get("title") == HOSTILE_FILE for one in found.named("span"))
    assert HOSTILE in " ".join(found.text)


def test_markup_escapes_what_is_not_markup():
    assert element("p", "a < b", title='"&"') == '<p title="&quot;&amp;&quot;">a &lt; b</p>'
    assert element("p", element("b", "x"), 3, class_="y", id=None) == '<p class="y"><b>x</b>3</p>'
    assert joined("<", Markup("<br>")) == "&lt;<br>"


@pytest.mark.parametrize(
    ("missing", "named"),
    [("results.json", "evaluate"), ("evaluation/logits.npz", "evaluate"), ("distill/metrics.jsonl", "distill"),
     ("teacher/metrics.jsonl", "teacher"), ("fingerprint", "evaluate"), ("damaged", "evaluate")],
)  # fmt: skip
def test_what_is_missing_is_named_with_its_stage(tmp_path, missing, named):
    given = material(seeds=(0,))
    for name in ("evaluation", "distill", "teacher"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").touch()
    (tmp_path / "results.json").write_text(json.dumps(given.results))
    np.savez(tmp_path / "evaluation" / "logits.npz", teacher_test=np.zeros(3))
    dataset = SimpleNamespace(fingerprint="f00d", test=given.test.names)
    config = SimpleNamespace(
        teacher=SimpleNamespace(workdir=None, onnx=None), distill=SimpleNamespace(logits=()), seeds=(0,)
    )
    run = SimpleNamespace(workdir=tmp_path, dataset=dataset, config=config, arms=tuple(ARMS))
    if missing == "fingerprint":
        dataset.fingerprint = "another"
    elif missing == "damaged":
        (tmp_path / "evaluation" / "logits.npz").write_bytes(b"PK no archive")
    else:
        (tmp_path / missing).unlink()
    with pytest.raises(InputError, match=f"--stages={named}"):
        stage.report(run)
    assert not (tmp_path / "report.html").exists()


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """<script>
addEventListener("load", () => {
  const room = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll("body *")].filter((one) =>
    !one.closest(".scroll, pre, svg") && one.getBoundingClientRect().right > room + 0.5);
  const names = wide.map((one) => one.tagName + "." + one.className);
  const requests = performance.getEntriesByType("resource").map((one) => one.name);
  const loaded = requests.filter((one) => !one.startsWith("data:"));
  const broken = [...document.images].filter((one) => !one.naturalWidth).length;
  document.title = JSON.stringify({
    width: innerWidth, overflow: document.documentElement.scrollWidth - room, names, loaded, broken,
  });
});
</script>"""


def chromium(tmp_path, path, width):
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-component-update",
            "--disable-background-networking", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr", f"--window-size={width},900", "--dump-dom", path.as_uri(),
        ],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [390, 1400])
def test_a_browser_shows_it_without_complaint_or_overflow(tmp_path, width):
    (tmp_path / "report.html").write_text(rendered())
    dom, complaints = chromium(tmp_path, tmp_path / "report.html", width)
    assert "made up: mobilenet_v2 taught by vgg16</h1>" in dom and not complaints
    # The probe is not the page's own script, so this copy goes without the policy that forbids it.
    free = re.sub(r"<meta http-equiv[^>]*>", "", rendered()).replace("</body>", PROBE + "</body>")
    # A window may not become this narrow, a frame can.
    frame = f'<iframe width={width} height=900 style="border:0" srcdoc="{page.joined(free)}"></iframe>'
    report = "<script>onload = () => { document.title = frames[0].document.title; };</script>"
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html><title>?</title>{report}{frame}")
    dom, complaints = chromium(tmp_path, tmp_path / "frame.html", 1600)
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", dom)[1]))
    assert not complaints
    assert found == {"width": width, "overflow": 0, "names": [], "loaded": [], "broken": 0}
