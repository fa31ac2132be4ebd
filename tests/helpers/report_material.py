"""Material of made-up runs, of which reports are made."""

import dataclasses
import json

import numpy as np

from kdjax.report.material import Material, Side, Views
from kdjax.results import comparison, metrics
from kdjax.results import document as results

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
    "artifacts": {
        "student.onnx": {"top1": 0.7, "agreement": 1.0, "bytes": 900_000, "latency_ms": {"1": 1.4, "32": 35.2}},
        "student.int8.onnx": {"top1": 0.68, "agreement": 0.9, "bytes": 300_000, "latency_ms": {"1": 0.9, "32": 15.5}},
        "student.stablehlo": {"top1": None, "agreement": None, "bytes": 900_000, "latency_ms": None},
    },
    "machine": {"onnxruntime": "1.32", "cpu_count": 2, "machine": "x86_64"},
}


def material(seeds=(0, 1), failed=(), families=False, parity=None, online=False, stored=False, unmeasured=False):
    """A run made up from random logits; `failed` are (arm, seed), and the teacher may be `unmeasured`."""
    rng = np.random.default_rng(0)
    students = [(arm, seed) for arm in ARMS for seed in seeds if (arm, seed) not in failed]
    test, validation = side("test", 60, len(students), rng), side("validation", 20, len(students), rng)
    teacher = np.full_like(test.teacher, np.nan) if unmeasured else test.teacher
    measured = {
        one: {
            **metrics.classification(test.students[k], test.labels),
            **metrics.agreement(test.students[k], teacher),
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
            "overlap": 0.25,
        },
        teacher={
            "model": "vgg16",
            "params": None if stored else 14_700_000,
            "macs": None if stored else 1_250_000_000,
            "forward_images": None if online else 180,
            "test": metrics.classification(teacher, test.labels),
        },
        student={"model": "mobilenet_v2", "params": 2_250_000, "macs": 24_500_000, "image_size": 16},
        arms=arms,
        environment={"python": "3.11", "devices": [{"kind": "cpu", "count": 8}], "xla_flags": ""},
        config={"name": "made up", "seeds": list(seeds), "distill": {"mixup": 0.3 if online else 0.0}},
    )
    shown = comparison.select(document["arms"], "top1").values()
    kept = [k for k, (arm, _) in enumerate(students) if arm in shown]
    keep = lambda one: dataclasses.replace(
        one, teacher=None if unmeasured else one.teacher, students=one.students[kept]
    )
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


def exported(given, arm="kl", seed=0, **changed):
    """What an export of a student of these results writes of it."""
    measured = given.results["arms"][arm]["test_metrics"][0]
    test = {name: measured[name] for name in ("top1", "macro_f1", "nll", "ece")}
    return PARITY | {"student": {"arm": arm, "seed": seed, "test": {"count": 60, **test}} | changed}
