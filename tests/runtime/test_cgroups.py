"""Limits of control groups, from folders as Linux lays them out."""

import pytest

from kdjax.runtime import cgroups


def lay(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{content}\n")


@pytest.mark.parametrize(
    ("membership", "limits"),
    [
        ("0::/slurm/job_7/step_0\n", {"slurm/job_7/memory.max": "16", "slurm/memory.max": "max", "memory.max": "64"}),
        ("0::/\n", {"memory.max": "16", "slurm/memory.max": "2"}),
        (
            "12:cpu,cpuacct:/a\n5:memory:/slurm/job_7\n0::/user\n",
            {"memory/slurm/job_7/memory.limit_in_bytes": "16", "memory/memory.limit_in_bytes": "9223372036854771712"},
        ),
        ("5:cpu:/a\n", {"memory/a/memory.limit_in_bytes": "2", "a/memory.max": "2"}),
    ],
    ids=["slurm", "container", "version 1", "none"],
)
def test_limits_on_memory(tmp_path, membership, limits):
    lay(tmp_path, limits)
    found = list(cgroups.memory(membership, tmp_path))
    assert found == {"0::/s": [16, 64], "5:cpu": []}.get(membership[:5], [16])


@pytest.mark.parametrize(
    ("membership", "files", "expected"),
    [
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "250000 100000"}, [2.5]),
        ("0::/\n", {"cpu.max": "50000 100000"}, [0.5]),
        ("0::/\n", {"memory.max": "1"}, []),
        (
            "4:cpu,cpuacct:/a\n",
            {"cpu/a/cpu.cfs_quota_us": "300000", "cpu/a/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "-1"},
            [3.0],
        ),
    ],
    ids=["version 2", "half a core", "none", "version 1"],
)
def test_shares_of_the_cores(tmp_path, membership, files, expected):
    lay(tmp_path, files)
    assert list(cgroups.cores(membership, tmp_path)) == expected
