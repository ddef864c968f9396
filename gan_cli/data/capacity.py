"""Decides from the memory of the machine whether a data set is streamed from disk."""

from __future__ import annotations

import os

import jax


def must_stream(size: int, asked: bool | None) -> bool:
    """Whether a data set of ``size`` bytes is streamed from disk instead of being kept in memory.

    Args:
        size: size of the decoded data set in bytes.
        asked: the value of the option ``stream``. With None, a data set is streamed if it takes more than a quarter
            of ``available_memory()``.
    """
    return size > available_memory() // 4 if asked is None else asked


def available_memory() -> int:
    """Total memory in bytes of the host or of one accelerator, whichever is smaller."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    device = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", host)
    return min(host, int(device))
