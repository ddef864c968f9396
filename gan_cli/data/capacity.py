"""The memory available on this machine, and whether a data set fits into it."""

from __future__ import annotations

import os

import jax


def must_stream(size: int, asked: bool | None) -> bool:
    """Whether a data set of ``size`` bytes is streamed from disk instead of kept in memory.

    Args:
        size: bytes that the decoded data set takes.
        asked: the value of the option ``stream``; None streams a data set that takes more than a quarter of
            ``available_memory()``.
    """
    return size > available_memory() // 4 if asked is None else asked


def available_memory() -> int:
    """Bytes of memory of the host or of the accelerator, whichever has less."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    device = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", host)
    return min(host, int(device))
