"""Translates the Python paths in a configuration into names of choices, and back.

A node of a composed configuration contains the Python path of a function (``_target_: gan_cli.losses.hinge``).
Python paths may change between versions, but the names of choices do not, because users type them. A stored node
therefore contains the name of its YAML file (``_choice_: hinge``). When the configuration is read, the YAML file of
the current version provides the path of the function. A node without a shipped YAML file, for example for a user's
function, keeps its path.
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
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # PyYAML without libyaml has no CSafeLoader


@functools.cache
def _files(group: str) -> dict[str, dict[str, Any]]:
    """The contents of a group's shipped YAML files, by name, before Hydra composes them."""
    folder = resources.files("gan_cli.configs").joinpath(group)
    found = {}
    for entry in folder.iterdir() if folder.is_dir() else ():
        name = entry.name.removesuffix(".yaml")
        if name != entry.name and not name.startswith("_"):
            found[name] = yaml.load(entry.read_text(encoding="utf-8"), _LOADER) or {}
    return dict(sorted(found.items()))


def _described(group: str, path: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields a pair for each YAML file of a group: the file's name, and the node that describes ``path``.

    If the file contains a node with a ``_target_`` at ``path``, this node is yielded. For example, the node
    ``generator`` of a file of the group ``model`` describes ``model.generator``. Otherwise, the whole file is
    yielded. For example, a whole file of the group ``optim`` describes ``optim.discriminator``. Files without a
    ``_target_`` are skipped.

    Args:
        group: the group.
        path: the keys that lead from the group's node to the described node.
    """
    for name, file in _files(group).items():
        inner: Any = file
        for part in path:
            inner = inner.get(part) if isinstance(inner, dict) else None
        node = inner if isinstance(inner, dict) and "_target_" in inner else file
        if "_target_" in node:
            yield name, node


def encode(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration in which names of choices replace Python paths.

    A node whose target does not occur in a shipped YAML file keeps its Python path.
    """
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
    """The name of the YAML file that describes a node, or None if no file has the target of the node.

    If several files have this target, the result is the name of the file that shares the most values with the node.
    """
    values = dict(leaves(node))
    matches = [
        (sum(values.get(key) == value for key, value in leaves(described)), name)
        for name, described in _described(group, path)
        if described["_target_"] == node.get("_target_")
    ]
    return max(matches, key=lambda match: match[0])[1] if matches else None


def decode(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration in which Python paths replace names of choices: the inverse of ``encode``.

    The Python paths come from the YAML files of the current version.

    Raises:
        UserError: the current version has no YAML file for a name.
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
        raise UserError(f"{key}={name}: this version has no such choice.{nearest(str(name), known)}")
    return {key: known[name][key] for key in _SPECIAL if key in known[name]} | inner
