"""glibc and kernel memory settings (mallopt, prctl)."""

from __future__ import annotations

import contextlib
import ctypes

MMAP_THRESHOLD, ARENA_MAX = -3, -8  # mallopt(3)

THP_DISABLE = 41  # prctl(2)

LARGE_BYTES = 256 * 1024


def limit_allocator() -> None:
    """Have the allocator keep no large block that was freed, and the kernel give no 2 MB page where 4 kB are used.

    glibc raises its limit for blocks of their own with every large one that is freed; the day's temporaries then lie
    in the heap, under small objects that stay, and are never given back.
    """
    with contextlib.suppress(AttributeError, OSError):  # not glibc, not Linux
        libc = ctypes.CDLL(None)
        libc.mallopt(MMAP_THRESHOLD, LARGE_BYTES)
        libc.mallopt(ARENA_MAX, 1)  # one thread at a time allocates anyway
        libc.prctl(THP_DISABLE, 1, 0, 0, 0)


def release_free_memory() -> None:
    """Return freed memory to the system: a first start needs far more for a moment than the agent ever does again."""
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
