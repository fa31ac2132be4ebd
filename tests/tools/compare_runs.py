"""An arm of one run against an arm of another, on the same test images, paired by the seeds that both have.

    python tests/tools/compare_runs.py runs/labels_10:kl_cosine runs/labels_10_only:student_alone

An arm may be a family of trials, of which the one that validation prefers is taken. Printed as JSON are the accuracies
of both, their mean difference with Student's t interval over the seeds, and with that of a bootstrap over the test
images. The runs are of class folders, whose names tell the labels.
"""

import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from kdjax.results import document as results  # noqa: E402
from kdjax.results import intervals


def right(name: str) -> tuple[list[str], dict[int, np.ndarray]]:
    """Test images, and by seed (images,) bool: what the arm of "RUN:ARM" has right; without the seeds that failed."""
    folder, _, arm = name.rpartition(":")
    if not (Path(folder) / "results.json").is_file():
        raise SystemExit(f"{name}: give RUN:ARM, the directory of an evaluated run and one of its arms")
    document = json.loads((Path(folder) / "results.json").read_text())
    arm = results.select(document["arms"]).get(arm, arm)
    if arm not in document["arms"]:
        raise SystemExit(f"{name}: {folder} has the arms {', '.join(document['arms'])}")
    splits = json.loads((Path(folder) / "splits.json").read_text())
    images, classes = splits["test"], splits["classes"]
    strange = [image for image in images if image.split("/")[0] not in classes]
    if strange:
        raise SystemExit(f"{name}: {strange[0]} does not lie in a folder of its class")
    labels = np.array([classes.index(image.split("/")[0]) for image in images])
    column = document["config"]["distill"]["arms"].index(arm)
    logits = np.load(Path(folder) / "evaluation" / "logits.npz")["student_test"][:, column]
    one = document["arms"][arm]
    correct = zip(one["seeds"], one["test_top1"], logits.argmax(-1) == labels, strict=True)
    return images, {seed: row for seed, top1, row in correct if top1 is not None}


def main(first: str, second: str) -> None:
    (images, ours), (their_images, theirs) = right(first), right(second)
    seeds = sorted(ours.keys() & theirs.keys())
    if images != their_images or not seeds:
        raise SystemExit(f"{first} and {second} have not the same test images, or no seed in common")
    ours, theirs = (np.array([one[seed] for seed in seeds]) for one in (ours, theirs))
    means = ours.mean(1).tolist(), theirs.mean(1).tolist()
    document = {
        "arms": [first, second],
        "seeds": seeds,
        "test_top1": means,
        "over_seeds": intervals.summary(intervals.paired_differences(*means)),
        "over_images": intervals.paired_bootstrap(ours, theirs),
    }
    print(json.dumps(document, indent=2))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    main(*sys.argv[1:])
