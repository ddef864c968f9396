"""The identity of a run: the options that a resumed run cannot change, and their fingerprint.

An option is free if a resumed run may change it (``gan_cli.config.schema.FREE``). All other options determine the
steps that the run has made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from typing import Any

from gan_cli.config.names import encode
from gan_cli.config.schema import FREE
from gan_cli.storage.dotted import leaves


def determining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that are not free, by dotted key, with option names instead of targets."""
    return {key: value for key, value in leaves(encode(config)) if not is_free(key)}


def free_leaves(config: Mapping[str, Any]) -> list[str]:
    """The dotted keys of the free options of ``config``."""
    return [key for key, _ in leaves(config) if is_free(key)]


def differences(default: Mapping[str, Any], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options of ``config`` that differ from the configuration ``default``.

    Returns:
        A dictionary with ``key``, ``default`` and ``value`` for each option. The entry ``default`` is None for an
        option that the configuration ``default`` does not contain.
    """
    defaults = dict(leaves(encode(default)))
    different = [
        (key, value)
        for key, value in leaves(encode(config))
        if not key.endswith("._partial_") and (key not in defaults or defaults[key] != value)
    ]
    return [{"key": key, "default": defaults.get(key), "value": value} for key, value in different]


def is_free(key: str, free: Collection[str] = FREE) -> bool:
    """Whether the option ``key``, or a group that contains it, is in ``free``."""
    return any(key == name or key.startswith(f"{name}.") for name in free)


def fingerprint(config: Mapping[str, Any]) -> str:
    """The SHA-256 hash of the options that are not free."""
    return digest(determining(config))


def digest(options: Mapping[str, Any]) -> str:
    """The SHA-256 hash of options by dotted key, in any order."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
