"""The page of the report: what is on it, what it never loads, and how a browser takes it."""

import base64
import copy
import dataclasses
import functools
import hashlib
import html
import html.parser
import json
import re
import subprocess

import numpy as np
import pytest
from helpers import chromium as browser
from helpers import report_material
from helpers.report_material import ARMS, HOSTILE, HOSTILE_FILE, PARITY, material

from kdjax.data.dataset import Split
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
    "teacher unmeasured": {"stored": True, "unmeasured": True},
    "nobody measured": {
        "unmeasured": True,
        "stored": True,
        "failed": tuple((arm, seed) for arm in ARMS for seed in (0, 1)),
    },
}


def test_a_run_without_a_teacher_speaks_of_none():
    given = material(unmeasured=True, failed=tuple((arm, seed) for arm in ARMS for seed in (0, 1) if arm[0] == "k"))
    given.results["teacher"], given.records["teacher"] = None, []
    given.results["arms"] = {"student_alone": given.results["arms"]["student_alone"]}
    given = dataclasses.replace(given, parity=PARITY, views=dataclasses.replace(given.views, teacher=None))
    said = " ".join(" ".join(Balanced(page.render(given)).text).split())
    for sentence in ("The teacher", "the teacher is", "one teacher", "Teacher to student"):
        assert sentence not in said
    assert "mobilenet_v2 without a teacher" in said and "students asked about these pictures." in said


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
    taught = [] if "measured" in kind else ["teacher"]
    for name in ("Weighted sum of the terms", "Validation top-1, %", "Recall", "Top-1 over parameters"):
        assert name in headings or kind == "nobody measured"
    for network in [*taught, *dict.fromkeys(arm for arm, _ in given.students)]:
        assert f"Confusion matrix: {network}" in headings
        assert any(name.startswith(f"{network}, ECE") for name in headings)
    assert ("No latency: it is" in said) != (kind == "exported")
    assert ("One seed proves nothing" in said) == (kind == "one seed")
    for heading in headings:
        assert taught or heading != "Confusion matrix: teacher" and not heading.startswith("teacher, ECE")
    assert ("failed (no finite result)" in said) == ("failed" in kind or kind == "nobody measured")
    assert ("nothing to compare" in said) == (kind in ("all failed", "nobody measured"))
    assert ("The size of the teacher is not known" in said) == (VARIANTS[kind].get("stored", False))
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


def test_the_page_forbids_all_but_its_own_script():
    found = Balanced(rendered())
    (policy,) = (one["content"] for one in found.named("meta") if one.get("http-equiv"))
    script = re.search("<script>(.*?)</script>", rendered(), re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"


def test_the_table_shades_the_leading_arm_alone():
    rows = re.findall(r'<tr( class="leading")?><th scope="row">([^<]*)</th>', rendered())
    assert [name for leading, name in rows if leading] == ["kl_cosine"]
    assert {"teacher vgg16", "student_alone", "kl"} <= {name for leading, name in rows if not leading}


@pytest.mark.parametrize("arms", [("student_alone",), ("student_alone", "kl")])
def test_the_title_says_taught_only_where_a_student_was(monkeypatch, arms):
    monkeypatch.setattr(report_material, "ARMS", {name: ARMS[name] for name in arms})
    title = re.search("<h1>(.*?)</h1>", page.render(material()))[1]
    assert title == f"made up: mobilenet_v2 {'taught by vgg16' if 'kl' in arms else 'without a teacher'}"


def test_markup_escapes_what_is_not_markup():
    assert element("p", "a < b", title='"&"') == '<p title="&quot;&amp;&quot;">a &lt; b</p>'
    assert element("p", element("b", "x"), 3, class_="y", id=None) == '<p class="y"><b>x</b>3</p>'
    assert joined("<", Markup("<br>")) == "&lt;<br>"
    assert element("p", "a\x1b[31m\nb\0", title="\u202ex") == '<p title="\\u202ex">a\\x1b[31m\nb\\x00</p>'


def test_the_page_is_made_of_the_files(run):
    stage.report(run)
    assert (run.workdir / "report.html").read_text(encoding="utf-8") == page.render(material(seeds=(0,), parity=PARITY))


def test_of_a_family_only_the_selected_trial_is_shown(run, monkeypatch):
    given = material(seeds=(0,), families=True)
    (run.workdir / "results.json").write_text(json.dumps(given.results), encoding="utf-8")
    shown = [arm for arm, _ in given.students]
    assert len(shown) == 2 < len(ARMS)
    arrays = {}
    for name, side in (("test", given.test), ("validation", given.validation)):
        arrays[f"teacher_{name}"] = side.teacher
        arrays[f"student_{name}"] = np.zeros((1, len(ARMS), *side.teacher.shape))  # what is not shown may be anything
        arrays[f"student_{name}"][0, [list(ARMS).index(arm) for arm in shown]] = side.students
        setattr(run.dataset, name, Split(side.images, side.labels, side.names))
    np.savez(run.workdir / "evaluation" / "logits.npz", **arrays)
    seen = []
    monkeypatch.setattr(stage.page, "render", lambda material: seen.append(material) or "")
    stage.report(run)
    assert seen[0].students == [(arm, 0) for arm in shown]
    np.testing.assert_allclose(seen[0].test.students, given.test.students, atol=1e-12)
    np.testing.assert_allclose(seen[0].validation.students, given.validation.students, atol=1e-12)


def test_without_an_export_and_without_labels_of_some_images(run):
    (run.workdir / "export" / "parity.json").unlink()
    run.dataset.test.labels[:7] = -1
    stage.report(run)
    found = Balanced((run.workdir / "report.html").read_text(encoding="utf-8"))
    said = " ".join(" ".join(found.text).split())
    assert "No latency: it is" in said and "53 test images" in said


def refused(run, match):
    with pytest.raises(InputError, match=match) as caught:
        stage.report(run)
    assert "\n" not in str(caught.value) and not (run.workdir / "report.html").exists()


@pytest.mark.parametrize("artifacts", [{"student.onnx": {"bytes": 1}}, {"student.onnx": 3}, []])
def test_an_export_that_was_cut_by_hand_is_named(run, artifacts):
    path = run.workdir / "export" / "parity.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"artifacts": artifacts}))
    refused(run, r"parity.json (lacks agreement, latency_ms, top1 of student.onnx|is not the .*): run --stages=export")


FILES = {
    "results.json": "evaluate",
    "evaluation/logits.npz": "evaluate",
    "distill/metrics.jsonl": "distill",
    "teacher/metrics.jsonl": "teacher",
}


@pytest.mark.parametrize(("missing", "named"), FILES.items())
def test_what_is_missing_is_named_with_its_stage(run, missing, named):
    (run.workdir / missing).unlink()
    refused(run, f"{missing}: run --stages={named}")


GARBAGE = (b"garbage\n", b"[]\n", b"{}\n", b"\xff\xfe\n", b'{"step": 1}\n', b"PK\x03\x04\n")


@pytest.mark.parametrize("content", GARBAGE)
@pytest.mark.parametrize("name", [*FILES, "export/parity.json"])
def test_what_is_damaged_is_named_with_what_to_do(run, name, content):
    (run.workdir / name).write_bytes(content)
    stages = {**FILES, "export/parity.json": "export"}
    fix = "delete those lines" if name.endswith("jsonl") else f"run --stages={stages[name]} again"
    refused(run, f"{name}.*: {fix}")


def test_files_of_another_run_are_refused(run):
    run.student.arm_names = tuple(ARMS)[:2]
    refused(run, "results.json is of other arms.*--stages=evaluate")
    run.student.arm_names = tuple(ARMS)
    run.student.rows = (2, len(ARMS))
    refused(run, "student_validation has the shape.*--stages=evaluate")
    run.student.rows = (1, len(ARMS))
    results = json.loads((run.workdir / "results.json").read_text())
    (run.workdir / "results.json").write_text(json.dumps({**results, "logits_sha256": "0"}))
    refused(run, "logits.npz is not of the evaluation that wrote results.json: run --stages=evaluate again")
    run.dataset.fingerprint = "another"
    refused(run, "results.json is of other data.*--stages=evaluate")


def test_without_test_images_there_is_no_report(run):
    run.dataset.test = Split(run.dataset.test.images[:0], run.dataset.test.labels[:0], [])
    refused(run, "no test images")


CHROMIUM = browser.found()
PROBE = """<script>
addEventListener("load", () => {
  const room = document.documentElement.clientWidth;
  const wide = [...document.querySelectorAll("body *")].filter((one) =>
    !one.closest(".scroll, pre, svg") && one.getBoundingClientRect().right > room + 0.5);
  const names = wide.map((one) => one.tagName + "." + one.className);
  const requests = performance.getEntriesByType("resource").map((one) => one.name);
  const loaded = requests.filter((one) => !one.startsWith("data:"));
  const broken = [...document.images].filter((one) => !one.naturalWidth).length;
  const bent = [...document.images].filter((one) => getComputedStyle(one).objectFit === "fill" &&
    Math.abs(one.clientWidth / one.clientHeight - one.naturalWidth / one.naturalHeight) > 0.05).length;
  document.title = JSON.stringify({
    width: innerWidth, overflow: document.documentElement.scrollWidth - room, names, loaded, broken, bent,
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
    given, wide = material(parity=PARITY), lambda images: np.repeat(images, 2, -2)  # true and false color, side by side
    test, views = given.test, given.views
    test = dataclasses.replace(test, images=wide(test.images))
    views = dataclasses.replace(views, images=wide(views.images), views=wide(views.views))
    shown = page.render(dataclasses.replace(given, test=test, views=views))
    (tmp_path / "report.html").write_text(shown)
    dom, complaints = chromium(tmp_path, tmp_path / "report.html", width)
    assert "made up: mobilenet_v2 taught by vgg16</h1>" in dom and not complaints
    # The probe is not the page's own script, so this copy goes without the policy that forbids it.
    free = re.sub(r"<meta http-equiv[^>]*>", "", shown).replace("</body>", PROBE + "</body>")
    # A window may not become this narrow, a frame can.
    frame = f'<iframe width={width} height=900 style="border:0" srcdoc="{page.joined(free)}"></iframe>'
    report = "<script>onload = () => { document.title = frames[0].document.title; };</script>"
    (tmp_path / "frame.html").write_text(f"<!DOCTYPE html><title>?</title>{report}{frame}")
    dom, complaints = chromium(tmp_path, tmp_path / "frame.html", 1600)
    found = json.loads(html.unescape(re.search("<title>(.*?)</title>", dom)[1]))
    assert not complaints
    assert found == {"width": width, "overflow": 0, "names": [], "loaded": [], "broken": 0, "bent": 0}
