"""What identifies a run: the options that determine its past, and their fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from gan_cli.config.names import encode
from gan_cli.config.schema import FREE
from gan_cli.storage.dotted import leaves


def determining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that determine a run's past, flat, by dotted key, with option names where there are targets."""
    return {key: value for key, value in leaves(encode(config)) if not is_free(key)}


def free_leaves(config: Mapping[str, Any]) -> list[str]:
    """The dotted keys of ``config`` that may differ when a run is resumed."""
    return [key for key, _ in leaves(config) if is_free(key)]


def differences(default: Mapping[str, Any], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of ``config`` that are not as in ``default``: ``key``, ``default`` (or None) and ``value``."""
    usual = dict(leaves(encode(default)))
    apart = [
        (key, value)
        for key, value in leaves(encode(config))
        if not key.endswith("._partial_") and (key not in usual or usual[key] != value)
    ]
    return [{"key": key, "default": usual.get(key), "value": value} for key, value in apart]


def is_free(key: str, free: Collection[str] = FREE) -> bool:
    """Whether ``key`` (or its group) may differ when a run is resumed."""
    return any(key == one or key.startswith(f"{one}.") for one in free)


def fingerprint(config: Mapping[str, Any]) -> str:
    """A SHA-256 of the options that determine a run's past."""
    return digest(determining(config))


def digest(options: Mapping[str, Any]) -> str:
    """A SHA-256 of flat options, whatever their order."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
