"""The files of an evaluated run that comparisons read, made up from the classes that its students say."""

import hashlib
import json

import numpy as np

TEST = ("field/1.png", "field/2.png", "wood/1.png", "wood/2.png")


def write_run(folder, arms, test=TEST, failed=(), classes=("field", "wood"), images=None, dataset=None):
    """A run of seeds 0, 1, ...; `arms` gives the classes that each seed says, family and validation accuracy.

    The last folder of a test image is its class; `images` says by name what it shows, where that is not its name.
    """
    (folder / "evaluation").mkdir(parents=True)
    of_arms = {
        name: {
            "weights": {"ce": 1.0},
            "seeds": list(range(len(said))),
            "val_top1": [validation] * len(said),
            "test_top1": [None if seed in failed else 0.5 for seed in range(len(said))],
            "mean": 0.5,
            **({"family": family} if family else {}),
        }
        for name, (said, family, validation) in arms.items()
    }
    cost = {"params": 1, "macs": 1}
    document = {
        "dataset": {"name": "made", "classes": list(classes), "splits": {"train": 4, "val": 4, "test": len(test)}},
        "teacher": {"model": "t", **cost, "test": {"top1": 0.5}},
        "student": {"model": "s", **cost},
        "arms": of_arms,
        "config": {"dataset": dataset or {}},
    }
    (folder / "results.json").write_text(json.dumps(document))
    (folder / "splits.json").write_text(json.dumps({"classes": list(classes), "test": list(test)}))
    said = np.array([one for one, _, _ in arms.values()]).swapaxes(0, 1)
    shown = [hashlib.sha256((images or {}).get(name, name).encode()).digest() for name in test]
    np.savez(
        folder / "evaluation" / "logits.npz",
        student_test=np.eye(len(classes))[said],
        labels_test=np.array([classes.index(name.split("/")[-2]) for name in test], np.int32),
        hashes_test=np.frombuffer(b"".join(shown), np.uint8).reshape(-1, 32),
    )
