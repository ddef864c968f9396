"""Configurations from run directories, of this version of the program and of earlier ones.

``run.json`` states its format. Format 1 stores option names; format 0 (it states none) stored Python paths, which
``_named`` translates. Options that an older run lacks take their defaults, which reproduce what it did: see
``gan_cli.config.schema`` and the signatures of what is configured.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from gan_cli.config import check, identity, names
from gan_cli.config.schema import FREE, GROUP_MODULES, GROUPS
from gan_cli.storage.dotted import CHOICE, leaves, put

# What determined a run's past in each format. Where FREE changes, today's becomes that of the format so far.
_FREE = {0: FREE, 1: FREE}
# Format 0: names that are not the last part of the path, which is the name of all other targets.
_RENAMED = {
    "gan_cli.games.gan.GAN": "gan",
    "gan_cli.games.known.Quadratic": "quadratic",
    "gan_cli.metrics.modes.known_modes": "modes",
    "gan_cli.logger.csv_table": "csv",
}
# Groups that runs of format 0 may lack.
_LACKED = {"penalty": {}, "augment": {}, "metric": {}, "features": {CHOICE: "auto"}, "logger": {}}


def config_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that ``run.json`` holds, with option names, whatever its format."""
    config = facts["config"]
    if config and facts.get("format", 0) == 0:
        named = {key: _named(value, key, ()) if key in GROUP_MODULES else value for key, value in config.items()}
        config = named | {key: value for key, value in _LACKED.items() if key not in named}
    return config


def load(
    facts: Mapping[str, Any], modules: Sequence[str], needed: Sequence[str] = (*GROUPS, "logger")
) -> dict[str, Any]:
    """The configuration that ``run.json`` holds, checked.

    It is data that may come from anywhere: nothing in it is composed or imported, and it interpolates nothing
    but environment variables where those are allowed.

    Args:
        needed: the groups that will be built; others need not find their environment variables.
    """
    config = names.decode(copy.deepcopy(config_of(facts)))
    for key, value in list(leaves(config)):
        check.check_interpolation(key, value)
        if isinstance(value, str) and "${" in value and key.split(".")[0] not in needed:
            put(config, key, "unset")
    return check.check(config | {"modules": list(modules)}, modules)


def earlier_fingerprints(facts: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """Fingerprints that checkpoints of a run may carry beside today's, since another version saved them.

    Args:
        facts: the run's ``run.json`` as it was found; empty of a new run.
        config: the checked configuration with which the run goes on.

    Returns:
        Nothing where ``run.json`` is not what its version wrote, or its run has another past than ``config``.
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
    known = [one for one in earlier if isinstance(one, str)] if isinstance(earlier, list) else []
    return (*known, facts["fingerprint"])


def _named(node: Any, group: str, path: tuple[str, ...]) -> Any:
    """A node of format 0 with option names in place of this package's paths."""
    if not isinstance(node, dict):
        return node
    inner = {key: _named(value, group, (*path, key)) for key, value in node.items() if key != "_partial_"}
    target = str(inner.get("_target_", ""))
    if not target.startswith("gan_cli."):
        return inner | ({"_partial_": node["_partial_"]} if "_partial_" in node else {})
    del inner["_target_"]
    name = _RENAMED.get(target, target.rpartition(".")[2])
    if group == "model":  # gan_cli.models.Model of gan_cli.models.mlp.Generator
        generator = node.get("generator")
        network = target if path else str(generator.get("_target_", "") if isinstance(generator, dict) else "")
        # A generator of the user's own has no file here; all files of the group share their root's target.
        name = network.split(".")[-2] if network.startswith("gan_cli.models.") else "mlp"
    return {CHOICE: name} | inner
