"""Reads configurations from run directories of this version or earlier versions of the program.

``run.json`` contains a format number. In format 1, the configuration contains names of choices. A ``run.json``
without a number has format 0, in which the configuration contains Python paths. The function ``_named`` translates
these paths. An option that did not exist when the run was started takes its default value from the signature of the
target or from ``gan_cli.config.schema``. This default reproduces the behaviour of the program before the option
existed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from gan_cli.config import check, identity, names
from gan_cli.config.schema import FREE, GROUP_MODULES, GROUPS
from gan_cli.storage.dotted import CHOICE, leaves, put

# For each format, the options that a resumed run may change. If FREE changes, the format gets a new number, and
# this dictionary keeps the old value of FREE for the earlier formats.
_FREE = {0: FREE, 1: FREE}
# For format 0: the names of choices that differ from the last component of the target's Python path. The keys are
# the Python paths.
_RENAMED = {
    "gan_cli.games.gan.GAN": "gan",
    "gan_cli.games.known.Quadratic": "quadratic",
    "gan_cli.metrics.modes.known_modes": "modes",
    "gan_cli.logger.csv_table": "csv",
}
# Groups that a configuration of format 0 may lack, and the values that replace the missing groups.
_LACKED = {"penalty": {}, "augment": {}, "metric": {}, "features": {CHOICE: "auto"}, "logger": {}}


def config_of(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run, with names of choices instead of Python paths.

    Args:
        facts: the contents of a ``run.json`` of any format.
    """
    config: dict[str, Any] = facts["config"]
    if config and facts.get("format", 0) == 0:
        named = {key: _named(value, key, ()) if key in GROUP_MODULES else value for key, value in config.items()}
        config = named | {key: value for key, value in _LACKED.items() if key not in named}
    return config


def load(
    facts: Mapping[str, Any], modules: Sequence[str], needed: Sequence[str] = (*GROUPS, "logger")
) -> dict[str, Any]:
    """The checked configuration of a run.

    Because ``run.json`` may come from an untrusted source, its contents are restricted:

    - The function imports a module that a target names only if the module is Optax or is listed in ``modules``.
      Other targets outside this package are refused.
    - An interpolation is accepted only if it reads an environment variable, and only in the options that
      ``gan_cli.config.schema.ENVIRONMENT`` lists.
    - Hydra does not compose the stored configuration.

    Args:
        facts: the contents of ``run.json``.
        modules: the user's Python modules. Their public functions and classes may be targets.
        needed: the groups from which the caller builds objects. In all other groups, values that contain an
            interpolation are replaced, so that the environment variables need not be defined.

    Raises:
        UserError: the configuration is not valid, or contains a target or an interpolation that is not allowed.
    """
    config = names.decode(copy.deepcopy(config_of(facts)))
    for key, value in list(leaves(config)):
        check.check_interpolation(key, value)
        if isinstance(value, str) and "${" in value and key.split(".")[0] not in needed:
            put(config, key, "unset")
    return check.check(config | {"modules": list(modules)}, modules)


def earlier_fingerprints(facts: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The fingerprints in ``run.json`` that this version accepts for the configuration.

    Earlier versions of the program may have computed these fingerprints and stored them in checkpoints.

    Args:
        facts: the contents of ``run.json`` before the run resumes, or an empty mapping for a new run.
        config: the checked configuration with which the run resumes.

    Returns:
        A tuple of fingerprints. The tuple is empty if the configuration in ``run.json`` does not match the
        fingerprint in ``run.json``, or if ``config`` changes an option that a resumed run may not change.
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
    """A copy of a node of format 0, in which names of choices replace the Python paths of this package.

    Args:
        node: the node, or the value of an option.
        group: the group that contains the node.
        path: the keys that lead from the group's node to ``node``.
    """
    if not isinstance(node, dict):
        return node
    inner = {key: _named(value, group, (*path, key)) for key, value in node.items() if key != "_partial_"}
    target = str(inner.get("_target_", ""))
    if not target.startswith("gan_cli."):
        return inner | ({"_partial_": node["_partial_"]} if "_partial_" in node else {})
    del inner["_target_"]
    name = _RENAMED.get(target, target.rpartition(".")[2])
    if group == "model":  # the name of a Model with the generator gan_cli.models.mlp.Generator is mlp
        generator = node.get("generator")
        network = target if path else str(generator.get("_target_", "") if isinstance(generator, dict) else "")
        # A user's generator has no file in the group. All files of the group have the same target at the top level,
        # so the name of any file can be stored.
        name = network.split(".")[-2] if network.startswith("gan_cli.models.") else "mlp"
    return {CHOICE: name} | inner
