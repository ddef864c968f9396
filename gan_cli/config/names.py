"""Option names in place of Python paths: what a run's directory stores of a configuration.

A composed node names the function that it configures (``_target_: gan_cli.losses.hinge``). Functions move; the
names that users type do not. A stored node therefore names its YAML file (``_choice_: hinge``), and the file of
today says which function that is. Nodes that no shipped file describes, such as a user's own, keep their path.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

import yaml

from gan_cli.config.schema import GROUP_MODULES
from gan_cli.errors import UserError, nearest
from gan_cli.storage.dotted import CHOICE, leaves

_SPECIAL = ("_target_", "_partial_")


@functools.cache
def _files(group: str) -> dict[str, dict[str, Any]]:
    """The shipped YAML files of a group by name, not composed."""
    folder = resources.files("gan_cli.configs").joinpath(group)
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        name = entry.name.removesuffix(".yaml")
        if name != entry.name and not name.startswith("_"):
            found[name] = yaml.safe_load(entry.read_text(encoding="utf-8")) or {}
    return dict(sorted(found.items()))


def _described(group: str, path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The nodes that may stand at a place of a group, with their files' names: a file's node there, or its root.

    ``model.generator`` is the node ``generator`` of a file of ``model``; ``optim.discriminator`` is all of one.
    """
    for name, file in _files(group).items():
        inner: Any = file
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        node = inner if isinstance(inner, dict) and "_target_" in inner else file
        if "_target_" in node:
            yield name, node


def encode(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` with option names where it has targets of this package."""
    return {key: _encode(value, key, ()) if key in GROUP_MODULES else value for key, value in config.items()}


def _encode(node: Any, group: str, path: tuple[str, ...]) -> Any:
    if not isinstance(node, Mapping):
        return node
    name = _name(node, group, path)
    inner = {
        key: _encode(value, group, (*path, str(key)))
        for key, value in node.items()
        if name is None or key not in _SPECIAL
    }
    return inner if name is None else {CHOICE: name} | inner


def _name(node: Mapping[str, Any], group: str, path: tuple[str, ...]) -> str | None:
    """The file that describes a node; of several with its target, the one that has most of its values."""
    values = dict(leaves(node))
    found = [
        (sum(values.get(key) == value for key, value in leaves(described)), name)
        for name, described in _described(group, path)
        if described["_target_"] == node.get("_target_")
    ]
    return max(found, key=lambda one: one[0])[1] if found else None


def decode(config: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``encode``, by the files of today.

    Raises:
        UserError: an option is named that this version does not have.
    """
    return {key: _decode(value, key, ()) if key in GROUP_MODULES else value for key, value in config.items()}


def _decode(node: Any, group: str, path: tuple[str, ...]) -> Any:
    if not isinstance(node, Mapping):
        return node
    inner = {key: _decode(value, group, (*path, str(key))) for key, value in node.items() if key != CHOICE}
    if CHOICE not in node:
        return inner
    known, name = dict(_described(group, path)), node[CHOICE]
    if not isinstance(name, str) or name not in known:
        key = ".".join((group, *path))
        raise UserError(f"{key}={name}: this version has no such option.{nearest(str(name), known)}")
    return {key: known[name][key] for key in _SPECIAL if key in known[name]} | inner
