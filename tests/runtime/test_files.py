"""Files that are the old ones or the whole new ones."""

import errno
import fcntl
import json
import os
import subprocess
import sys

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


def test_content_is_on_the_disk_before_it_has_its_name_and_others_may_read_it(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("fsync"), fsync(file)))
    monkeypatch.setattr(os, "replace", lambda *places: (done.append("replace"), replace(*places)))
    files.write_bytes(tmp_path / "a", b"x")
    assert done == ["fsync", "replace"] and (tmp_path / "a").stat().st_mode & 0o777 == 0o644


def test_a_signal_behind_the_renaming_stays_that_signal(tmp_path, monkeypatch):
    replace = os.replace

    def interrupted(*places):
        replace(*places)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        files.write_json(tmp_path / "results.json", {})
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_lock_holds_until_it_is_closed(tmp_path):
    held = files.lock(tmp_path / ".lock")
    with pytest.raises(BlockingIOError):
        files.lock(tmp_path / ".lock")
    os.close(held)
    os.close(files.lock(tmp_path / ".lock"))


@pytest.mark.parametrize("code", ["ENOSYS", "ENOLCK", "EOPNOTSUPP"])
def test_a_disk_without_locks_is_refused_by_its_folder(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(getattr(errno, code), "none here")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(InputError, match=f"{tmp_path} is on a disk without file locks .none here.: mount it with them"):
        files.lock(tmp_path / ".lock")


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


OWN = ("teacher", "distill", "evaluation")
WRITTEN = (
    "results.json",
    "teacher/metrics.jsonl",
    "teacher/0123456789abcdef/head.npz",
    "distill/checkpoints/3.crc32.json",
    "evaluation/teacher.json",
)
KEPT = (
    *WRITTEN,
    ".lock",
    ".Trash-1000/files/x",
    ".venv-3.11/pyvenv.cfg",
    ".export-settings/x",
    "backup.20240131.tmp",
    "data/mine.tmp",
    "distill/mine.tmp",
    "distill/checkpoints/3/x.tmp",
    "export/student.onnx",
)


def test_what_a_killed_writer_left_is_swept_and_nothing_else(tmp_path):
    for name in KEPT:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("kept")
    before = sorted(tmp_path.rglob("*"))
    killed = "import os, sys; from kdjax.runtime import files; os.replace = lambda *_: os._exit(9)\n"
    for name in WRITTEN:
        code = f"{killed}files.write_text(sys.argv[1], 'half')"
        assert subprocess.run([sys.executable, "-c", code, str(tmp_path / name)]).returncode == 9
    assert len(sorted(tmp_path.rglob("*"))) == len(before) + len(WRITTEN)
    files.sweep(tmp_path, OWN)
    assert sorted(tmp_path.rglob("*")) == before
    assert all((tmp_path / name).read_text() == "kept" for name in KEPT)


def test_a_linked_folder_and_one_that_is_not_there_are_not_swept(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"metrics.jsonl.x{files.TEMPORARY}").touch()
    (tmp_path / "run" / "teacher").symlink_to(tmp_path / "elsewhere")
    files.sweep(tmp_path / "run", OWN)
    assert len(list((tmp_path / "elsewhere").iterdir())) == 1
