"""metrics.jsonl: what a resumed run keeps of it, and what it refuses."""

import json

import jax
import numpy as np
import pytest

from kdjax.errors import InputError
from kdjax.runtime.metrics_writer import MetricsWriter, read_records


def written(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def write(folder, resumed_at, *steps):
    writer = MetricsWriter(folder, resumed_at, tensorboard=False)
    for step in steps:
        writer.write(step, "train", {"größe/0": {"loss": np.float32(step / 2), "kl": float("nan")}}, epoch=step / 4)
    writer.close()


def test_a_record_is_one_line_of_json(tmp_path):
    write(tmp_path / "distill", 0, 1, 2)
    rows = {"größe/0": {"loss": 0.5, "kl": None}}
    assert written(tmp_path / "distill")[0] == {"step": 1, "kind": "train", "epoch": 0.25, "students": rows}
    assert read_records(tmp_path / "distill" / "metrics.jsonl", "x") == written(tmp_path / "distill")


def test_of_several_processes_the_first_writes(tmp_path, monkeypatch):
    """Each would append the same line, and cut away what another is writing."""
    write(tmp_path, 0, 1)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    write(tmp_path, 0, 1, 2)
    assert [one["step"] for one in written(tmp_path)] == [1]


def test_records_after_the_checkpoint_and_unfinished_ones_are_cut_away(tmp_path):
    write(tmp_path, 0, 1, 2, 3)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "ki')
    write(tmp_path, 2, 3, 4)
    assert [one["step"] for one in written(tmp_path)] == [1, 2, 3, 4]
    write(tmp_path, 4)
    assert [one["step"] for one in written(tmp_path)] == [1, 2, 3, 4]
    write(tmp_path, -1, 9)
    assert [one["step"] for one in written(tmp_path)] == [9]


@pytest.mark.parametrize("line", ["garbage", "[]", "{}", '{"step": "2"}', "\x00"])
def test_garbage_is_refused_in_one_line_unless_nothing_is_kept(tmp_path, line):
    write(tmp_path, 0, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match="metrics.jsonl, line 2.*delete the file") as caught:
        write(tmp_path, 1)
    assert "\n" not in str(caught.value)
    write(tmp_path, -1, 5)
    assert [one["step"] for one in written(tmp_path)] == [5]
