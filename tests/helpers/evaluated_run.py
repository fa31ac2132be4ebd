"""The files of an evaluated run that comparisons read, made up from the classes that its students say."""

import json

import numpy as np

TEST = ("field/1.png", "field/2.png", "wood/1.png", "wood/2.png")


def write_run(folder, arms, test=TEST, failed=()):
    """A run of seeds 0, 1, ...; `arms` gives the classes that each seed says, family and validation accuracy."""
    (folder / "evaluation").mkdir(parents=True)
    of_arms = {
        name: {
            "weights": {"ce": 1.0},
            "seeds": list(range(len(classes))),
            "val_top1": [validation] * len(classes),
            "test_top1": [None if seed in failed else 0.5 for seed in range(len(classes))],
            "mean": 0.5,
            **({"family": family} if family else {}),
        }
        for name, (classes, family, validation) in arms.items()
    }
    cost = {"params": 1, "macs": 1}
    document = {
        "dataset": {"name": "made", "classes": ["field", "wood"], "splits": {"train": 4, "val": 4, "test": len(test)}},
        "teacher": {"model": "t", **cost, "test": {"top1": 0.5}},
        "student": {"model": "s", **cost},
        "arms": of_arms,
        "config": {},
    }
    (folder / "results.json").write_text(json.dumps(document))
    (folder / "splits.json").write_text(json.dumps({"classes": ["field", "wood"], "test": list(test)}))
    said = np.array([classes for classes, _, _ in arms.values()]).swapaxes(0, 1)
    np.savez(folder / "evaluation" / "logits.npz", student_test=np.eye(2)[said])
