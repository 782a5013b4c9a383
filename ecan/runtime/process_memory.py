"""This process's memory as Linux shows it, in ranges that may be one huge page."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import mmap
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["HUGE_BYTES", "ProcessMemory"]

HUGE_BYTES = 2 << 20
PAGE_BYTES = 4096
PAGES = HUGE_BYTES // PAGE_BYTES
"""Machines with other sizes (some with ARM) are left alone."""

MADV_COLLAPSE = 25
"""`linux/mman.h`; Python's `mmap` does not have it yet."""

OURS = 0x81
"""Top byte of a page's entry in `/proc/self/pagemap`: present (bit 63) and mapped by this
process only (56); not a file's (61), not swapped out (62). The page of zeros that stands for
memory that was only read has no bit 56, nor has what a forked child shares; `mincore` takes
both for memory that is there."""

MAX_HOLES = 16
"""Pages of a range that need not be there, of 512: 3 %. Python's arenas of 1 MiB leave out 4
pages each when they do not begin at a multiple of 16 KiB, as three of four do not."""


class ProcessMemory:
    """The memory of this process as Linux shows it.

    Args:
        proc: the process's folder.
        policy: the folder with what the administrator said about huge pages.

    Raises:
        OSError: by each method: not Linux, or one that hides it.

    Runs on: any thread.
    """

    def __init__(
        self,
        proc: Path = Path("/proc/self"),
        policy: Path = Path("/sys/kernel/mm/transparent_hugepage"),
    ) -> None:
        self._proc = proc
        self._policy = policy

    def resident_bytes(self) -> int:
        """What the process has in memory; takes some 10 µs."""
        return int((self._proc / "statm").read_text("ascii").split()[1]) * PAGE_BYTES

    def refusal(self) -> str | None:
        """Why nothing should be collapsed here, if so."""
        if os.sysconf("SC_PAGE_SIZE") != PAGE_BYTES:
            return "pages are not of 4 KiB"
        if int((self._policy / "hpage_pmd_size").read_text("ascii")) != HUGE_BYTES:
            return "huge pages are not of 2 MiB"
        if "[never]" in (self._policy / "enabled").read_text("ascii"):
            return f"{self._policy / 'enabled'} is never"
        return None

    def probe(self) -> int:
        """Collapse a range made for it.

        Returns:
            0, or the errno. EINVAL: the kernel does not know how, or must not for this
            process (`PR_SET_THP_DISABLE`).
        """
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
        with mmap.mmap(-1, 2 * HUGE_BYTES, flags=flags) as own:
            view = ctypes.c_char.from_buffer(own)
            address = _up(ctypes.addressof(view))
            del view  # else it cannot be closed
            ctypes.memset(address, 1, HUGE_BYTES)
            return self.collapse(address)

    def ranges(self) -> Iterator[int]:
        """Addresses of all ranges of the size and alignment of a huge page that could be heap.

        Stacks of threads are among them; which are worth it says `is_full`.
        """
        for line in (self._proc / "maps").read_text("utf-8", "replace").splitlines():
            span, access, _, _, inode, *name = line.split(None, 5)
            if access == "rw-p" and inode == "0" and _may_be_heap(name):
                start, end = (int(one, 16) for one in span.split("-"))
                yield from range(_up(start), end - HUGE_BYTES + 1, HUGE_BYTES)

    def is_full(self, address: int, pagemap: int) -> bool:
        """Is this range, but for `MAX_HOLES`, memory that the process has and shares with nobody?

        Args:
            address: the beginning of the range.
            pagemap: a descriptor of `open_pagemap`.
        """
        entries = os.pread(pagemap, PAGES * 8, address // PAGE_BYTES * 8)
        # The last byte is the top one: whatever has huge pages of 2 MiB is little-endian.
        return entries[7::8].count(OURS) >= PAGES - MAX_HOLES

    @contextlib.contextmanager
    def open_pagemap(self) -> Iterator[int]:
        """For `is_full`."""
        descriptor = os.open(self._proc / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    def collapse(self, address: int) -> int:
        """Make the range one huge page, or find that it is one. Without the interpreter's lock.

        Returns:
            0, or the errno.
        """
        if self._madvise(address, HUGE_BYTES, MADV_COLLAPSE) == 0:
            return 0
        return ctypes.get_errno()

    @functools.cached_property
    def _madvise(self) -> Any:
        madvise = ctypes.CDLL(None, use_errno=True).madvise
        madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        return madvise


def _up(address: int) -> int:
    return -(-address // HUGE_BYTES) * HUGE_BYTES


def _may_be_heap(name: list[str]) -> bool:
    """Without a name, libc's heap, or one of those that newer allocators give to theirs."""
    return not name or name[0] == "[heap]" or name[0].startswith("[anon:")
