"""Decides from the memory of the machine whether a data set is streamed from disk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import jax

_GROUP_OF_PROCESS = Path("/proc/self/cgroup")
_CONTROL_GROUPS = Path("/sys/fs/cgroup")


def must_stream(size: int, asked: bool | None) -> bool:
    """Whether a data set of ``size`` bytes is streamed from disk instead of being kept in memory.

    Args:
        size: size of the decoded data set in bytes.
        asked: the value of the option ``stream``. With None, a data set is streamed if it takes more than a quarter
            of ``available_memory()``.
    """
    return size > available_memory() // 4 if asked is None else asked


def available_memory() -> int:
    """Total memory in bytes of the host, of this process's control group or of one accelerator: the smallest."""
    host = min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_limits_of_control_groups()])
    device = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", host)
    return min(host, int(device))


def _limits_of_control_groups() -> Iterator[int]:
    """Yields the memory limits in bytes of the control groups of this process, e.g. those of a container or a job.

    The versions 1 and 2 of Linux control groups store limits in files of different names. Inside a container, the
    root of the file system of control groups may be the group of the process.
    """
    try:
        lines = _GROUP_OF_PROCESS.read_text().splitlines()
    except OSError:
        lines = []
    paths = {("memory", "memory.limit_in_bytes", ""), ("", "memory.max", "")}
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            paths.add(("", "memory.max", group))
        elif "memory" in controllers.split(","):
            paths.add(("memory", "memory.limit_in_bytes", group))
    for root, name, group in paths:
        inner = (_CONTROL_GROUPS / root / group.strip("/")).resolve()
        for folder in (inner, *inner.parents):
            try:
                limit = (folder / name).read_text().strip()
            except OSError:
                limit = "max"  # the root group has no limit
            if limit.isdecimal():
                yield int(limit)
            if folder == _CONTROL_GROUPS / root:
                break
