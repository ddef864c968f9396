"""Nested dictionaries by dotted keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# Under this key a configuration's node holds the name of the option that was chosen: see gan_cli.config.names.
CHOICE = "_choice_"


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of everything that is not a non-empty mapping.

    A choice stands under the key of its node: ``{"loss": {"_choice_": "hinge"}}`` has the leaf ``loss``.
    """
    for key, value in tree.items():
        dotted = prefix.removesuffix(".") if key == CHOICE and prefix else f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def put(tree: Any, key: str, value: Any) -> None:
    """Set the option of a dotted key, whose mappings are made where there are none."""
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[last] = value
