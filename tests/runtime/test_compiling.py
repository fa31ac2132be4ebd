"""The first call of a program is announced with the time of the last one."""

import jax
import pytest

from kdjax.runtime import compiling


@pytest.fixture
def folder(tmp_path):
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "programs"))
    yield tmp_path / "programs"
    jax.config.update("jax_compilation_cache_dir", before)


def start(monkeypatch, seconds):
    """Two calls in a new process whose first takes some seconds; returns the lines."""
    clock, lines = [100.0], []
    monkeypatch.setattr(compiling.time, "monotonic", lambda: clock[0])

    def program(x):
        clock[0] += seconds
        return 2 * x

    told = compiling.announce_first_call(program, "distill: the step", lines.append)
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
