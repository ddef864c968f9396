"""The identity of a run: the options that a resumed run may not change, and their fingerprint.

``gan_cli.config.schema.FREE`` lists the options that a resumed run may change, called free options. All other
options determine the training state that the run has reached.
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
    """The options that a resumed run may not change: a dictionary from dotted keys to values.

    In place of its Python path, a target is represented by the name of the group choice that selects it, for
    example ``hinge`` for ``loss=hinge``. A target that is in no shipped YAML file keeps its Python path.
    """
    return {key: value for key, value in leaves(encode(config)) if not is_free(key)}


def free_leaves(config: Mapping[str, Any]) -> list[str]:
    """The dotted keys of the options in ``config`` that a resumed run may change."""
    return [key for key, _ in leaves(config) if is_free(key)]


def differences(default: Mapping[str, Any], config: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The options whose values in ``config`` and in ``default`` differ.

    Args:
        default: the configuration with which ``config`` is compared.
        config: a configuration.

    Returns:
        A list with one dictionary for each differing option. The dictionary contains the dotted key (``key``), the
        value in ``default`` (``default``) and the value in ``config`` (``value``). If ``default`` does not contain
        the option, the entry ``default`` is None.
    """
    defaults = dict(leaves(encode(default)))
    different = [
        (key, value)
        for key, value in leaves(encode(config))
        if not key.endswith("._partial_") and (key not in defaults or defaults[key] != value)
    ]
    return [{"key": key, "default": defaults.get(key), "value": value} for key, value in different]


def is_free(key: str, free: Collection[str] = FREE) -> bool:
    """Whether ``free`` contains the dotted key ``key``, or the key of a group that contains the option ``key``."""
    return any(key == name or key.startswith(f"{name}.") for name in free)


def fingerprint(config: Mapping[str, Any]) -> str:
    """The SHA-256 hash of the options that a resumed run may not change."""
    return digest(determining(config))


def digest(options: Mapping[str, Any]) -> str:
    """The SHA-256 hash of a dictionary from dotted keys to values. The order of the keys does not matter."""
    return hashlib.sha256(json.dumps(options, sort_keys=True).encode()).hexdigest()
