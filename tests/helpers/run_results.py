"""The parts of a made-up run's results.json: four arms, three seeds."""

import json

import numpy as np

from kdjax.results import document, metrics
from kdjax.runtime import environment

TOP1 = {
    "student_alone": [0.70, 0.72, 0.74],
    "kl": [0.75, 0.78, 0.77],
    "cosine": [0.71, 0.74, 0.73],
    "kl_cosine": [0.78, 0.79, 0.83],
}
WEIGHTS = {
    "student_alone": (1, 0, 0),
    "kl": (1, 1, 0),
    "cosine": (1, 0, 1),
    "kl_cosine": (1, 1, 1),
    "labeled_alone": (1, 0, 0),
}


def measured(top1, classes=3):
    """Figures of four test images, with `top1` in place of theirs."""
    logits = np.eye(classes)[[0, 1, 2, 0]] * 3
    out = {**metrics.classification(logits, np.array([0, 1, 2, 1])), **metrics.agreement(logits, logits[::-1])}
    return {**out, "top1": top1}


def parts(top1=TOP1, seeds=(0, 1, 2), teacher=0.9, **changes):
    """Arguments of `document.build`."""
    arms = {
        name: {
            "weights": dict(zip(("ce", "kl", "cosine"), WEIGHTS[name], strict=True)),
            "temperature": 4.0,
            "seeds": seeds,
            "val_top1": [np.float32(0.5)] * len(seeds),
            "best_step": [10] * len(seeds),
            "test": [None if v is None else measured(v) for v in values],
        }
        for name, values in top1.items()
    }
    return {
        **dict(
            dataset={
                "name": "demo",
                "classes": ("a", "b", "c"),
                "fingerprint": "f00",
                "splits": {"train": 600, "val": 200, "test": 400},
                "overlap": 0.5,
            },
            teacher={
                "model": "vgg16_bn",
                "params": 3_690_000,
                "macs": 178_000_000,
                "forward_images": 4800,
                "test": measured(teacher),
            },
            student={"model": "mobilenet_v2", "params": np.int64(404_000), "macs": 5_600_000},
            arms=arms,
            environment=changes.get("environment") or environment.environment(),  # which starts JAX
            config={"seeds": seeds, "rate": float("inf")},
        ),
        **changes,
    }


def write_run(folder, test=("a/1.png", "b/1.png"), train=("c/1.png",), **given):
    """The two files of an evaluated run that pages and tables of several runs read; `given` as of `parts`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(document.build(**parts(**given))), encoding="utf-8")
    splits = {"classes": ["a", "b", "c"], "train": list(train), "validation": [], "test": list(test)}
    (folder / "splits.json").write_text(json.dumps(splits), encoding="utf-8")
