"""The pass over the teacher's views as part of a run: what it counts, and where it may end."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from kdjax.teacher.teachers import Teacher

from kdjax.data import Split
from kdjax.errors import Preempted
from kdjax.runtime import preemption
from kdjax.teacher.targets import view_logits


@pytest.fixture
def run(tmp_path, colors):
    images, labels = colors
    train = Split(images, labels, tuple(map(str, range(len(labels)))))
    return SimpleNamespace(
        config=SimpleNamespace(data_seed=0, distill=SimpleNamespace(logits=())),
        dataset=SimpleNamespace(train=train, fingerprint="0", classes=("a", "b", "c")),
        results_dir=tmp_path / "run",
        cache_dir=tmp_path / "cache",
        log=lambda line: None,
    )


@pytest.fixture
def teacher():
    """Its logits tell of which example and view they are."""
    views = lambda images, examples, view: np.stack([examples, 0 * examples, 0 * examples + view], 1)
    return Teacher({"teacher": "numbers"}, views, clean=None)


def test_a_pass_ends_between_shards_when_asked_to(run, teacher, monkeypatch):
    run.results_dir.mkdir()
    answers = iter([False, True])
    monkeypatch.setattr(preemption, "requested", lambda: next(answers))
    with pytest.raises(Preempted, match="shards computed so far"):
        view_logits(run, teacher, views=2)
    monkeypatch.setattr(preemption, "requested", lambda: False)
    logits = view_logits(run, teacher, views=2)
    count = len(run.dataset.train)
    np.testing.assert_array_equal(logits[:, :, 0], [range(count)] * 2)
    np.testing.assert_array_equal(logits[:, :, 2], [[0] * count, [1] * count])
    record = json.loads((run.results_dir / "teacher_logits.json").read_text())["views"]
    assert record["forward_images"] == record["started_images"] == 2 * count  # nothing was computed twice


def test_the_count_is_of_the_views_that_are_asked_for(run, teacher):
    run.results_dir.mkdir()
    count = len(run.dataset.train)
    record = lambda: json.loads((run.results_dir / "teacher_logits.json").read_text())["views"]
    view_logits(run, teacher, views=2)
    assert record()["forward_images"] == 2 * count
    view_logits(run, teacher, views=2)  # again, from disk: the count stays what this run asked for
    assert record()["forward_images"] == record()["started_images"] == 2 * count
    view_logits(run, teacher, views=3)  # another configuration, of which two views are there already
    assert record()["forward_images"] == record()["started_images"] == count
    assert record()["images"] == {f"view-{view:04d}": count for view in range(3)}
