"""The folders of a run are tried before its images are decoded."""

import fcntl
import os

import pytest

from kdjax.config import base
from kdjax.errors import InputError
from kdjax.run import folders
from kdjax.run import run as runs


def test_a_disk_without_locks_is_refused_before_images_are_decoded(tmp_path, monkeypatch):
    def flock(*_):
        raise OSError(38, os.strerror(38))

    monkeypatch.setattr(fcntl, "flock", flock)
    monkeypatch.setattr(runs.datasets, "load", lambda *_, **__: pytest.fail("the images were read"))
    with pytest.raises(InputError, match=f"{tmp_path} is on a disk without file locks"):
        runs.open_run(base(), tmp_path / "run", tmp_path / "cache", print)
    assert os.listdir(tmp_path) == ["cache"]


@pytest.mark.parametrize("name", ["run", "runs/mine"])
def test_trying_a_workdir_leaves_nothing(tmp_path, name):
    folders.try_out(tmp_path / name)
    assert not os.listdir(tmp_path)
    (tmp_path / name).mkdir(parents=True)
    folders.try_out(tmp_path / name)
    assert not os.listdir(tmp_path / name)


def test_a_workdir_below_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=f"workdir {tmp_path}/file/run cannot be written .Not a directory.: choose"):
        folders.try_out(tmp_path / "file" / "run")
