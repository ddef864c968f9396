"""Translates a configuration between Python paths and the option names that a run's directory stores.

A node of a composed configuration contains the Python path of a function (``_target_: gan_cli.losses.hinge``).
Paths may change between versions, and the names that users type do not change. A stored node therefore contains the
name of its YAML file (``_choice_: hinge``), and the file of the current version gives the path of the function.
Nodes without a shipped file, such as nodes for a user's function, keep their path.
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
    """The contents of the shipped YAML files of a group, by name, without composition."""
    folder = resources.files("gan_cli.configs").joinpath(group)
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        name = entry.name.removesuffix(".yaml")
        if name != entry.name and not name.startswith("_"):
            found[name] = yaml.safe_load(entry.read_text(encoding="utf-8")) or {}
    return dict(sorted(found.items()))


def _described(group: str, path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each file of a group, and the node that the file describes at ``path`` in the group.

    The node is the file's node at ``path`` if there is one, and otherwise the whole file. For example, a file of
    ``model`` describes ``model.generator`` with its node ``generator``, and a file of ``optim`` describes
    ``optim.discriminator`` as a whole.
    """
    for name, file in _files(group).items():
        inner: Any = file
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        node = inner if isinstance(inner, dict) and "_target_" in inner else file
        if "_target_" in node:
            yield name, node


def encode(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with option names instead of the targets that shipped files describe."""
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
    """The name of the file that describes a node, or None.

    If several files have the target of the node, the result is the file with the largest number of equal values.
    """
    values = dict(leaves(node))
    matches = [
        (sum(values.get(key) == value for key, value in leaves(described)), name)
        for name, described in _described(group, path)
        if described["_target_"] == node.get("_target_")
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None


def decode(config: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of ``encode``, with the targets of the current version's files.

    Raises:
        UserError: a stored name is unknown in the current version.
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
