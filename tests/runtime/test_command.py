"""Commands end in one line whatever happens to them, with the status that docs/reliability.md gives it."""

import errno
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from kdjax.errors import InputError, Preempted
from kdjax.runtime import command

ROOT = Path(__file__).parents[2]
START = 'if __name__ == "__main__":'
COMMANDS = [path for path in sorted(ROOT.glob("kdjax/**/*.py")) if START in path.read_text(encoding="utf-8")]


def from_the_disk(code):
    error = InputError("the checkpoint could not be written: make room")
    error.__cause__ = OSError(code, os.strerror(code))
    return error


ENDINGS = [
    (InputError("student.width is 0: must be above 0"), 2, "error: student.width is 0: must be above 0"),
    (InputError("no\nfile\x1b[31m\u2028.tif"), 2, "error: no\\nfile\\x1b[31m\\u2028.tif"),
    (from_the_disk(errno.ENOENT), 2, "error: the checkpoint could not be written: make room"),
    (from_the_disk(errno.ENOSPC), 1, "error: the checkpoint could not be written: make room"),
    (
        OSError(28, "No space left on device", "out.tif"),
        1,
        "error: [Errno 28] No space left on device: 'out.tif': the",
    ),
    (MemoryError(), 1, "error: out of memory (MemoryError): use less"),
    (MemoryError("Unable to allocate 9 GiB\nfor an array"), 1, "error: out of memory (Unable to allocate 9 GiB for an"),
    (jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: of 7 bytes"), 1, "error: out of memory (RESOURCE_EXHAUSTED: of"),
    (jax.errors.JaxRuntimeError("INTERNAL: Out of memory allocating 7 bytes."), 1, "error: out of memory (INTERNAL: "),
]


def ended(monkeypatch, capsys, raised, **options):
    """The exit status of a command that raises, and the one line that it prints."""

    def main(argv):
        assert argv == ["--flag"]
        raise raised

    monkeypatch.setattr(sys, "argv", ["command", "--flag"])
    with pytest.raises(SystemExit) as stop:
        command.run_command(main, less_memory="use less", **options)
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert not printed.out
    return stop.value.code, line


@pytest.mark.parametrize("resumable", [False, True])
@pytest.mark.parametrize(("raised", "status", "said"), ENDINGS)
def test_one_line_and_the_right_status(monkeypatch, capsys, raised, status, said, resumable):
    monkeypatch.setattr("kdjax.runtime.preemption.install", lambda: None)
    monkeypatch.setattr("kdjax.runtime.preemption.ignore_sigterm", lambda: None)
    code, line = ended(monkeypatch, capsys, raised, resumable=resumable)
    assert code == status and line.startswith(said)


@pytest.mark.parametrize(
    ("raised", "status", "said"), [(KeyboardInterrupt(), 130, "interrupted"), (Preempted("ended"), 75, "ended")]
)
def test_who_ends_a_resumable_command_is_told_to_repeat_it(monkeypatch, capsys, raised, status, said):
    monkeypatch.setattr("kdjax.runtime.preemption.install", lambda: None)
    monkeypatch.setattr("kdjax.runtime.preemption.ignore_sigterm", lambda: None)
    assert ended(monkeypatch, capsys, raised) == (status, said)
    assert ended(monkeypatch, capsys, raised, resumable=True) == (status, f"{said}; repeat the command to continue")


@pytest.mark.parametrize("raised", [ZeroDivisionError(), jax.errors.JaxRuntimeError("INVALID_ARGUMENT: x")])
def test_mistakes_in_the_code_keep_their_traceback(monkeypatch, capsys, raised):
    with pytest.raises(type(raised)):
        ended(monkeypatch, capsys, raised)


def test_the_documented_statuses_are_those_of_the_commands():
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    table = text.split("| exit status |")[1].split("\n\n")[0]
    documented = {int(status) for status in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert documented == {0, 75, 130, *(status for _, status, _ in ENDINGS)}


def test_who_may_be_stopped_and_started_again(monkeypatch):
    found = {}
    monkeypatch.setattr("sys.unraisablehook", None)  # `main` sets both
    monkeypatch.setattr("threading.excepthook", None)
    for path in COMMANDS:
        monkeypatch.setattr(command, "run_command", lambda main, path=path, **options: found.update({path: options}))
        runpy.run_path(str(path), run_name="__main__")
    assert sorted(found) == COMMANDS
    resumable = {str(path.relative_to(ROOT / "kdjax")) for path, options in found.items() if options.get("resumable")}
    assert resumable == {"main.py", "deploy/export/__main__.py", "deploy/landuse_map/__main__.py"}


HEAD = "import os, signal, sys, time; from kdjax.runtime.command import run_command; "


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [("", -15, b""), ("resumable=True", 75, b"ended by SIGTERM; repeat the command to continue\n")],
)
def test_sigterm_asks_for_another_start_of_a_resumable_command_alone(options, status, said):
    code = f"{HEAD}run_command(lambda _: (os.kill(os.getpid(), signal.SIGTERM), time.sleep(9)), {options})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (status, said)


@pytest.mark.parametrize("length", [1, 100_000])  # below the size of a buffer, and above
@pytest.mark.parametrize(
    ("options", "status", "said"),
    [("", 0, b""), ("resumable=True", 1, b"error: [Errno 32] Broken pipe: the system refused it; ")],
)
def test_a_reader_that_has_seen_enough_is_an_error_only_where_work_is_left(monkeypatch, length, options, status, said):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    code = f"{HEAD}time.sleep(1); run_command(lambda _: print('x' * {length}), {options})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        printed = process.stderr.read()
        assert process.wait(timeout=60) == status and printed[: len(said)] == said
        assert printed.count(b"\n") == bool(said)


def test_output_on_a_full_disk_ends_in_one_line():
    code = f"{HEAD}run_command(lambda _: print('x'))"
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr.startswith("error: [Errno 28] No space left on device: the system")
    assert done.stderr.count("\n") == 1
