"""What `host.prepare` sets, in a process of its own."""

import os
import platform
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kdjax.runtime import host

ROOT = Path(__file__).resolve().parents[2]


def run(code, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()


def test_the_flags_of_the_user_stay():
    code = "import os; from kdjax.runtime import host; host.prepare(); host.prepare(); print(os.environ['XLA_FLAGS'])"
    assert run(code, XLA_FLAGS="--a=1") == ["--a=1", "--xla_cpu_enable_fast_math=true"]
    assert run(code, XLA_FLAGS="--xla_cpu_enable_fast_math=false") == ["--xla_cpu_enable_fast_math=false"]


def calls(prepare):
    """The pages of a program's working memory, and the page faults in each of 24 calls after two to warm up."""
    code = f"""
import resource
from kdjax.runtime import host
{prepare}
import jax, jax.numpy as jnp
def f(x):
    y = jnp.tanh(x @ x.T)
    return jnp.tanh(y @ x) @ x.T @ (y @ x)
x = jnp.ones((3000, 8)) / 3000
program = jax.jit(f).lower(x).compile()
print(program.memory_analysis().temp_size_in_bytes // resource.getpagesize())
for call in range(26):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    program(x).block_until_ready()
    if call > 1:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    pages, *faults = map(int, run(code, XLA_FLAGS=""))
    assert pages > 8000
    return pages, faults


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is asked to keep memory")
def test_working_memory_stays_with_the_process():
    """Unset, a call fetches all of it again. Set, the heap grows at first; then a call fetches next to nothing."""
    pages, faults = calls("")
    assert np.median(faults) > 0.9 * pages
    pages, faults = calls("host.prepare()")
    assert np.median(faults) < 0.01 * pages
    assert np.sum(np.array(faults) > 0.1 * pages) <= 8


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is asked to keep memory")
def test_more_than_two_gigabytes_are_kept_as_well():
    """The working memory of a student's step at 128 px and batch 64. None of it is touched here."""
    code = """
import ctypes
from kdjax.runtime import host
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes, libc.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_ssize_t]
first = libc.sbrk(0)
host.prepare()
block = libc.malloc(3 << 30)
top = libc.sbrk(0)
libc.free(block)
print(top - first >= 3 << 30, libc.sbrk(0) == top)
"""
    assert run(code, XLA_FLAGS="") == ["True", "True"]


HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is asked for huge pages")
@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[never]" in HUGE_PAGES.read_text(encoding="ascii"), reason="this Linux has none"
)
@pytest.mark.parametrize("limit", [None, "DATA", "AS"])
def test_memory_lies_in_huge_pages_and_is_taken_only_when_it_is_used(limit):
    """Where a limit counts addresses, none are reserved, and 256 MB still come from the heap."""
    code = f"""
import ctypes, resource
from pathlib import Path
from kdjax.runtime import host
if {limit!r}:
    resource.setrlimit(resource.RLIMIT_{limit or "DATA"}, (2 << 30, 2 << 30))
def kilobytes(file, name):
    return int(Path("/proc/self", file).read_text().split(name + ":")[1].split()[0])
def status(name):
    return kilobytes("status", name) >> 10
held, addresses = status("RssAnon"), status("VmSize")
host.prepare()
print(status("RssAnon") - held, status("VmSize") - addresses)
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
ctypes.memset(libc.malloc(256 << 20), 1, 256 << 20)
print(kilobytes("smaps_rollup", "AnonHugePages") >> 10)
"""
    held, reserved, huge = map(int, run(code))
    assert held < 16
    if limit is None:
        assert reserved > 256 and huge >= 200
    else:
        assert reserved < 16


def test_nans_and_infinities_keep_their_meaning():
    code = """
from kdjax.runtime import host
host.prepare()
import jax, jax.numpy as jnp
x = jnp.array([jnp.nan, jnp.inf, -jnp.inf, 1e4])
print(*jax.jit(lambda x: jnp.isfinite(x) * 1)(x), *jax.jit(lambda x: jnp.isnan(jnp.maximum(x, 0)) * 1)(x))
"""
    assert run(code, XLA_FLAGS="") == ["0", "0", "0", "1", "1", "0", "0", "0"]


@pytest.mark.parametrize(("nodes", "places", "gpus"), [("2", "00", ["all", "all"]), ("1", "01", ["0", "1"])])
def test_a_process_alone_on_its_slurm_node_takes_all_gpus(nodes, places, gpus):
    """Two processes find each other by the environment of a Slurm step, on two nodes or on one."""
    code = """
from kdjax.runtime import host
host.connect(None, None, None)
import jax
print(jax.process_count(), jax.process_index(), jax.config.read("jax_cuda_visible_devices"))
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    step = {
        "SLURM_JOB_ID": "1", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_NUM_NODES": nodes, "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2", "JAX_COORDINATOR_PORT": port,
    }  # fmt: skip
    with ThreadPoolExecutor() as both:
        said = [
            both.submit(run, code, **step, SLURM_PROCID=rank, SLURM_LOCALID=place)
            for rank, place in zip("01", places, strict=True)
        ]
    assert [one.result()[-3:] for one in said] == [["2", rank, gpu] for rank, gpu in zip("01", gpus, strict=True)]


def test_sigterm_ends_a_run_that_turns_out_to_have_one_process():
    """JAX's service takes the signal as it starts, and tells runs of several processes only."""
    code = """
import os, signal, sys, time
from kdjax.errors import Preempted
from kdjax.runtime import host, preemption
preemption.install()
host.connect(sys.argv[1], 1, 0)
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
except Preempted:
    print("ended")
"""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-c", code, address], cwd=ROOT, check=True, capture_output=True, text=True, timeout=100
    )
    assert done.stdout.split()[-1] == "ended"


@pytest.mark.parametrize(
    "address", ["junk", "node1", "node1:", ":8476", "node1:0", "node1:65536", "a b:1", "::1:80", "node1:8 "]
)
def test_an_address_that_is_none_is_refused_without_jax(address):
    code = """
import sys
from kdjax.errors import InputError
from kdjax.runtime import host
try:
    host.connect(sys.argv[1], 2, 1)
except InputError as error:
    print("jax" in sys.modules, "HOST:PORT" in str(error), repr(sys.argv[1]) in str(error))
"""
    done = subprocess.run([sys.executable, "-c", code, address], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True"]


@pytest.mark.parametrize("address", ["node1:8476", "10.0.0.1:1", "a-b.example_c.org:65535", "[::1]:80"])
def test_addresses_with_names_numbers_and_brackets_are_taken(address):
    host.check_address(address)


@pytest.mark.parametrize("process", ["0", "1"])
def test_processes_that_do_not_come_end_the_wait_in_one_line(process):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    code = "import sys; from kdjax.runtime import host; host.connect(sys.argv[1], 2, int(sys.argv[2]))"
    done = subprocess.run(
        [sys.executable, "-c", code, address, process], cwd=ROOT, capture_output=True, text=True, timeout=120,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "KDJAX_CONNECT_SECONDS": "2"},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == f"waiting for the other processes at {address}\n"
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("error: ") and "within 2 s" in done.stderr


def test_the_wait_is_shorter_than_a_minute_by_default():
    assert host.WAIT_SECONDS < 60


@pytest.mark.parametrize(("shares", "expected"), [((), 8), ((16.0,), 8), ((2.5, 3.0), 2), ((0.2,), 1)])
def test_a_control_group_may_leave_fewer_cores(monkeypatch, shares, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)), raising=False)
    monkeypatch.setattr(host.cgroups, "cores", lambda membership, mount: iter(shares))
    assert host.cores() == expected
