"""Files that are the old ones or the whole new ones."""

import json
import os

import pytest

from kdjax.errors import InputError
from kdjax.runtime import files


def test_file_is_replaced_whole_and_reads_back(tmp_path):
    out = {"pattern": "a [1,  2] {b}", "list": ["[", " x ", "y ["], "more": ["a", "b ]", "  c"], "rows": [[1, 1, 0]]}
    path = tmp_path / "results.json"
    path.write_text("old")
    files.write_json(path, out)
    assert json.loads(path.read_text(encoding="utf-8")) == out
    assert "[1, 1, 0]" in path.read_text(encoding="utf-8")  # a row of the confusion matrix on one line
    with pytest.raises(ValueError):
        files.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text(encoding="utf-8")) == out
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_failing_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    path.write_text("old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_json(path, {})
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["results.json"]


def test_a_lock_holds_until_it_is_closed(tmp_path):
    held = files.lock(tmp_path / ".lock")
    with pytest.raises(BlockingIOError):
        files.lock(tmp_path / ".lock")
    os.close(held)
    os.close(files.lock(tmp_path / ".lock"))


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"nope"])
def test_garbage_in_a_json_file_is_one_line_that_names_file_and_fix(tmp_path, content):
    path = tmp_path / "own.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match="own.json.*: write it again") as caught:
        files.read_json(path, "write it again")
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="missing.json.*: write it again"):
        files.read_json(tmp_path / "missing.json", "write it again")


def test_json_lines_name_the_line_and_leave_out_an_unfinished_one(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a"')
    assert files.read_json_lines(path, "delete it") == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n\x00\x00\n{"a": 2}\n')
    with pytest.raises(InputError, match="metrics.jsonl, line 2, .*: delete it"):
        files.read_json_lines(path, "delete it")


def test_what_an_interrupted_writer_left_is_swept_and_nothing_else(tmp_path):
    for name in ("results.json.x1.tmp", "teacher/metrics.jsonl.y2.tmp", ".export-abc/new/student.onnx"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left")
    kept = ("results.json", "teacher/metrics.jsonl", ".lock", "export/student.onnx", "distill/checkpoints/3/x.tmp")
    for name in kept:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("kept")
    files.sweep(tmp_path)
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert found == sorted(kept)
