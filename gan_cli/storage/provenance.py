"""The environment of a run: software versions, devices and host."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("gan_cli", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "hydra-core", "numpy")


def facts(devices: Sequence[jax.Device]) -> dict[str, Any]:
    """Dictionary with the entries of ``run.json`` about the environment (documented in ``storage/README.md``).

    Args:
        devices: the JAX devices of the run.
    """
    return {
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "git": _git(),
        "devices": [describe(device) for device in devices],
        "processes": jax.process_count(),
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "pid": os.getpid(),
    }


def cores() -> int:
    """The number of cores on which this process may run."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def rounding(record: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of ``facts``, e.g. in ``run.json``, on which the rounding errors of a step depend."""
    versions = record.get("versions") or {}
    return {name: versions.get(name) for name in ("jax", "jaxlib")} | {
        "devices": record.get("devices"),
        "processes": record.get("processes"),
        "compiler_options": record.get("compiler_options") or {},  # earlier versions had no options
    }


def describe(device: jax.Device) -> str:
    """Short description of a device, for example ``"CPU (2 cores)"`` or ``"gpu:0 NVIDIA H100"``."""
    if device.platform == "cpu":
        return f"CPU ({os.cpu_count()} cores)"
    return f"{device.platform}:{device.id} {device.device_kind}"


def summary(devices: Sequence[jax.Device]) -> str:
    """Short description of the devices of a run, for example ``"8 x gpu NVIDIA H100 in 2 processes"``."""
    if len(devices) == 1:
        return describe(devices[0])
    kind = "cpu" if devices[0].platform == "cpu" else f"{devices[0].platform} {devices[0].device_kind}"
    among = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{len(devices)} x {kind}{among}"


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """Dictionary with the package's git ``commit``, and whether the work tree is ``clean``. None without git."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "clean": not git("status", "--porcelain")}
    except (OSError, subprocess.SubprocessError):
        return None
