"""Linux's control groups: the limits of a container or a Slurm job on memory and cores."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


def memory(membership: str, mount: Path) -> Iterator[int]:
    """Yields the memory limits, in bytes, of the groups that a process is in and of all groups above these.

    Args:
        membership: content of /proc/PID/cgroup, lines `NUMBER:CONTROLLERS:PATH`; a version 2 line names no controllers.
        mount: folder where the groups are mounted, `MOUNT`.
    """
    for folder, version in _folders(membership, mount, "memory"):
        limit = _numbers(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if limit and limit[0] < 2**60:  # version 1 writes a number near 2**63 if there is no limit
            yield limit[0]


def cores(membership: str, mount: Path) -> Iterator[float]:
    """Yields how many cores these groups may use, as a fraction. Arguments are those of `memory`."""
    for folder, version in _folders(membership, mount, "cpu"):
        if version == 2:
            quota = _numbers(folder / "cpu.max")
        else:
            quota = [*_numbers(folder / "cpu.cfs_quota_us"), *_numbers(folder / "cpu.cfs_period_us")]
        # Microseconds of CPU time, and of the period in which they may be used. "max" or -1 means no limit.
        if len(quota) == 2 and quota[1] > 0:
            yield quota[0] / quota[1]


def _folders(membership: str, mount: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yields the groups of a controller that a process is in, up to the outermost one, with their version."""
    for line in membership.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, version = (mount / controller, 1) if controllers else (mount, 2)
        innermost = root / group.lstrip("/")
        for folder in (innermost, *innermost.parents):
            yield folder, version
            if folder == root:
                break


def _numbers(file: Path) -> list[int]:
    """Returns the non-negative integers in a file; none if it cannot be read."""
    with contextlib.suppress(OSError):
        return [int(word) for word in file.read_text(encoding="utf-8").split() if word.isdigit()]
    return []
