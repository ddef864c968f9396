"""Checks every key, type and range of a composed configuration.

``gan_cli.config.schema`` and the signatures of the targets declare the valid keys, types and ranges. Hydra composes
a configuration before the check, and ``gan_cli.config.build`` builds the objects after the check. This module does
not import JAX.
"""

from __future__ import annotations

import copy
import json
import math
import re
import types as pytypes
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_cli.config.ensemble import members
from gan_cli.config.options import UNKNOWN, Parameter, options_of
from gan_cli.config.schema import ENVIRONMENT, GAME_PARTS, GROUP_MODULES, GROUPS, Card, Schema, Train
from gan_cli.errors import UserError, nearest
from gan_cli.storage.dotted import leaves, put
from gan_cli.types import Range

_SAMPLER = {"_target_": "gan_cli.data.samplers.shuffled", "_partial_": True}  # of runs that name no sampler
_LISTS = ("penalty", "augment", "metric", "logger")  # groups in which several choices can be combined


def check(tree: Mapping[str, Any], modules: Sequence[str] = ()) -> dict[str, Any]:
    """Check a composed configuration, and return it as a dictionary with default values filled in.

    Every value in the returned dictionary has the declared type of its option.

    Args:
        tree: the composed configuration, without the ``hydra`` node.
        modules: the user's Python modules. Their public functions and classes may be targets.

    Raises:
        UserError: a key is unknown; a value is missing, has a wrong type or is out of range; a target is not
            allowed; or options contradict each other.
    """
    config = _section(resolve(tree), Schema, "", modules)
    examples = {"game": "gan", "optim": "adam", "strategy": "alternating", "estimator": "mean", "features": "auto"}
    for group, example in examples.items():
        if not config[group]:
            raise UserError(f"{group}: every run needs a choice of this group. Set one, e.g. {group}={example}.")
    config["train"] = _section(config["train"], Train, "train", modules)
    config["card"] = _section(config["card"], Card, "card", modules)
    if config["dataset"] and not config["sampler"]:
        config["sampler"] = dict(_SAMPLER)
    for group in (*GROUPS, "logger"):
        if config[group]:
            config[group] = _node(config[group], group, modules)
    _check_needs(config, modules)
    _check_sampler(config)
    _check_cadences(config["train"], bool(config["metric"]))
    _check_evaluation(config)
    if config["train"]["ensemble"] is not None and config["train"]["devices"] != 1:
        raise UserError(
            "train.ensemble: an ensemble does not split its batches. Set train.devices=1, or train the members as "
            "jobs of a sweep, e.g. --multirun seed=0,1."
        )
    for node in (config["optim"], *config["optim"].values(), *config["penalty"].values()):
        if isinstance(node, dict) and node.get("decay_steps", 0) is None:
            node["decay_steps"] = config["train"]["steps"]
    if config["init_from"] is None and config["init_parts"] != Schema.init_parts:
        raise UserError(f"init_parts={config['init_parts']}: needs init_from=DIR, the directory of another run.")
    for _, member in members(config):
        check(member, modules)
    return config


def resolve(tree: Any) -> dict[str, Any]:
    """A dictionary with the values of ``tree``, in which interpolations are resolved.

    In the options of ``ENVIRONMENT``, ``${oc.env:...}`` is not resolved.

    Raises:
        UserError: an interpolation cannot be resolved, or another option contains ``${oc.env:...}``.
    """
    node = tree if OmegaConf.is_config(tree) else OmegaConf.create(dict(tree))
    raw = OmegaConf.to_container(node, resolve=False)
    try:
        resolved = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        lines = str(error).strip().splitlines()
        raise UserError(
            f"{error.full_key or 'config'}: {lines[0]}. Correct the interpolation, or set the environment "
            "variable that it reads."
        ) from error
    for key, value in leaves(raw):
        text = json.dumps(value)
        if "oc.env" in text and "${" in text:
            if not (isinstance(value, str) and key.startswith(ENVIRONMENT)):
                raise UserError(
                    f"{key}={value}: ${{oc.env:...}} is allowed in {', '.join(ENVIRONMENT)} only. Replace the "
                    "interpolation with the value of the environment variable."
                )
            put(resolved, key, value)
    return typing.cast(dict[str, Any], resolved)


def check_interpolation(key: str, value: Any) -> None:
    """Raise a UserError if the value of the option ``key`` contains an interpolation that is not allowed.

    Only ``${oc.env:...}`` is allowed, and only in the options of ``ENVIRONMENT``.
    """
    text = json.dumps(value)
    if "${" in text:
        resolvers = set(re.findall(r"\$\{([^:}]*)", text))
        if not key.startswith(ENVIRONMENT):
            raise UserError(
                f"{key}={value}: this option cannot contain an interpolation. Replace ${{...}} with a value. "
                f"Interpolations are allowed in {', '.join(ENVIRONMENT)} only."
            )
        if not (isinstance(value, str) and resolvers == {"oc.env"}):
            raise UserError(
                f"{key}={value}: the only interpolation that this option can contain is ${{oc.env:NAME}}, which "
                "reads an environment variable. Replace every other ${...} with a value."
            )


def from_environment(config: dict[str, Any]) -> dict[str, Any]:
    """A copy of ``config`` in which the values of environment variables replace ``${oc.env:...}``.

    Raises:
        UserError: an environment variable is not set, or ``config`` contains an interpolation of another kind.
            Such an interpolation is not evaluated, because a stored configuration may come from an untrusted
            source.
    """
    filled = copy.deepcopy(config)
    for key, value in leaves(config):
        if isinstance(value, str) and "${" in value:
            check_interpolation(key, value)
            try:
                put(filled, key, OmegaConf.to_container(OmegaConf.create([value]), resolve=True)[0])  # type: ignore[index]
            except OmegaConfBaseException as error:
                raise UserError(
                    f"{key}={value}: {str(error).splitlines()[0]}. Set the environment variable."
                ) from error
    return filled


def _section(tree: Mapping[str, Any], schema: type, prefix: str, modules: Sequence[str]) -> dict[str, Any]:
    hints = typing.get_type_hints(schema, include_extras=True)
    options = {}
    for field in fields(schema):
        default = field.default if field.default_factory is MISSING else field.default_factory()
        own = () if default is MISSING else (default,)
        options[field.name] = Parameter(hints[field.name], not own, *own)
    return _options(tree, options, prefix)


def _options(tree: Mapping[str, Any], options: Mapping[str, Parameter], prefix: str) -> dict[str, Any]:
    """A dictionary from the name of each option to its value in ``tree``, converted, or to its default value."""
    dot = f"{prefix}." if prefix else ""
    for key in tree:
        if key not in options:
            choices = ", ".join(sorted(options)) or "none"
            raise UserError(f"{dot}{key}: no such option.{nearest(str(key), options)}\nOptions: {choices}.")
    checked = {}
    for key, option in options.items():
        if key in tree:
            checked[key] = _checked(tree[key], option.annotation, f"{dot}{key}")
        elif option.required:
            raise UserError(f"{dot}{key}: a value is needed. Set {dot}{key}=VALUE.")
        elif option.default is not UNKNOWN:
            checked[key] = copy.deepcopy(option.default)
    return checked


def with_defaults(node: Any, modules: Sequence[str] = ()) -> Any:
    """A copy of ``node`` with the default values that ``check`` would fill in. The values are not checked."""
    if not isinstance(node, Mapping):
        return node
    filled = {key: with_defaults(value, modules) for key, value in node.items()}
    if "_target_" not in node:
        return filled
    options = options_of(str(node["_target_"]), modules).options.items()
    return filled | {name: o.default for name, o in options if name not in filled and o.default is not UNKNOWN}


def _checked(value: Any, annotation: Any, key: str) -> Any:
    if isinstance(value, str) and value == "???":
        raise UserError(f"{key}: a value is needed. Set {key}=VALUE.")
    if isinstance(value, str) and "${" in value and key.startswith(ENVIRONMENT):
        return value
    optional = typing.get_origin(annotation) in (typing.Union, pytypes.UnionType) and value is not None
    kinds = typing.get_args(annotation) if optional else (annotation,)
    is_function = any(typing.get_origin(kind) is Callable for kind in kinds)
    if is_function and not (isinstance(value, Mapping) and "_target_" in value):
        group = key.split(".")[0]
        raise UserError(
            f"{key}={'null' if value is None else value}: this option takes a choice of the group {group}, not a "
            f"value. Set {group}@{key}=CHOICE, or choose another {group}=CHOICE."
        )
    try:
        return convert(value, annotation)
    except ValueError as error:
        shown = "null" if value is None else value
        raise UserError(f"{key}={shown}: {str(error).removesuffix('.')}.".replace("?.", "?")) from None


def convert(value: Any, annotation: Any) -> Any:
    """``value`` converted to the type that ``annotation`` declares.

    If a whole number is declared, the float 1e4 is converted to 10000. If a float is declared, the whole number 1
    is converted to 1.0. The text "1" is never converted to a number.

    Raises:
        ValueError: the value cannot be converted, or is out of range. The message begins with "must be".
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is Any:
        return value
    if origin is Annotated:
        value = convert(value, args[0])
        for constraint in args[1:]:
            if isinstance(constraint, Range) and (problem := constraint.problem(value)):
                raise ValueError(problem)
        return value
    if origin in (typing.Union, pytypes.UnionType):
        problems = []
        if isinstance(value, list | tuple):  # the message then states only the problem with this list
            args = tuple(arg for arg in args if typing.get_origin(arg) in (list, tuple, Sequence)) or args
        for option in args:
            if option is type(None):
                if value is None:
                    return None
                continue
            try:
                return convert(value, option)
            except ValueError as error:
                problems.append(str(error))
        raise ValueError(" or ".join(problems) + (" or null" if type(None) in args else ""))
    if origin is Literal:
        if value not in args:
            choices = [str(arg) for arg in args]
            near = nearest(str(value), choices).replace(" Did", ". Did")
            raise ValueError(f"must be {'one of ' * (len(choices) > 1)}{', '.join(choices)}{near}")
        return value
    if origin is tuple and Ellipsis not in args:
        if not isinstance(value, list | tuple) or len(value) != len(args):
            raise ValueError(f"must be a list of {len(args)} values")
        return [convert(item, kind) for item, kind in zip(value, args, strict=True)]
    if origin in (list, tuple, Sequence):
        if not isinstance(value, list | tuple):
            raise ValueError("must be a list, e.g. [a,b]")
        return [convert(item, args[0]) for item in value]
    return _convert_scalar(value, origin or annotation)


def _convert_scalar(value: Any, kind: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int and number and math.isfinite(value) and value == int(value):
        return int(value)
    if kind is float and number and math.isfinite(value):
        return float(value)
    if kind is str and isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    if kind in (bool, dict) and isinstance(value, kind):
        return value
    if kind in (int, float, str, bool, dict):
        words = {int: "a whole number", float: "a finite number", str: "text", bool: "true or false"}
        raise ValueError(f"must be {words.get(kind, 'a group of options')}")
    return value


def _node(node: dict[str, Any], key: str, modules: Sequence[str]) -> dict[str, Any]:
    """A checked copy of the configuration node of a group, a player or a nested option.

    Either the node contains a ``_target_``, or it maps names of choices to nodes that contain a ``_target_``.
    """
    target = node.get("_target_")
    if target is None:
        for name, child in node.items():
            if not isinstance(child, dict) or "_target_" not in child:
                if key not in _LISTS:
                    raise UserError(
                        f"{key}.{name}: no choice of the group {key} is set, so the group has no options. Set "
                        f"{key}=CHOICE, or leave out {key}.{name}."
                    )
                chosen = [other for other, node_ in node.items() if isinstance(node_, dict) and "_target_" in node_]
                raise UserError(
                    f"{key}.{name}: the choices of the group {key} do not include {name}. Add {name} to the "
                    f"choices: {key}=[{','.join([*chosen, name])}]."
                )
        return {name: _node(child, f"{key}.{name}", modules) for name, child in node.items()}
    home = GROUP_MODULES[key.split(".")[0]]
    # The longest match, because the module of a group may contain the module of another, as data and data.samplers.
    homes = [module for module in GROUP_MODULES.values() if str(target).startswith(f"{module}.")]
    if str(target).startswith("gan_cli.") and max(homes, key=len, default="") != home:
        raise UserError(
            f"{key}._target_={target}: not allowed. Choose a public function or class of {home}, which defines the "
            "targets of this group."
        )
    options = options_of(str(target), modules).options
    special = {name: node[name] for name in ("_target_", "_partial_") if name in node}
    rest = {name: value for name, value in node.items() if name not in special}
    # The options of one player (optim.discriminator.lr) are siblings of the common options (optim.lr).
    players = {name: rest.pop(name) for name in list(rest) if key == "optim" and isinstance(rest[name], dict)}
    checked = special | _options(rest, options, key)
    for name, value in checked.items():
        checked[name] = _nested(value, f"{key}.{name}", modules)
    for player, own in players.items():
        whole = _node(player_node(node, player), f"{key}.{player}", modules)
        checked[player] = {name: whole[name] for name in own}
    return checked


def _nested(value: Any, key: str, modules: Sequence[str]) -> Any:
    """A checked copy of an option's value, which may contain nodes with a ``_target_`` at any depth."""
    if isinstance(value, list):
        return [_nested(item, key, modules) for item in value]
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _node(value, key, modules)
    for name in value:
        if str(name).startswith("_"):
            raise UserError(
                f"{key}.{name}: names that begin with an underscore are reserved. Rename the entry, e.g. "
                f"{key}.{str(name).strip('_') or 'entry'}."
            )
    return {name: _nested(item, f"{key}.{name}", modules) for name, item in value.items()}


def player_node(optim: Mapping[str, Any], player: str) -> dict[str, Any]:
    """The node that configures the optimiser of one player.

    The options of the player (``optim.discriminator.lr``) override the common options (``optim.lr``). If the
    options of the player include a ``_target_``, the common options do not apply.
    """
    own = optim.get(player) or {}
    if "_target_" in own:
        return dict(own)
    return {name: value for name, value in optim.items() if not isinstance(value, dict)} | dict(own)


def unused_group(group: str) -> UserError:
    """The error that the game does not use a group of which the user has chosen a file or set an option."""
    return UserError(
        f"{group}: this game does not use the group {group}. Leave out the choice and the options of the group, or "
        f"set {group}=none if a configuration file chooses it."
    )


def _check_needs(config: Mapping[str, Any], modules: Sequence[str]) -> None:
    """Raise a UserError unless the groups and the precision that are set are compatible with the game.

    A group that the game needs must be set, and a group that the game does not use must not be set.
    ``gan_cli.config.compose`` has dropped the defaults of groups that the game does not use.
    """
    needs = options_of(config["game"]["_target_"], modules).positional
    for group, part in GAME_PARTS.items():
        several = group in ("penalty", "augment")
        if part in needs and not several and not config[group]:
            raise UserError(f"{group}: this game needs a {group}, and none is set. Set {group}=CHOICE.")
        if part not in needs and config[group]:
            raise unused_group(group)
    if "precision" not in needs and config["train"]["precision"] != "float32":
        raise UserError(
            f"train.precision={config['train']['precision']}: this game computes in float32 only. "
            "Set train.precision=float32."
        )


def _check_sampler(config: dict[str, Any]) -> None:
    """Raise a UserError if a run without data has a sampler, and remove the default sampler of such a run."""
    if not config["dataset"]:
        target = str((config["sampler"] or _SAMPLER)["_target_"])
        if target != _SAMPLER["_target_"]:
            raise UserError(
                f"sampler={target.rpartition('.')[2]}: a sampler selects examples of the data, and this run has no "
                "data. Leave out the sampler."
            )
        config["sampler"] = {}


def _check_cadences(train: Mapping[str, Any], evaluates: bool) -> None:
    cadences = ("log_every", "sample_every", "checkpoint_every")
    for cadence in (*cadences, "eval_every") if evaluates else cadences:
        if train[cadence] % train["steps_per_call"]:
            raise UserError(
                f"train.{cadence}={train[cadence]}: must be a multiple of train.steps_per_call="
                f"{train['steps_per_call']}, the number of steps in one call of the compiled program, e.g. "
                f"train.{cadence}={math.ceil(train[cadence] / train['steps_per_call']) * train['steps_per_call']}."
            )


def _check_evaluation(config: Mapping[str, Any]) -> None:
    """Raise a UserError if metrics are set without data, or ``objective`` or ``patience`` without metrics."""
    if config["metric"] and not config["dataset"]:
        raise UserError("metric: metrics compare samples with data, and this run has no data. Set metric=none.")
    for key, unset in (("objective", None), ("patience", 0)):
        if config["train"][key] != unset and not config["metric"]:
            raise UserError(f"train.{key}={config['train'][key]}: needs a metric. Set one, e.g. metric=[fid].")
