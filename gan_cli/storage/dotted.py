"""Access to nested dictionaries by dotted keys, for example ``train.batch_size``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

# A stored configuration node contains the name of the selected choice, for example hinge, under this key (see
# gan_cli.config.names).
CHOICE = "_choice_"

# The parameter `tree` below is a nested dictionary. Its type is Any, because OmegaConf's containers have a wider
# declared type.


def leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields a pair for each leaf of ``tree``: the dotted key and the value.

    A leaf is a value that is not a mapping, or an empty mapping. The name of a choice is yielded under the dotted
    key of the node that contains the name: ``{"loss": {"_choice_": "hinge"}}`` yields ``("loss", "hinge")``.
    """
    for key, value in tree.items():
        dotted = prefix.removesuffix(".") if key == CHOICE and prefix else f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def put(tree: Any, key: str, value: Any) -> None:
    """Set the value at a dotted key of a nested dictionary. Missing inner dictionaries are created."""
    *path, last = key.split(".")
    for part in path:
        tree = tree.setdefault(part, {})
    tree[last] = value
