"""The heap of glibc: what XLA frees is kept for its next call, and handed back where it piles up."""

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
"""Of the machine's memory, what is reserved for huge pages: as much as the memory plan lets a step have."""

SPARE = 1 << 28
"""Bytes that may always lie free."""


def keep() -> None:
    """Keeps what is freed, in huge pages. Call before anything uses a JAX device; other allocators stay as they are.

    - XLA's CPU client allocates the working memory of a program for each call, hundreds of MB for a training step;
      handed back and fetched again, it costs a page fault every 4 KB, as much time as the arithmetic of the step
      (measured). There is no limit to what is kept: 2 GB are less than a student's step at 128 px and batch 64 works
      with, and it then took twice as long. The XLA of jax 0.12 frees that memory from another thread, at times after
      the next call has allocated its own: the heap then grows a few times before a call finds all it needs (192 MB: 1
      to 6 of the first 20 calls paid in full, none of the next 20; unset, all of them did).
    - That memory lies in pages of 2 MB where Linux has them for those who ask: 7 to 23 % less time for a training
      step (measured).
    """
    libc = _glibc()
    if libc is None:
        return
    # One arena: the others cannot grow beyond 64 MB and then map memory all the same.
    for parameter, value in ((M_ARENA_MAX, 1), (M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1)):
        libc.mallopt(parameter, value)
    _reserve_huge_pages(libc)


def hand_back() -> None:
    """Hands back all that is kept: before it is decided, by the memory that is free, what is done at a time."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(ctypes.c_size_t(0))


class Trim:
    """Hands memory back that piles up from call to call of a program. To be called after each.

    glibc finds room for aligned memory in a free block only if that is longer by the alignment. A block that XLA has
    freed is therefore of use again only while the bytes beside it are free as well. Where something that stays has
    taken them, such as the logits of a batch, the next call takes new memory, without limit: the views of a VGG16, of
    1.5 GB a call, came to hold 16 GB. So once `SPARE` more than twice of what lay free after the first call does, it
    is handed back, but for the top of the heap, which the next call will use.
    """

    def __init__(self) -> None:
        self._first, self._usual = True, 0

    def __call__(self) -> None:
        """After a call."""
        free = _free()
        if free is None:
            return
        if self._first:  # the most of all first calls: where another thread frees, one may be seen too early
            self._first, self._usual = False, max(self._usual, free)
        elif free > 2 * self._usual + SPARE:
            libc = _glibc()
            assert libc is not None
            libc.malloc_trim(ctypes.c_size_t(1 << 62))  # so much of the top stays, and its huge pages with it
            self._first = True


class _Mallinfo(ctypes.Structure):
    """`mallinfo2` of glibc 2.33 and later."""

    _fields_ = [(name, ctypes.c_size_t) for name in (
        "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
    )]  # fmt: skip


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None


def _free() -> int | None:
    """Bytes that the process holds beyond those in use, about; None where that is not known."""
    libc, sizes = _glibc(), Path("/proc/self/statm")
    if libc is None or not hasattr(libc, "mallinfo2") or not sizes.exists():
        return None
    libc.mallinfo2.restype = _Mallinfo
    resident, shared = (int(pages) for pages in sizes.read_text(encoding="ascii").split()[1:3])
    heap = libc.mallinfo2()
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE") - heap.uordblks - heap.hblkhd


def _reserve_huge_pages(libc: ctypes.CDLL) -> None:
    """Asks for huge pages for the memory that the heap will grow into.

    glibc would ask itself, but only where the environment says so before the process starts. Reserved are addresses:
    memory is taken when it is written to. Where they are counted as if they were memory, nothing is done.
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
        libc.madvise(first, start + size - first, MADV_HUGEPAGE)  # a kernel without them refuses, and all is as before
        libc.free(start)  # the heap keeps the addresses
