"""How much memory there is, and whether a data set is too large for it."""

from __future__ import annotations

import os

import jax


def must_stream(size: int, asked: bool | None) -> bool:
    """Whether a data set of ``size`` bytes is streamed: as ``asked``, else where it would take too much memory.

    That is more than a quarter of the host's memory, or of the accelerator's.
    """
    return size > available_memory() // 4 if asked is None else asked


def available_memory() -> int:
    """Bytes of the host's memory, or of the accelerator's where that has less."""
    host = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(host, (jax.devices()[0].memory_stats() or {}).get("bytes_limit", host))
