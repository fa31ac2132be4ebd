"""The report: what it finds against plain loops, what it says, and how a browser takes it."""

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

from kdjax import metrics, results
from kdjax.errors import InputError
from kdjax.report import charts, findings, page, stage, summary
from kdjax.report.markup import Markup, element, joined
from kdjax.report.material import Material, Side, Views

CLASSES = ("field", "forest", "sea", "town")
ARMS = {
    "student_alone": {"ce": 1.0, "kl": 0.0, "cosine": 0.0},
    "kl": {"ce": 1.0, "kl": 1.0, "cosine": 0.0},
    "kl_cosine": {"ce": 1.0, "kl": 1.0, "cosine": 1.0},
}
HOSTILE = "<script>alert(1)</script>"
HOSTILE_FILE = "\"'><img src=x onerror=alert(2)>.png"


def random_logits(rng, labels, networks, strength):
    """(networks, N, C) float64 log-probabilities, right more often with more strength."""
    logits = rng.normal(0, 2, (networks, len(labels), len(CLASSES))) + strength * np.eye(len(CLASSES))[labels]
    return metrics.log_softmax(logits)


def side(name, count, networks, rng):
    labels = np.sort(rng.integers(0, len(CLASSES), count))
    return Side(
        name,
        rng.integers(0, 256, (count, 12, 12, 3), dtype=np.uint8),
        labels,
        [f"{CLASSES[label]}/{name}{k:03d}.png" for k, label in enumerate(labels)],
        random_logits(rng, labels, 1, 4)[0],
        random_logits(rng, labels, networks, 3),
    )


def records(students, rng, terms=("ce", "kl", "cosine", "loss", "grad_norm")):
    lines = []
    for epoch in (1, 2, 3):
        train = {name: {term: float(rng.uniform(1, 3) / epoch) for term in terms} for name in students}
        validation = {name: {"top1": 0.2 * epoch, "nll": 1 / epoch} for name in students}
        lines.append({"step": 10 * epoch, "kind": "train", "epoch": float(epoch), "students": train})
        lines.append({"step": 10 * epoch, "kind": "validation", "epoch": float(epoch), "students": validation})
    return lines


PARITY = {
    "student": {"arm": "kl", "seed": 0},
    "test_images": {"count": 60},
    "artefacts": {
        "student.onnx": {"top1": 0.7, "agreement": 1.0, "bytes": 900_000, "latency_ms": {"1": 1.4, "32": 35.2}},
        "student.int8.onnx": {"top1": 0.68, "agreement": 0.9, "bytes": 300_000, "latency_ms": {"1": 0.9, "32": 15.5}},
        "student.stablehlo": {"top1": None, "agreement": None, "bytes": 900_000, "latency_ms": None},
    },
    "machine": {"onnxruntime": "1.32", "cpu_count": 2, "machine": "x86_64"},
}


def material(seeds=(0, 1), failed=(), families=False, parity=None, online=False, stored=False):
    """A run made up from random logits; `failed` are (arm, seed)."""
    rng = np.random.default_rng(0)
    students = [(arm, seed) for arm in ARMS for seed in seeds if (arm, seed) not in failed]
    test, validation = side("test", 60, len(students), rng), side("validation", 20, len(students), rng)
    measured = {
        one: {
            **metrics.classification(test.students[k], test.labels),
            **metrics.agreement(test.students[k], test.teacher),
        }
        for k, one in enumerate(students)
    }
    right = {one: test.students[k].argmax(-1) == test.labels for k, one in enumerate(students)}
    arms = {
        arm: {
            "weights": weights,
            "temperature": 4.0,
            "seeds": list(seeds),
            "test": [measured.get((arm, seed)) for seed in seeds],
            "val_top1": [0.5 + 0.1 * k if (arm, seed) in measured else None for seed in seeds],
            "correct": np.array([right.get((arm, seed), np.zeros(60, bool)) for seed in seeds]),
            **({"family": arm.split("_")[0]} if families and arm != "student_alone" else {}),
        }
        for k, (arm, weights) in enumerate(ARMS.items())
    }
    document = results.build(
        dataset={
            "name": "tiles",
            "classes": CLASSES,
            "splits": {"train": 90, "val": 20, "test": 60},
            "fingerprint": "f00d",
        },
        teacher={
            "model": "vgg16",
            "params": None if stored else 14_700_000,
            "macs": None if stored else 1_250_000_000,
            "forward_images": None if online else 180,
            "test": metrics.classification(test.teacher, test.labels),
        },
        student={"model": "mobilenet_v2", "params": 2_250_000, "macs": 24_500_000, "image_size": 16},
        arms=arms,
        environment={"python": "3.11", "devices": [{"kind": "cpu", "count": 8}], "xla_flags": ""},
        config={"name": "made up", "seeds": list(seeds), "distill": {"mixup": 0.3 if online else 0.0}},
    )
    shown = results.select(document["arms"]).values()
    kept = [k for k, (arm, _) in enumerate(students) if arm in shown]
    keep = lambda one: Side(one.name, one.images, one.labels, one.names, one.teacher, one.students[kept])
    views = Views(
        names=["field/a.png", "sea/b.png"],
        labels=[0, 2],
        images=rng.integers(0, 256, (2, 12, 12, 3), dtype=np.uint8),
        views=rng.integers(0, 256, (2, 3, 16, 16, 3), dtype=np.uint8),
        teacher=metrics.log_softmax(rng.normal(size=(2, 3, 4))),
        students=metrics.log_softmax(rng.normal(size=(len(kept), 2, 3, 4))),
    )
    return Material(
        results=json.loads(json.dumps(document)),
        records={
            "teacher": records(["teacher/0"], rng, ("ce", "loss")),
            "distill": records([f"{arm}/{seed}" for arm in ARMS for seed in seeds], rng),
        },
        students=[students[k] for k in kept],
        test=keep(test),
        validation=keep(validation),
        views=views,
        parity=parity,
        note="Rendered scenes.",
    )


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


def test_calibration_bins_are_those_of_the_calibration_error():
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 4, 200)
    logits = random_logits(rng, labels, 1, 3)
    bins = findings.calibration(logits, labels)
    assert sum(one.count for one in bins) == 200
    error = sum(one.count * abs(one.accuracy - one.confidence) for one in bins) / 200
    assert error == pytest.approx(metrics.classification(logits[0], labels)["ece"], abs=1e-12)
    pooled = findings.calibration(np.concatenate([logits, logits]), labels)
    assert [one.count for one in pooled] == [2 * one.count for one in bins]
    assert [one.accuracy for one in pooled] == pytest.approx([one.accuracy for one in bins])


def test_confusions_against_loops():
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 4, 50)
    logits = random_logits(rng, labels, 3, 2)
    predicted = logits.argmax(-1)
    counted = {}
    for network in range(3):
        for image in range(50):
            key = (labels[image], predicted[network, image])
            counted.setdefault(key, []).append(image)
    matrix = findings.confusion(logits, labels)
    assert all(matrix[true, other] == len(counted.get((true, other), ())) for true in range(4) for other in range(4))
    pairs = findings.confused_pairs(predicted, labels)
    wrong = {key: images for key, images in counted.items() if key[0] != key[1]}
    assert {(one.true, one.predicted): one.mistakes for one in pairs} == {key: len(v) for key, v in wrong.items()}
    assert [one.mistakes for one in pairs] == sorted((one.mistakes for one in pairs), reverse=True)
    for one in pairs:
        images = wrong[one.true, one.predicted]
        assert dict(zip(one.images, one.networks, strict=True)) == {image: images.count(image) for image in images}
        assert list(one.networks) == sorted(one.networks, reverse=True)


def test_hardest_and_suspects_against_loops():
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 400)
    teacher, students = random_logits(rng, labels, 1, 1)[0], random_logits(rng, labels, 2, 1)
    losses = [-(students[0, i, labels[i]] + students[1, i, labels[i]]) / 2 for i in range(400)]
    order = sorted(range(400), key=lambda i: -losses[i])
    found = findings.hardest(students, labels, 7)
    assert [image for image, _ in found] == order[:7]
    assert [loss for _, loss in found] == pytest.approx([losses[i] for i in order[:7]])
    expected = {}
    for i in range(400):
        named = {int(one[i].argmax()) for one in (teacher, *students)}
        if len(named) == 1 and labels[i] not in named:
            (other,) = named
            expected[i] = (other, np.mean([np.exp(one[i, other]) for one in (teacher, *students)]))
    found = findings.suspect_labels(teacher, students, labels)
    assert expected and {image: (other, pytest.approx(p)) for image, other, p in found} == expected
    assert [p for *_, p in found] == sorted((p for *_, p in found), reverse=True)


def test_votes_and_examples():
    assert findings.votes(np.array([2, 0, 2, 1, 0, 2])) == [(2, 3), (0, 2), (1, 1)]
    assert findings.one_of_each(np.array([-1, 1, 0, 1, 3]), [0, 1, 2, 3]) == [2, 1, 4]


def gain(mean, ci95=None, p=None, boot=None):
    """results.json with an arm that differs from the student alone by `mean`."""
    arm = lambda top1, **more: {
        "weights": {"ce": 1.0, "kl": 0.0}, "val_top1": [0.5, 0.5], "test_top1": [top1, top1], "mean": top1,
        "minus_alone": None, "p_vs_alone": None, "bootstrap": None, **more,
    }  # fmt: skip
    taught = arm(0.8 + mean, minus_alone={"mean": mean, "ci95": ci95}, p_vs_alone=p, bootstrap=boot and {"ci95": boot})
    taught["weights"] = {"ce": 1.0, "kl": 1.0}
    return {
        "arms": {"student_alone": arm(0.8), "kl": taught},
        "dataset": {"splits": {"test": 100}},
        "teacher": {"test": {"top1": 0.9}},
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((0.05, [0.01, 0.09], 0.03), "distillation helps"),
        ((-0.05, [-0.09, -0.01], 0.03), "distillation harms"),
        ((0.05, [-0.01, 0.11], 0.2), "contains 0: these seeds do not show"),
        ((0.05, [0.01, 0.09], 0.08), "weak evidence"),
        ((0.05, None, None, [0.01, 0.09]), "one seed proves nothing"),
    ],
)
def test_the_finding_carries_its_uncertainty(arguments, said):
    text = summary.finding(gain(*arguments))
    assert said in text and "80.00 %" in text and "the teacher on 90.00 %" in text
    assert f"{100 * arguments[0]:+.2f} points".replace("-", "−") in text


def test_the_leading_arm_is_chosen_on_validation_among_the_taught():
    found = gain(-0.1)
    found["arms"]["student_alone"]["val_top1"] = [0.9, 0.9]
    assert summary.leading_arm(found) == "kl"
    found["arms"]["other"] = {**found["arms"]["kl"], "val_top1": [0.6, None], "mean": 0.1}
    assert summary.leading_arm(found) == "other"
    found["arms"]["other"]["mean"] = None
    assert summary.leading_arm(found) == "kl"


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [
        (0, 15, False),
        (56, 98.2, False),
        (0.98, 0.981, False),
        (0.0053, 41.2, True),
        (1.1, 1.7, True),
        (2.2e6, 1.5e7, True),
    ],
)
def test_ticks_are_few_round_values_inside(low, high, log):
    ticks = charts.Axis(low, high, 0, 100, log).ticks(5)
    assert 2 <= len(ticks) <= 10 and ticks == sorted(set(ticks))
    assert all(low <= one <= high and float(f"{one:.4g}") == pytest.approx(one) for one in ticks)


def test_a_curve_is_the_mean_of_the_seeds_that_came_to_the_end():
    lines = (np.array([[1, 2.0], [2, 1.0]]), np.array([[1, 4.0], [2, 3.0]]), np.array([[1, 90.0]]))
    one = charts.Series("kl", "s0", lines)
    np.testing.assert_array_equal(one.mean, [[1, 3], [2, 2]])
    drawn = charts.curves([one], alt="losses", log=True)
    assert drawn.count("<path") == 4 and "log scale" in drawn
    assert "log scale" not in charts.curves([charts.Series("kl", "s0", (lines[0] - 1,))], alt="", log=True)


def test_places_on_an_axis():
    assert charts.Axis(0, 10, 40, 240).place(2.5) == pytest.approx(90)
    assert charts.Axis(1, 100, 200, 0, log=True).place(10) == pytest.approx(100)


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
