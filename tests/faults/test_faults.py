"""Runs that are killed, followed, locked or preempted, as real processes."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from helpers import compiler

from kdjax.runtime import host, watch

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("cache")]
FLAGS = compiler.flags(devices=2)


def command(directory, *flags):
    return [
        sys.executable, "-m", "kdjax.main", f"--config={ROOT / 'tests' / 'tiny.py'}", "--config.dataset.source=demo",
        "--config.dataset.demo_classes=3", "--config.dataset.demo_train=48", "--config.dataset.demo_validation=12",
        "--config.dataset.demo_test=12",
        f"--workdir={directory / 'run'}", f"--config.run.cache_dir={directory / 'cache'}", *flags,
    ]  # fmt: skip


def start(directory, *flags):
    return subprocess.Popen(
        command(directory, *flags), cwd=ROOT, env={**os.environ, "XLA_FLAGS": FLAGS}, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def until(process, said):
    """Reads lines until one holds `said`; returns all of them. A process that does not say it in time is killed."""
    lines, timer = [], threading.Timer(400, process.kill)
    timer.start()
    try:
        for line in process.stdout:
            lines.append(line)
            if said in line:
                return lines
    finally:
        timer.cancel()
    raise AssertionError(f"{said!r} was never said:\n{''.join(lines)[-3000:]}")


def test_followed_locked_and_preempted(tmp_path):
    """One training, watched by another process, asked to end by SIGTERM, and started again."""
    trains = start(tmp_path, "--config.student.epochs=6", "--stages=teacher,distill")
    until(trains, "distill: step 3/18")
    trains.send_signal(signal.SIGSTOP)  # or it would have ended by the time that the second has started
    try:
        follows = start(tmp_path, "--config.student.epochs=6", "--stages=evaluate", "--follow")
        second = start(tmp_path, "--config.student.epochs=6")
        out, _ = second.communicate(timeout=300)
        assert second.returncode == 2 and "is in use: another run writes to it" in out.splitlines()[-1]
    finally:
        for number in (signal.SIGTERM, signal.SIGCONT):
            trains.send_signal(number)
    out, _ = trains.communicate(timeout=300)
    assert trains.returncode == os.EX_TEMPFAIL and "is saved; repeat the command to continue" in out.splitlines()[-1]
    again = start(tmp_path, "--config.student.epochs=6", "--stages=teacher,distill")
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0, out
    out, _ = follows.communicate(timeout=300)
    assert follows.returncode == 0 and "step 18/18  validation top-1" in out, out
    results = json.loads((tmp_path / "run" / "evaluation" / "results.json").read_text())
    assert len(results["arms"]["kl"]["test_top1"]) == 2
    assert not (tmp_path / "run" / "results.json").exists()  # the reader wrote its own folder only
    lines = (tmp_path / "run" / "evaluation" / "follow" / "metrics.jsonl").read_text().splitlines()
    told = {json.loads(line)["step"]: json.loads(line)["students"] for line in lines}
    assert 18 in told
    # What the reader measured is what the training measured at the same steps.
    lines = (tmp_path / "run" / "distill" / "metrics.jsonl").read_text().splitlines()
    for record in map(json.loads, lines):
        if record["kind"] == "validation" and record["step"] in told:
            for student, measured in record["students"].items():
                assert told[record["step"]][student]["top1"] == pytest.approx(measured["top1"])


def test_a_full_disk_ends_in_one_line(tmp_path):
    """No file may grow beyond 64 KB. Many writes of the checkpoint fail, some of them after the first has ended it."""
    limited = ["bash", "-c", 'ulimit -f 64; exec "$@"', "bash", *command(tmp_path, "--stages=teacher")]
    done = subprocess.run(
        limited, cwd=ROOT, env={**os.environ, "XLA_FLAGS": FLAGS}, text=True, capture_output=True, timeout=300
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and "checkpoints/3 could not be written: File too large" in line


def start_pair(directory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = ("--stages=teacher", "--config.teacher.epochs=40", f"--coordinator={address}", "--processes=2")
    return [start(directory, *flags, f"--process={rank}") for rank in range(2)]


def test_two_processes_save_and_end_at_one_step(tmp_path):
    """The second gets SIGTERM; both end, at a step that both have saved, between chunks of several steps."""
    pair = start_pair(tmp_path)
    lines = until(pair[0], "teacher: step 9/")
    pair[1].send_signal(signal.SIGTERM)
    said = [process.communicate(timeout=300)[0] for process in pair]
    # Devices that are first connected by a training step fail where a process compiles it 30 s longer than another.
    opens = next(number for number, line in enumerate(lines) if "data: demo" in line)
    assert "[Gloo]" in "".join(lines[:opens])
    assert "[Gloo]" not in "".join(lines[opens:]) + said[0]
    assert [process.returncode for process in pair] == [os.EX_TEMPFAIL] * 2, said
    steps = [re.search(r"teacher: ended by SIGTERM; step (\d+) is saved", text)[1] for text in said]
    assert steps[0] == steps[1]
    assert (tmp_path / "run" / "teacher" / "checkpoints" / steps[0]).is_dir()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGSTOP])
def test_a_process_that_is_gone_ends_the_run_of_the_others_within_a_minute(tmp_path, sent):
    """Killed, its connections break. Stopped, as a host that hangs or lost its network, it is silent."""
    pair = start_pair(tmp_path)
    until(pair[0], "teacher: step 3/")
    pair[1].send_signal(sent)
    began = time.monotonic()
    try:
        out, _ = pair[0].communicate(timeout=90)
    finally:
        pair[1].kill()
        pair[1].communicate()
    assert time.monotonic() - began < 60
    assert pair[0].returncode == os.EX_TEMPFAIL, out[-3000:]
    assert "another process of this run" in out.splitlines()[-1]


def watched(then):
    """Two processes that watch each other with dense beats, and then do this."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = (
        "import ctypes, sys, time; from kdjax.runtime import host, watch; from kdjax.runtime.deadline import Deadline; "
        "watch.BEAT_SECONDS = 2e-4; host.prepare(); "
        f"host.connect('127.0.0.1:{port}', 2, int(sys.argv[1])); watch.start(print, Deadline(3, 75, 'stuck')); {then}"
    )
    pair = [
        subprocess.Popen([sys.executable, "-c", program, str(rank)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in pair]
    return [process.returncode for process in pair], said


def test_the_watch_comes_before_the_service_of_jax():
    """The lock of Python may be lost just before the watch would have told."""
    latest = watch.SILENT_SECONDS + watch.BEAT_SECONDS + watch.STUCK_SECONDS
    assert latest < 60 < host.HEARTBEAT_SECONDS


@pytest.mark.parametrize("attempt", range(3))
def test_a_beat_under_way_at_the_end_aborts_no_process(attempt):
    """With beats this dense nearly every end meets one; without waiting for it the process died of SIGABRT."""
    statuses, said = watched("sys.exit(75)")
    assert statuses == [75, 75] and not any("stuck" in one for one in said)


def test_a_process_that_waits_with_the_lock_of_python_ends():
    """No thread of Python runs then, and the watch is one. JAX's service would end it with a stack trace of C++."""
    statuses, said = watched("ctypes.PyDLL(None).sleep(100) if sys.argv[1] == '0' else time.sleep(20)")
    # The other one loses the service, and may be aborted by JAX before it is told.
    assert statuses[0] == 75 and said[0].endswith("stuck\n")
