"""Linux's control groups: what a container, or a job of Slurm, may take of the machine."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


def memory(membership: str, mount: Path) -> Iterator[int]:
    """Limits on memory of the groups that a process is in, and of those these are in, in bytes.

    Args:
        membership: of /proc/PID/cgroup, lines `NUMBER:CONTROLLERS:PATH`; that of version 2 names no controller.
        mount: where the groups are, `MOUNT`.
    """
    for folder, version in _folders(membership, mount, "memory"):
        allowed = _numbers(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if allowed and allowed[0] < 2**60:  # version 1 writes a number near 2**63 for none
            yield allowed[0]


def cores(membership: str, mount: Path) -> Iterator[float]:
    """How many cores' time those groups may take. Arguments as of `memory`."""
    for folder, version in _folders(membership, mount, "cpu"):
        if version == 2:
            quota = _numbers(folder / "cpu.max")
        else:
            quota = [*_numbers(folder / "cpu.cfs_quota_us"), *_numbers(folder / "cpu.cfs_period_us")]
        if len(quota) == 2 and quota[1] > 0:  # in microseconds, of a period of so many; no number, or -1, is no limit
            yield quota[0] / quota[1]


def _folders(membership: str, mount: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """The groups of a controller that a process is in, up to the outermost, and their version."""
    for line in membership.splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, version = (mount / controller, 1) if controllers else (mount, 2)
        place = root / group.lstrip("/")
        for folder in (place, *place.parents):
            yield folder, version
            if folder == root:
                break


def _numbers(file: Path) -> list[int]:
    """The whole numbers of a file, but for negative ones; nothing where it cannot be read."""
    with contextlib.suppress(OSError):
        return [int(word) for word in file.read_text(encoding="utf-8").split() if word.isdigit()]
    return []
