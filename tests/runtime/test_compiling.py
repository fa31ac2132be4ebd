"""The first call of a program is announced with the time of the last one."""

import subprocess
import sys
import threading

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from kdjax.runtime import compiling


@pytest.fixture
def folder(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    reset_cache()  # JAX opens the folder once
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)
    reset_cache()


def start(monkeypatch, seconds):
    """Two calls in a new process whose first takes some seconds; returns the lines."""
    clock, lines = [100.0], []
    monkeypatch.setattr(compiling.time, "monotonic", lambda: clock[0])

    def program(x):
        clock[0] += seconds
        return 2 * x

    told = compiling.told(program, "distill: the step", lines.append)
    assert [told(3), told(4)] == [6, 8]
    return lines


def test_each_start_tells_the_time_of_the_one_before(folder, monkeypatch):
    assert start(monkeypatch, 38) == ["distill: the step: compiling; the first time may take minutes"]
    assert start(monkeypatch, 3) == ["distill: the step: compiling; last time this took 38 s"]
    assert start(monkeypatch, 3) == ["distill: the step: compiling; last time this took 3 s"]


@pytest.mark.parametrize("content", ["", "[1]", '{"distill: the step": null}', '{"distill: the step": [1]}'])
def test_a_damaged_record_is_nothing(folder, monkeypatch, content):
    folder.mkdir()
    (folder / compiling.SECONDS).write_text(content)
    assert "first time" in start(monkeypatch, 2)[0]
    assert "took 2 s" in start(monkeypatch, 2)[0]


def test_without_a_cache_nothing_is_kept(folder, monkeypatch):
    jax.config.update("jax_compilation_cache_dir", None)
    assert "first time" in start(monkeypatch, 2)[0] and "first time" in start(monkeypatch, 2)[0]


def test_a_record_that_cannot_be_written_ends_nothing(folder, monkeypatch):
    folder.parent.joinpath("programs").write_text("a file")
    assert "first time" in start(monkeypatch, 2)[0]


def test_what_was_compiled_ahead_is_found(folder):
    """By a call that looks for it in the cache, once there is nothing more to wait for."""
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    begin, entries = threading.Event(), lambda: sorted(folder.glob("jit_ahead*-cache"))

    def ahead(x):
        return x * 3 + 1

    def lowered():
        begin.wait()
        return jax.jit(ahead).lower(jax.ShapeDtypeStruct((3,), np.float32))

    compiling.ahead(lowered)
    assert compiling.busy() and not entries()
    begin.set()
    lines = []
    assert compiling.told(jax.jit(ahead), "ahead", lines.append)(np.ones(3, np.float32)).tolist() == [4.0] * 3
    assert len(entries()) == 1 and not compiling.busy()


@pytest.mark.filterwarnings("error")
def test_what_fails_ahead_is_met_by_who_needs_it(folder, capfd):
    compiling.ahead(lambda: 1 / 0)
    compiling.ahead(lambda: None)
    compiling.wait()
    assert capfd.readouterr() == ("", "")


def test_nothing_is_compiled_ahead_where_it_could_not_be_kept(folder):
    jax.config.update("jax_compilation_cache_dir", None)
    asked = []
    compiling.ahead(lambda: asked.append(1))
    compiling.wait()
    assert not asked


def test_a_run_that_ends_does_not_wait_for_a_compiler(tmp_path):
    """Nor for what a thread does in place of one here: XLA's cannot be interrupted either."""
    code = """
import sys, time, jax
from kdjax import main
from kdjax.errors import Preempted
from kdjax.runtime import compiling
jax.config.update("jax_compilation_cache_dir", sys.argv[1])
def begun(argv):
    compiling.ahead(lambda: time.sleep(600))
    raise Preempted("ended by SIGTERM")
main.main = begun
main.run()
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (75, "")
    assert done.stderr == "ended by SIGTERM; the same command goes on from there\n"
