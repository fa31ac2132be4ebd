"""The dtype that a run began to compute in stays its own, on whatever machine its later stages run."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from helpers.finished_run import unchanged_networks
from helpers.tiles import write_classes

from kdjax.config import base, from_file
from kdjax.errors import InputError
from kdjax.run import record
from kdjax.run.run import open_run
from kdjax.stages import follow

TINY = Path(__file__).parents[1] / "tiny.py"


def asked(dtype="auto"):
    config = base()
    config.dtype = dtype
    return config


@pytest.mark.parametrize(("backend", "dtype"), [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")])
def test_auto_is_what_the_backend_is_fast_in_and_is_written_down(tmp_path, monkeypatch, backend, dtype):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    given = asked()
    config, document = record.with_dtype(given, tmp_path, goes_on=False)
    assert config.dtype == document["dtype"] == dtype
    assert given.dtype == "auto"
    assert document == {**json.loads(given.to_json()), "dtype": dtype}


@pytest.mark.parametrize("now", ["auto", "bfloat16"])
def test_a_run_goes_on_in_the_dtype_it_began_with(tmp_path, now):
    (tmp_path / "config.json").write_text(asked("bfloat16").to_json())
    config, document = record.with_dtype(asked(now), tmp_path, goes_on=True)
    assert config.dtype == document["dtype"] == "bfloat16"
    record.check_same_config(tmp_path, document)


def test_another_dtype_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(asked("bfloat16").to_json())
    _, document = record.with_dtype(asked("float32"), tmp_path, goes_on=True)
    with pytest.raises(InputError, match="dtype is 'float32', was 'bfloat16'; set it back or choose another workdir"):
        record.check_same_config(tmp_path, document)


def test_a_run_that_kept_none_computes_as_its_backend_says_and_none_is_made_up(tmp_path, monkeypatch):
    (tmp_path / "config.json").write_text(asked("auto").to_json())
    for backend, dtype in (("cpu", "float32"), ("gpu", "bfloat16")):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        config, document = record.with_dtype(asked(), tmp_path, goes_on=True)
        assert (config.dtype, document["dtype"]) == (dtype, "auto")
        record.check_same_config(tmp_path, document)


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """A configuration on a few tiles, whose networks are made as in a run."""
    unchanged_networks(monkeypatch)
    config = from_file(TINY)
    config.dataset.path = str(write_classes(tmp_path / "tiles"))
    config.run.cache_dir = str(tmp_path / "cache")
    return config


@pytest.fixture
def trained_meanwhile(tmp_path, monkeypatch, tiny):
    """Has another process begin a run on a GPU while this one waits; gives its directory."""
    workdir, trained = tmp_path / "run", tiny.copy_and_resolve_references()

    def begins(seconds):
        with monkeypatch.context() as there:
            there.setattr(jax, "default_backend", lambda: "gpu")
            open_run(trained, workdir, tmp_path / "cache", lambda line: None)
        (workdir / "teacher" / "checkpoints" / "1").mkdir(parents=True)

    monkeypatch.setattr(follow.time, "sleep", begins)
    return workdir


def test_who_follows_a_run_before_it_begins_computes_in_its_dtype(trained_meanwhile, tiny):
    run = follow.wait_for_run(tiny, trained_meanwhile)
    assert {run.teacher.network.dtype, run.student.network.dtype} == {jnp.dtype("bfloat16")}
    assert run.config.dtype == "bfloat16" and run.student.read_only


def test_who_follows_another_config_before_it_begins_is_refused(trained_meanwhile, tiny):
    tiny.distill.temperature = 3.0
    with pytest.raises(InputError, match="temperature is 3.0, was 4.0; set it back or choose another workdir"):
        follow.wait_for_run(tiny, trained_meanwhile)


def test_networks_compute_in_the_dtype_of_the_run_and_not_of_the_machine(tmp_path, monkeypatch, tiny):
    workdir = tmp_path / "run"

    def dtypes(**options):
        run = open_run(tiny, workdir, tmp_path / "cache", lambda line: None, **options)
        return {jnp.dtype(network.dtype).name for network in (run.teacher.network, run.student.network)}, run.config

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert dtypes()[0] == {"bfloat16"}
    (workdir / ".lock").unlink()
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    assert dtypes(follows=True)[0] == {"bfloat16"}  # of one that has begun, or is about to
    (workdir / "distill" / "checkpoints" / "1").mkdir(parents=True)
    kept = (workdir / "config.json").read_text()
    found, seen = dtypes()
    assert found == {"bfloat16"} and seen.dtype == "bfloat16"
    assert (workdir / "config.json").read_text() == kept
