"""The inputs of tests/faults/bad_inputs.py for the commands that read evaluated runs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.bad_inputs import Case
from helpers import evaluated_run, run_results

from kdjax.config import base

Prepare = Callable[[Path, Path], None]
SPLITS = b'{"train": ["a/1.png", "b/2.png"], "validation": [], "test": %s}'


def cases() -> list[Case]:
    return [*of_compare(), *of_two_splits(), *of_overview()]


def write_shared(folder: Path) -> None:
    """Two runs that are right, which the cases name."""
    random(folder / "random")
    by_place(folder / "place")


def write_run(folder: Path, test: tuple[str, ...], **section: Any) -> None:
    """An evaluated run with these test images of four, and these fields of config.dataset."""
    config = json.loads(base().to_json())
    config["dataset"] |= section
    names = ("a/1.png", "a/2.png", "b/1.png", "b/2.png")
    train = tuple(name for name in names if name not in test)
    run_results.write_run(folder, test, train, config=config, environment={"backend": "cpu"})


def random(folder: Path) -> None:
    write_run(folder, ("a/1.png", "b/1.png"))


def by_place(folder: Path) -> None:
    write_run(folder, ("a/2.png", "b/1.png"), split_by="place")


def with_file(write: Callable[[Path], None], name: str, content: bytes | None) -> Prepare:
    """A run of which one file is another, or none."""

    def prepare(d: Path, w: Path) -> None:
        write(w / "run")
        (w / "run" / name).unlink(missing_ok=True)
        if content is not None:
            (w / "run" / name).parent.mkdir(exist_ok=True)
            (w / "run" / name).write_bytes(content)

    return prepare


def with_value(write: Callable[[Path], None], path: str, value: Any) -> Prepare:
    """A run of which one value of results.json is another; None leaves it out."""

    def prepare(d: Path, w: Path) -> None:
        write(w / "run")
        document = json.loads((w / "run" / "results.json").read_bytes())
        *sections, field = path.split(".")
        held = document
        for name in sections:
            held = held[name]
        held[field] = value
        if value is None:
            del held[field]
        (w / "run" / "results.json").write_text(json.dumps(document), encoding="utf-8")

    return prepare


def of_compare() -> list[Case]:
    def whole(folder: Path) -> None:
        evaluated_run.write_run(folder, {"kl": ([[0, 0, 1, 1]] * 2, "", 0.9)})

    def other_images(d: Path, w: Path) -> None:
        names = ("field/7.png", "field/8.png", "wood/7.png", "wood/8.png")
        evaluated_run.write_run(w / "run", {"kl": ([[0, 0, 1, 1]] * 2, "", 0.9)}, test=names)

    good, own = "{d}/run:kl", "{w}/run:kl"
    rows = [
        ((), "RUN:ARM", None),
        ((good,), "RUN:ARM", None),
        ((good, good, good), "RUN:ARM", None),
        ((good, good), "twice", None),
        ((good, "{w}/link:kl"), "twice", lambda d, w: (w / "link").symlink_to(d / "run")),
        ((good, "{d}/run"), "RUN:ARM", None),
        ((good, "{d}/run:"), "run", None),
        ((good, "/nowhere:kl"), "/nowhere", None),
        ((good, "{d}/run:nobody"), "nobody", None),
        ((good, "{d}/run:no\nbody"), "body", None),
        ((good, "{d}/tiles:kl"), "tiles", None),
        ((good, own), "results.json", with_file(whole, "results.json", b"{")),
        ((good, own), "results.json", with_file(whole, "results.json", b"[]")),
        ((good, own), "results.json", with_file(whole, "results.json", b'{"arms": {}}')),
        ((good, own), "arms.kl", with_value(whole, "arms.kl", 3)),
        ((good, own), "arms.kl.seeds", with_value(whole, "arms.kl.seeds", None)),
        ((good, own), "arms.kl.seeds", with_value(whole, "arms.kl.seeds", [1, 1])),
        ((good, own), "arms.kl.test_top1", with_value(whole, "arms.kl.test_top1", [0.5])),
        ((good, own), "arms.kl.family", with_value(whole, "arms.kl.family", [])),
        ((good, own), "selected", with_value(whole, "selected", {"kl": "nobody"})),
        ((good, own), "splits.json", with_file(whole, "splits.json", b"junk")),
        ((good, own), "splits.json", with_file(whole, "splits.json", json.dumps({"test": [1]}).encode())),
        ((good, own), "logits.npz", with_file(whole, "evaluation/logits.npz", b"junk")),
        ((good, own), "logits.npz", with_file(whole, "evaluation/logits.npz", None)),
        ((good, own), "images", other_images),
    ]
    return [Case("compare", "results", arguments, word, prepare) for arguments, word, prepare in rows]


def of_two_splits() -> list[Case]:
    def value(path: str, value: Any) -> Prepare:
        return with_value(by_place, path, value)

    good, own = "{d}/random", "{w}/run"
    rows = [
        ((), "two evaluated runs", None),
        ((good,), "two evaluated runs", None),
        ((good, good, good), "two evaluated runs", None),
        (("--first", good, good), "two evaluated runs", None),
        ((good, good), "same split", None),
        ((good, ""), "results.json", None),
        ((good, "/nowhere"), "/nowhere", None),
        ((good, "{d}/tiles"), "tiles/results.json", None),
        ((good, "{d}/text.txt"), "text.txt", None),
        ((good, "{w}/no\nrun"), "run/results.json", None),
        ((good, "{d}/run"), "splits.json", None),
        ((good, own), "results.json", lambda d, w: (w / "run").symlink_to(w / "run")),
        ((good, own), "results.json", with_file(by_place, "results.json", None)),
        ((good, own), "results.json", with_file(by_place, "results.json", b"")),
        ((good, own), "results.json", with_file(by_place, "results.json", b"\xff{}")),
        ((good, own), "results.json", with_file(by_place, "results.json", b"[" * 100_000)),
        ((good, own), "splits.json", with_file(by_place, "splits.json", None)),
        ((good, own), "splits.json", with_file(by_place, "splits.json", b"[]")),
        ((good, own), "different images", with_file(by_place, "splits.json", SPLITS % b'["a/1.png"]')),
        ((good, own), "splits.json", with_file(by_place, "splits.json", SPLITS % b'[["b/1.png"]]')),
        ((good, own), "splits.json", with_file(by_place, "splits.json", SPLITS % b'"a/1.png"')),
        ((good, own), "dataset.class_counts", value("dataset.class_counts", {"train": ["many"]})),
        ((good, own), "config.dataset", value("config.dataset", 3)),
        ((good, own), "config.dataset", value("config.dataset", None)),
        ((good, own), "student.epochs is", value("config.student.epochs", 7)),
        ((good, own), "distill.arms", value("config.distill.arms", ["kl"])),
        ((good, own), "teacher.test", value("teacher.test", None)),
        ((good, own), "teacher.test.top1", value("teacher.test.top1", float("nan"))),
        ((good, own), "arms", value("arms", {})),
        ((good, own), "same arms", value("arms.kl", None)),
        ((good, own), "arms.kl.mean", value("arms.kl.mean", "good")),
        ((good, own), "arms.kl.mean", value("arms.kl.mean", 75.0)),
        ((good, own), "arms.kl.std", value("arms.kl.std", "x")),
        ((good, own), "selected", value("selected", 3)),
    ]
    return [Case("two_splits", "results", arguments, word, prepare) for arguments, word, prepare in rows]


def of_overview() -> list[Case]:
    def value(path: str, value: Any) -> Prepare:
        return with_value(random, path, value)

    def parity(text: str) -> Prepare:
        return with_file(random, "export/parity.json", text.encode())

    latency = '{"student": {"arm": "kl"}, "artifacts": {"student.onnx": {"latency_ms": %s}}}'
    good, own = "{d}/random", "{w}/run"
    rows = [
        ((), "RUN", None),
        (("/nowhere",), "/nowhere", None),
        (("",), "results.json", None),
        (("{d}/text.txt",), "text.txt", None),
        (("{d}/tiles",), "tiles", None),
        (("{w}/no\nrun",), "run", None),
        ((good, good), "twice", None),
        ((good, "{w}/link"), "twice", lambda d, w: (w / "link").symlink_to(d / "random")),
        ((good, "{w}/loop"), "loop", lambda d, w: (w / "loop").symlink_to(w / "loop")),
        ((good, "{d}/place"), "test images", None),
        ((good, "--outptu=a.html"), "--outptu", None),
        ((good, "--output="), "--output", None),
        ((good, "--output={d}"), "--output", None),
        ((good, "--output={w}/no/page.html"), "--output", None),
        ((good, "--output={d}/text.txt/page.html"), "--output", None),
        ((good, "--output=/proc/page.html"), "/proc/page.html", None),
        ((good, "--output={d}/random/results.json"), "--output", None),
        ((good, "--output={w}/" + "a" * 300 + ".html"), "File name too long", None),
        ((own,), "results.json", with_file(random, "results.json", b"{")),
        ((own,), "results.json", with_file(random, "results.json", b"[]")),
        ((own,), "results.json", with_file(random, "results.json", b"\xff")),
        ((own,), "splits.json", with_file(random, "splits.json", None)),
        ((own,), "splits.json", with_file(random, "splits.json", b'{"test": [[]], "classes": []}')),
        ((own,), "dataset.splits", value("dataset.splits", None)),
        ((own,), "config.student", value("config.student", [])),
        ((own,), "teacher.model", value("teacher.model", None)),
        ((own,), "student.params", value("student.params", -1)),
        ((own,), "student.width", value("student.width", "wide")),
        ((own,), "arms.kl.weights", value("arms.kl.weights", None)),
        ((own,), "arms.kl.test_top1", value("arms.kl.seeds", [0])),
        ((own,), "arms.kl.test_top1", value("arms.kl.test_top1", 0.5)),
        ((own,), "arms.kl.val_top1", value("arms.kl.val_top1", ["a", 1, 2])),
        ((own,), "arms.kl.ci95", value("arms.kl.ci95", [1])),
        ((own,), "environment", value("environment", 3)),
        ((own,), "parity.json", parity("{")),
        ((own,), "parity.json", parity("[]")),
        ((own,), "parity.json", parity(latency % "3")),
        ((own,), "parity.json", parity(latency % '{"1": "fast"}')),
        ((own,), "parity.json", parity(latency % '{"1": -2}')),
    ]
    return [Case("overview", "report", arguments, word, prepare) for arguments, word, prepare in rows]
