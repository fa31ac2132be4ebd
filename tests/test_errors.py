"""Commands end in one line whatever happens to them."""

import subprocess
import sys

import pytest

from kdjax import errors


@pytest.mark.parametrize(
    "raised, status, said",
    [
        (errors.InputError("student.width is 0: must be above 0"), 2, "error: student.width is 0: must be above 0"),
        (OSError(28, "No space left on device", "out.tif"), 2, "error: [Errno 28] No space left on device: 'out.tif'"),
        (MemoryError(), 2, "error: not enough memory (MemoryError)"),
        (
            MemoryError("Unable to allocate 9 GiB\nfor an array"),
            2,
            "error: not enough memory (Unable to allocate 9 GiB for",
        ),
        (errors.InputError("no\nfile\x1b[31m\u2028.tif"), 2, "error: no\\nfile\\x1b[31m\\u2028.tif"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_one_line_and_the_right_status(monkeypatch, capsys, raised, status, said):
    def main(argv):
        assert argv == ["--flag"]
        raise raised

    monkeypatch.setattr(sys, "argv", ["command", "--flag"])
    with pytest.raises(SystemExit) as stop:
        errors.in_one_line(main)
    printed = capsys.readouterr()
    assert stop.value.code == status and not printed.out
    (line,) = printed.err.splitlines()
    assert line.startswith(said)


@pytest.mark.parametrize("length", [1, 100_000])  # below the size of a buffer, and above
def test_a_reader_that_has_seen_enough_is_no_error(monkeypatch, length):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    code = f"import time; from kdjax import errors; time.sleep(1); errors.in_one_line(lambda _: print('x' * {length}))"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.stderr.read(), process.wait(timeout=60)) == (b"", 0)


def test_mistakes_in_the_code_keep_their_traceback(monkeypatch):
    def main(argv):
        raise ZeroDivisionError

    monkeypatch.setattr(sys, "argv", ["command"])
    with pytest.raises(ZeroDivisionError):
        errors.in_one_line(main)


def test_a_reason_is_one_short_line():
    assert errors.reason(ValueError("two\n  lines")) == "two lines"
    assert errors.reason(ValueError()) == "ValueError" and len(errors.reason(ValueError("x" * 999), 50)) == 50
