"""What validation ranks steps by follows from how many images the classes have."""

from pathlib import Path

import pytest
from helpers.finished_run import unchanged_networks
from helpers.tiles import write_classes

from kdjax.config import from_file
from kdjax.run.run import open_run

TINY = Path(__file__).parents[1] / "tiny.py"


@pytest.mark.parametrize(("fewer", "measure"), [(0, "top1"), (15, "macro_recall")])
def test_unequal_classes_are_selected_by_macro_recall(tmp_path, monkeypatch, fewer, measure):
    unchanged_networks(monkeypatch)
    root = write_classes(tmp_path / "tiles")
    for number in range(fewer):
        (root / "town" / f"town{number:02d}.png").unlink()
    config = from_file(TINY)
    config.dataset.path = str(root)
    run = open_run(config, tmp_path / "run", tmp_path / "cache", lambda line: None)
    assert run.selected_by == measure
    counts = run.dataset.class_counts
    assert [sum(side[k] for side in counts.values()) for k in range(3)] == [20, 20, 20 - fewer]
