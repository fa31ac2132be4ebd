"""What `host.prepare` sets, in a process of its own."""

import os
import platform
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(code, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.split()


def test_the_flags_of_the_user_stay():
    code = "import os; from kdjax import host; host.prepare(); host.prepare(); print(os.environ['XLA_FLAGS'])"
    assert run(code, XLA_FLAGS="--a=1") == ["--a=1", "--xla_cpu_enable_fast_math=true"]
    assert run(code, XLA_FLAGS="--xla_cpu_enable_fast_math=false") == ["--xla_cpu_enable_fast_math=false"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is asked to keep memory")
def test_working_memory_is_not_fetched_anew():
    """A program with 256 MB of working memory: its second hundred pages cost no page faults."""
    code = """
import resource
from kdjax import host
host.prepare()
import jax, jax.numpy as jnp
f = jax.jit(lambda x: jnp.sum(jnp.dot(jnp.outer(x, x), jnp.outer(x, x))))
x = jnp.ones(2048)
f(x).block_until_ready()
f(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
f(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    assert int(run(code, XLA_FLAGS="")[0]) < 2000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's allocator is asked to keep memory")
def test_more_than_two_gigabytes_are_kept_as_well():
    """The working memory of a student's step at 128 px and batch 64. None of it is touched here."""
    code = """
import ctypes
from kdjax import host
host.prepare()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes, libc.sbrk.argtypes = [ctypes.c_size_t], [ctypes.c_void_p], [ctypes.c_ssize_t]
first = libc.sbrk(0)
block = libc.malloc(3 << 30)
top = libc.sbrk(0)
libc.free(block)
print(top - first >= 3 << 30, libc.sbrk(0) == top)
"""
    assert run(code, XLA_FLAGS="") == ["True", "True"]


def test_nans_and_infinities_keep_their_meaning():
    code = """
from kdjax import host
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
from kdjax import host
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
    assert [one.result() for one in said] == [["2", rank, gpu] for rank, gpu in zip("01", gpus, strict=True)]
