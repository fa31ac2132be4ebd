"""tests/tools/compare_runs.py against differences counted by hand."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "compare_runs.py"
TEST = ["field/1.png", "field/2.png", "wood/1.png", "wood/2.png"]


def write_run(folder, arms, test=TEST, failed=()):
    """A run of seeds 0, 1, ...; `arms` gives the classes that each seed says, family and validation accuracy."""
    (folder / "evaluation").mkdir(parents=True)
    document = {
        name: {
            "seeds": list(range(len(classes))),
            "val_top1": [validation] * len(classes),
            "test_top1": [None if seed in failed else 0.5 for seed in range(len(classes))],
            **({"family": family} if family else {}),
        }
        for name, (classes, family, validation) in arms.items()
    }
    config = {"distill": {"arms": list(arms)}}
    (folder / "results.json").write_text(json.dumps({"arms": document, "config": config}))
    (folder / "splits.json").write_text(json.dumps({"classes": ["field", "wood"], "test": test}))
    said = np.array([classes for classes, _, _ in arms.values()]).swapaxes(0, 1)
    np.savez(folder / "evaluation" / "logits.npz", student_test=np.eye(2)[said])


def compare(*names):
    return subprocess.run([sys.executable, str(SCRIPT), *names], capture_output=True, text=True, timeout=60)


@pytest.fixture
def runs(tmp_path):
    everything, wrong = [0, 0, 1, 1], [1, 1, 0, 0]
    write_run(
        tmp_path / "a",
        {
            "kl_0": ([wrong, wrong], "kl", 0.5),
            "kl_1": ([everything, [0, 0, 1, 0]], "kl", 0.9),  # the trial that validation prefers
        },
    )
    write_run(tmp_path / "b", {"alone": ([[0, 0, 0, 1], [0, 0, 0, 0]], None, 0.5)})
    return tmp_path


def test_the_difference_is_paired_by_seed_and_image(runs):
    done = compare(f"{runs}/a:kl", f"{runs}/b:alone")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["test_top1"] == [[1.0, 0.75], [0.75, 0.5]]
    assert document["over_seeds"]["mean"] == 0.25 and document["over_seeds"]["std"] == 0
    assert document["over_images"]["difference"] == 0.25  # the third image alone differs, in both seeds
    assert document["over_images"]["ci95"] == [0.0, 0.75]  # of draws of 4 from 4: none of it, or three times


def test_seeds_that_failed_or_are_of_one_run_only_are_left_out(runs):
    write_run(runs / "c", {"alone": ([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 1]], None, 0.5)}, failed=[0])
    document = json.loads(compare(f"{runs}/a:kl", f"{runs}/c:alone").stdout)
    assert document["seeds"] == [1] and document["test_top1"] == [[0.75], [0.75]]


def test_an_unknown_arm_and_other_images_are_refused(runs):
    done = compare(f"{runs}/a:cosine", f"{runs}/b:alone")
    assert done.returncode == 1 and "has the arms kl_0, kl_1" in done.stderr
    write_run(runs / "c", {"alone": ([[0], [0]], None, 0.5)}, TEST[:1])
    done = compare(f"{runs}/a:kl", f"{runs}/c:alone")
    assert done.returncode == 1 and "not the same test images" in done.stderr
