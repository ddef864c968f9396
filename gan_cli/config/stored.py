"""Reads configurations from run directories of this version and of earlier versions of the program.

``run.json`` contains the number of its format. Format 1 stores option names. Format 0, which has no number, stores
Python paths, which ``_named`` translates. An option that an older run lacks takes the default of its signature (or
of ``gan_cli.config.schema``), which reproduces the behaviour of the program without the option.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from gan_cli.config import check, identity, names
from gan_cli.config.schema import FREE, GROUP_MODULES, GROUPS
from gan_cli.storage.dotted import CHOICE, leaves, put

# The free options of each format. If FREE changes, the format gets a new number, and this dictionary keeps the old
# value of FREE for the earlier formats.
_FREE = {0: FREE, 1: FREE}
# Format 0: the option names that differ from the last part of the target's path.
_RENAMED = {
    "gan_cli.games.gan.GAN": "gan",
    "gan_cli.games.known.Quadratic": "quadratic",
    "gan_cli.metrics.modes.known_modes": "modes",
    "gan_cli.logger.csv_table": "csv",
}
# Groups that runs of format 0 may lack, and their values in such runs.
_LACKED = {"penalty": {}, "augment": {}, "metric": {}, "features": {CHOICE: "auto"}, "logger": {}}


def config_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration in the contents of a ``run.json`` of any format, with option names."""
    config: dict[str, Any] = facts["config"]
    if config and facts.get("format", 0) == 0:
        named = {key: _named(value, key, ()) if key in GROUP_MODULES else value for key, value in config.items()}
        config = named | {key: value for key, value in _LACKED.items() if key not in named}
    return config


def load(
    facts: Mapping[str, Any], modules: Sequence[str], needed: Sequence[str] = (*GROUPS, "logger")
) -> dict[str, Any]:
    """The checked configuration in the contents of a ``run.json``.

    The file may come from an untrusted source. Nothing in it is composed or imported, and the only interpolations
    are environment variables in the options that allow them.

    Args:
        facts: the contents of ``run.json``.
        modules: the user's modules, from which targets may come.
        needed: the groups that the caller builds. In other groups, environment variables may
            be undefined.

    Raises:
        UserError: the configuration is not valid.
    """
    config = names.decode(copy.deepcopy(config_of(facts)))
    for key, value in list(leaves(config)):
        check.check_interpolation(key, value)
        if isinstance(value, str) and "${" in value and key.split(".")[0] not in needed:
            put(config, key, "unset")
    return check.check(config | {"modules": list(modules)}, modules)


def earlier_fingerprints(facts: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The fingerprints of the configuration in earlier versions, which checkpoints may also contain.

    Args:
        facts: the contents of ``run.json`` before this start; empty for a new run.
        config: the checked configuration with which the run resumes.

    Returns:
        The fingerprints. Empty if the options in ``run.json`` do not match the fingerprint in it, or if options
        that are not free differ from ``config``.
    """
    if not isinstance(facts.get("config"), dict):
        return ()
    version = facts.get("format", 0)
    free = _FREE.get(version, FREE) if isinstance(version, int) else FREE
    determined = {key: value for key, value in leaves(facts["config"]) if not identity.is_free(key, free)}
    if identity.digest(determined) != facts.get("fingerprint"):
        return ()
    modules = config.get("modules", ())
    if identity.determining(load(facts, modules, ())) != identity.determining(config):
        return ()
    earlier = facts.get("earlier_fingerprints")
    texts = [text for text in earlier if isinstance(text, str)] if isinstance(earlier, list) else []
    return (*texts, facts["fingerprint"])


def _named(node: Any, group: str, path: tuple[str, ...]) -> Any:
    """A node of format 0, with option names instead of the Python paths of this package."""
    if not isinstance(node, dict):
        return node
    inner = {key: _named(value, group, (*path, key)) for key, value in node.items() if key != "_partial_"}
    target = str(inner.get("_target_", ""))
    if not target.startswith("gan_cli."):
        return inner | ({"_partial_": node["_partial_"]} if "_partial_" in node else {})
    del inner["_target_"]
    name = _RENAMED.get(target, target.rpartition(".")[2])
    if group == "model":  # a gan_cli.models.Model with e.g. a gan_cli.models.mlp.Generator has the name mlp
        generator = node.get("generator")
        network = target if path else str(generator.get("_target_", "") if isinstance(generator, dict) else "")
        # A user's generator has no file in the group. All files of the group have the same target at their root,
        # so any file serves.
        name = network.split(".")[-2] if network.startswith("gan_cli.models.") else "mlp"
    return {CHOICE: name} | inner
