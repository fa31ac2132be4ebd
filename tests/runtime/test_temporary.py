"""Folders that are built under a temporary name."""

import pathlib
import subprocess
import sys

import pytest

from kdjax.runtime import temporary

CODE = """
import pathlib, sys, time
from kdjax.runtime import temporary
with temporary.folder(pathlib.Path(sys.argv[1]), "map"):
    print("there", flush=True)
    time.sleep(60)
"""


def test_it_is_gone_at_the_end_or_has_its_new_name(tmp_path):
    with pytest.raises(KeyboardInterrupt), temporary.folder(tmp_path, "map") as place:
        (place / "file").touch()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    with temporary.folder(tmp_path, "map") as place:
        place.rename(tmp_path / "map")
    assert [path.name for path in tmp_path.iterdir()] == ["map"]


def test_the_dead_are_swept_and_the_living_keep_theirs(tmp_path):
    started = [
        subprocess.Popen([sys.executable, "-c", CODE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    try:
        for process in started:
            assert process.stdout.readline() == "there\n"
        assert len(list(tmp_path.iterdir())) == 6
        started[0].kill()
        started[0].wait()
        temporary.sweep(tmp_path, ".other-")
        assert len(list(tmp_path.iterdir())) == 6
        with temporary.folder(tmp_path, "map"):
            assert len(list(tmp_path.iterdir())) == 6
        assert len(list(tmp_path.iterdir())) == 4
    finally:
        for process in started:
            process.kill()
            process.wait()
            process.stdout.close()
    temporary.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []
    temporary.sweep(tmp_path / "nowhere")


def test_locks_and_folders_of_others_are_not_swept(tmp_path):
    for name in (".venv-3.11", ".map-abc"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.lock").touch()
    temporary.sweep(tmp_path)
    with temporary.folder(tmp_path, "map"):
        pass
    assert len(list(tmp_path.iterdir())) == 4


def test_a_place_that_takes_no_folder_is_an_error(tmp_path):
    for place in (tmp_path / "nowhere", "/proc"):
        with pytest.raises(OSError), temporary.folder(pathlib.Path(place), "map"):
            pass


ALONE = """
import pathlib, sys
from kdjax.runtime import temporary
for _ in range(300):
    try:
        with temporary.exclusive(pathlib.Path(sys.argv[1]), "map"):
            pathlib.Path(sys.argv[1], "inside").touch(exist_ok=False)
            pathlib.Path(sys.argv[1], "inside").unlink()
    except BlockingIOError:
        pass
"""


def test_one_process_is_alone_however_the_locks_come_and_go(tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", ALONE, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in started] == [0, 0, 0]
    assert list(tmp_path.iterdir()) == []
    with temporary.exclusive(tmp_path, "map"), temporary.exclusive(tmp_path, "other"):
        with pytest.raises(BlockingIOError), temporary.exclusive(tmp_path, "map"):
            pass
        assert len(list(tmp_path.iterdir())) == 2
