"""What several processes of a run decide, they decide together: each of two sees another machine, disk or command."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import compiler

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def pair(program, *flags, second=(), devices=(1, 1)):
    """Runs a program as two processes, `rank` and `address` being known to it; gives their statuses and outputs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for rank, count in enumerate(devices):
        begin = f"import sys; rank, address = {rank}, {address!r}; "
        environment = {
            **os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": compiler.flags(count),
        }  # fmt: skip
        command = [sys.executable, "-c", begin + program, *flags, *(second if rank else ())]
        started.append(
            subprocess.Popen(
                command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    said = [one.communicate(timeout=200)[0] for one in started]
    return [one.returncode for one in started], said


CONNECT = "from kdjax.runtime import host, devices; host.prepare(); host.connect(address, 2, rank); devices.meet(); "


def test_numbers_and_texts_are_compared():
    program = CONNECT + (
        "print(devices.smallest(10 - rank), devices.smallest(64e9 * (1 + rank)), "
        "devices.same('a'), devices.same(str(rank)))"
    )
    statuses, said = pair(program)
    assert statuses == [0, 0], said
    for one in said:
        least, bytes_, *same = one.split("\n")[-2].split()
        assert int(least) == 9 and np.isclose(int(bytes_), 64e9) and same == ["True", "False"]


def test_outputs_of_a_teacher_are_read_from_a_disk_that_is_shared(tmp_path):
    """They are there when the first process has written them, however long that takes: until then none looks."""
    program = CONNECT + (
        "import pathlib, time, numpy as np; from kdjax.teacher import store; "
        "from kdjax.objective.outputs import Outputs; "
        "write = store.LogitsFolder._store; store.LogitsFolder._store = lambda *all: (time.sleep(3), write(*all)); "
        "folder = store.cached_folder(pathlib.Path(sys.argv[1]), {'teacher': 'a', 'examples': 'x'}, 3, print); "
        "read = folder.read('test', 5, lambda first, end: Outputs(np.full((end - first, 3), rank, np.float32))); "
        "print(type(read.logits._arrays[0]).__name__, np.unique(read.logits))"
    )
    statuses, said = pair(program, tmp_path)
    assert statuses == [0, 0] and all(one.splitlines()[-1] == "memmap [0.]" for one in said), said


def test_unlike_numbers_of_devices_are_refused_in_one_line():
    program = "from kdjax.runtime.command import run_command; run_command(lambda argv: exec(sys.argv[1]))"
    statuses, said = pair(program, CONNECT, devices=(2, 1))
    assert statuses == [2, 2] and all("error: the processes of this run have 2, 1 devices" in one for one in said), said


def described(directory, *second, before=""):
    """The stage `describe` in two processes, the second with more flags: their statuses, and how they end."""
    statuses, said = pair(
        f"{before}from kdjax import main; from kdjax.run import folders; folders.APPEARS_SECONDS = 3.0; "
        "sys.argv += [f'--coordinator={address}', '--processes=2', f'--process={rank}']; main.run()",
        f"--config={ROOT / 'tests' / 'tiny.py'}", "--stages=describe", "--config.dataset.source=demo",
        "--config.dataset.demo_classes=3", "--config.dataset.demo_train=24", "--config.dataset.demo_validation=12",
        "--config.dataset.demo_test=12", f"--workdir={directory / 'run'}",
        f"--config.run.cache_dir={directory / 'cache'}",
        second=second,
    )  # fmt: skip
    return statuses, [one.splitlines()[-1] for one in said]


def test_caches_may_differ(tmp_path):
    statuses, said = described(tmp_path, f"--config.run.cache_dir={tmp_path / 'other'}")
    assert statuses == [0, 0], said
    assert {path.name for path in (tmp_path / "run").iterdir()} == {".lock", "config.json", "splits.json"}


@pytest.mark.parametrize("flag", ["--config.student.learning_rate=0.5", "--stages=describe,report"])
def test_another_command_is_refused(tmp_path, flag):
    statuses, said = described(tmp_path, flag)
    assert statuses == [2, 2] and all("different stages or configs" in one for one in said), said


def test_a_workdir_that_is_not_shared_is_refused(tmp_path):
    statuses, said = described(tmp_path, f"--workdir={tmp_path / 'other'}")
    assert statuses == [2, 2] and all("is not the same folder for all" in one for one in said), said


def test_a_listing_that_is_old_in_one_process_is_waited_for(tmp_path):
    """On a network disk the second may look before it sees the checkpoints; it would wait alone for the others."""
    statuses, said = described(tmp_path)
    assert statuses == [0, 0], said
    (tmp_path / "run" / "distill" / "checkpoints" / "3").mkdir(parents=True)
    before = (tmp_path / "run" / "splits.json").stat().st_mtime_ns
    old = (
        "from kdjax.run import record; begun, looks = record.has_begun, []; "
        "record.has_begun = lambda workdir: begun(workdir) and (looks.append(1) or rank == 0 or len(looks) > {looks}); "
    )
    statuses, said = described(tmp_path, before=old.format(looks=2))
    assert statuses == [0, 0], said
    assert (tmp_path / "run" / "splits.json").stat().st_mtime_ns == before
    statuses, said = described(tmp_path, before=old.format(looks=99))
    assert statuses == [2, 2] and all("is not the same folder for all" in one for one in said), said


def test_other_images_are_refused(tmp_path):
    other = "from kdjax.data.sources import demo as d; draw = d.render; d.render = lambda _, *all: draw(rank, *all); "
    statuses, said = described(tmp_path, before=other)
    assert statuses == [2, 2] and all("different images or labels" in one for one in said), said


SAVES = (
    CONNECT
    + """
import dataclasses, json, os, pathlib
sys.path.insert(0, "tests")
import jax, numpy as np
from helpers.small_run import learner
from kdjax.training.checkpoint import Checkpoints
from kdjax.training.step import empty_averages

folder, mapping = pathlib.Path(sys.argv[1]), devices.DeviceMapping()
learns = learner(folder, mapping)
begins = jax.tree.map(np.asarray, learns.scratch())
empty = mapping.place(empty_averages(learns.rows, ("ce",)), "rows")
checkpoints = Checkpoints(folder / "checkpoints", mapping)
for step in (1, 2):
    checkpoints.save(mapping.place(dataclasses.replace(begins, step=np.int32(step)), "rows"), empty)
devices.barrier("saved")
if rank == 0:
    file = max((folder / "checkpoints" / "2").rglob("*"), key=lambda path: path.is_file() and path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-9])
devices.barrier("damaged")
whole = checkpoints.latest_whole_step()
latest = checkpoints.latest_step
if latest == 1:
    checkpoints.save(mapping.place(dataclasses.replace(begins, step=np.int32(2)), "rows"), empty)
print(json.dumps([whole, latest, checkpoints.latest_step]), flush=True)
os._exit(0)
"""
)


def test_a_damaged_checkpoint_is_put_aside_for_all(tmp_path):
    """One that still knew of it would pass over the next save of that step, in which the others wait for it."""
    statuses, said = pair(SAVES, str(tmp_path))
    assert statuses == [0, 0], said
    assert [json.loads(one.splitlines()[-1]) for one in said] == [[1, 1, 2]] * 2
