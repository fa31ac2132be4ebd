"""Makes glibc's heap keep memory that XLA frees for its next call, and return it to the system if it piles up."""

import ctypes
import functools
import os
import platform
import resource
from pathlib import Path

# mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

MADV_HUGEPAGE, HUGE_PAGE = 14, 1 << 21  # of Linux's mman.h; bytes on x86 and, with pages of 4 KB, on ARM

HUGE_SHARE = 0.8
"""Share of the machine's memory to reserve for huge pages: as much as the memory plan lets a step use."""

SPARE = 1 << 28
"""Bytes that may always stay free on the heap."""


def keep() -> None:
    """Makes glibc keep freed memory, in huge pages. Call it before anything uses a JAX device.

    It does nothing with allocators other than glibc's.

    - XLA's CPU client allocates the working memory of a program for each call, hundreds of MB for a training step. If
      the memory went back to the system in between, a page fault every 4 KB would cost as much time as the arithmetic
      of the step (measured). What is kept has no limit: with one of 2 GB, which is less than the working memory of a
      student's step at 128 px and batch 64, the step took twice as long. The XLA of jax 0.12 frees that memory from
      another thread, sometimes after the next call has allocated its own, so the heap grows a few times before a call
      finds all the memory it needs. (With 192 MB, 1 to 6 of the first 20 calls paid the full cost and none of the next
      20; without these settings, all of them did.)
    - If Linux offers pages of 2 MB on request, the heap uses them: 7 to 23 % less time for a training step (measured).
    """
    libc = _glibc()
    if libc is None:
        return
    # A single arena: other arenas cannot grow beyond 64 MB, and then map memory in spite of M_MMAP_MAX.
    for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
        libc.mallopt(parameter, value)
    _reserve_huge_pages(libc)


def hand_back() -> None:
    """Returns all kept memory to the system. Call it before deciding, by the free memory, how much to run at a time."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


class Trim:
    """Returns memory that piles up from call to call of a program to the system. Call the object after each such call.

    glibc can place aligned memory in a free block only if the block is longer by the alignment. So a block that XLA has
    freed can be used again only while the bytes beside it are free too. If something that stays, such as the logits of
    a batch, has taken these, the next call takes new memory, without limit: the views of a VGG16, at 1.5 GB per call,
    grew to 16 GB. So if more is free than twice the amount after the first call plus `SPARE`, the free memory is
    returned, except for the top of the heap, which the next call will use.
    """

    def __init__(self) -> None:
        self._first, self._usual = True, 0

    def __call__(self) -> None:
        """Trims the heap if too much of it is free. Called after each call of the program."""
        free = _free()
        if free is None:
            return
        if self._first:  # keeps the largest such amount: if another thread frees, one may be measured too early
            self._first, self._usual = False, max(self._usual, free)
        elif free > 2 * self._usual + SPARE:
            libc = _glibc()
            assert libc is not None
            libc.malloc_trim(ctypes.c_size_t(1 << 62))  # keeps all of the top, and so its huge pages
            self._first = True


class _Mallinfo(ctypes.Structure):
    """struct mallinfo2, of glibc 2.33 and later."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _free() -> int | None:
    """Returns approximately how many bytes the process holds but does not use; None if that is unknown."""
    libc, sizes = _glibc(), Path("/proc/self/statm")
    if libc is None or not hasattr(libc, "mallinfo2") or not sizes.exists():
        return None
    libc.mallinfo2.restype = _Mallinfo
    resident, shared = (int(pages) for pages in sizes.read_text(encoding="ascii").split()[1:3])
    heap = libc.mallinfo2()
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") - heap.uordblks - heap.hblkhd


def _reserve_huge_pages(libc: ctypes.CDLL) -> None:
    """Requests huge pages for the memory that the heap will grow into.

    glibc would request them itself only if the environment said so before the process started. This reserves only
    addresses; memory is taken when it is written to. If limits count addresses as memory, nothing is done.
    """
    limits = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_DATA, resource.RLIMIT_AS))
    limited = any(limit != resource.RLIM_INFINITY for limit in limits)
    overcommit = Path("/proc/sys/vm/overcommit_memory")
    if limited or not overcommit.exists() or overcommit.read_text(encoding="ascii").strip() == "2":
        return
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    size = int(HUGE_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    start = libc.malloc(size)
    if start:
        first = -(-start // HUGE_PAGE) * HUGE_PAGE
        libc.madvise(first, start + size - first, MADV_HUGEPAGE)  # no effect in a kernel without huge pages
        libc.free(start)  # the heap keeps the addresses
