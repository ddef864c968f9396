"""Access to nested dictionaries by dotted keys, for example ``train.batch_size``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# A configuration node stores the name of the chosen option under this key (see gan_cli.config.names).
CHOICE = "_choice_"

# The parameter `tree` below is a nested dictionary. Its type is Any, because OmegaConf's containers have a wider
# declared type.


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted key and the value of each leaf.

    Leaves are empty mappings and all values that are not mappings. The name of a chosen option is yielded under the
    key of the configuration node: ``{"loss": {"_choice_": "hinge"}}`` yields ``("loss", "hinge")``.
    """
    for key, value in tree.items():
        dotted = prefix.removesuffix(".") if key == CHOICE and prefix else f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def put(tree: Any, key: str, value: Any) -> None:
    """Set the value of a dotted key, and create missing nested dictionaries."""
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[last] = value
