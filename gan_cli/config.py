"""The composed configuration: its schema, its checks, and the one place where it becomes objects.

Hydra composes YAML; ``check`` compares every key, type and range with the schema below and with the signature
of each ``_target_``; ``build`` instantiates what passed. Before ``build`` the configuration may change, after
it nothing does. Checking imports no JAX.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import types as pytypes
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_cli import signature
from gan_cli.errors import UserError, nearest
from gan_cli.types import Decay, NonNegativeInt, PositiveInt, Range, Seed

if TYPE_CHECKING:
    from gan_cli.data import Dataset
    from gan_cli.types import Game, Strategy

# A group's node is plain `_target_` and keyword arguments; these are the groups that have one.
GROUPS = ("game", "model", "loss", "penalty", "optim", "strategy", "dataset")

# Where a group's targets are defined: no other function of the package may be named there.
HOMES = {
    "game": "gan_cli.games",
    "model": "gan_cli.models",
    "loss": "gan_cli.losses",
    "penalty": "gan_cli.penalties",
    "optim": "gan_cli.optim",
    "strategy": "gan_cli.strategies",
    "dataset": "gan_cli.data",
    "logger": "gan_cli.logger",
}

# What may differ when a run is resumed. Everything else determines the past and is hashed.
FREE = frozenset(
    {
        "train.steps",
        "train.steps_per_call",
        "train.log_every",
        "train.sample_every",
        "train.checkpoint_every",
        "train.keep",
        "train.on_nan",
        "logger",
        "name",
        "resume",
        "dry_run",
        "modules",
        # Where the data lie, not what they are: the checkpoint holds a fingerprint of their content.
        "dataset.path",
        "dataset.data_dir",
        "dataset.on_error",
    }
)
# Where ${oc.env:...} may stand; it is stored unresolved, so that no secret lands in a run's directory.
ENVIRONMENT = ("logger", "dataset.path", "dataset.data_dir")


@dataclass(frozen=True)
class Train:
    """Options of ``train``: how long a run is and how often it reports. Cadences are in steps; 0 is never."""

    steps: PositiveInt
    batch_size: PositiveInt
    steps_per_call: PositiveInt
    log_every: PositiveInt
    sample_every: NonNegativeInt
    checkpoint_every: NonNegativeInt
    keep: PositiveInt
    ema: Decay
    on_nan: Literal["stop", "continue"]


@dataclass(frozen=True)
class Schema:
    """The root of the configuration. A node of ``_target_`` and options is checked against its signature."""

    game: dict[str, Any]
    model: dict[str, Any] | None
    loss: dict[str, Any] | None
    penalty: dict[str, Any]
    optim: dict[str, Any]
    strategy: dict[str, Any]
    dataset: dict[str, Any] | None
    train: Train
    logger: dict[str, Any]
    seed: Seed
    name: str | None
    resume: str | None
    dry_run: bool
    modules: list[str]


@dataclass(frozen=True)
class Experiment:
    """Everything that a run needs, as objects that no longer change."""

    config: dict[str, Any]
    game: Game
    strategy: Strategy
    optimisers: dict[str, Any]
    dataset: Dataset | None
    train: Train
    loggers: dict[str, Any]
    seed: int

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.config)


# ------------------------------------------------------------------------------------------------ checking


def check(tree: Mapping[str, Any], modules: Sequence[str] = ()) -> dict[str, Any]:
    """The configuration as a plain dictionary, complete, with every value of its declared type.

    Args:
        tree: the composed configuration, without Hydra's own node.
        modules: further modules that ``_target_`` may name, from the command line.

    Raises:
        UserError: an unknown key, a missing value, a wrong type or range, a combination that cannot run.
    """
    config = _section(resolve(tree), Schema, "", modules)
    for group in ("game", "optim", "strategy"):
        if not config[group]:
            raise UserError(f"{group} is empty: choose one, e.g. {group}=...")
    config["train"] = _section(config["train"], Train, "train", modules)
    for group in (*GROUPS, "logger"):
        if config[group]:
            config[group] = _node(config[group], group, modules)
    _check_needs(config, modules)
    _check_cadences(config["train"])
    for node in (config["optim"], *config["optim"].values()):
        if isinstance(node, dict) and node.get("decay_steps", 0) is None:
            node["decay_steps"] = config["train"]["steps"]
    return config


def resolve(tree: Any) -> dict[str, Any]:
    """``tree`` without interpolations, except ``${oc.env:...}`` where that is allowed."""
    node = tree if OmegaConf.is_config(tree) else OmegaConf.create(dict(tree))
    raw = OmegaConf.to_container(node, resolve=False)
    try:
        resolved = OmegaConf.to_container(node, resolve=True)
    except OmegaConfBaseException as error:
        lines = str(error).strip().splitlines()
        raise UserError(f"{error.full_key or 'config'}: {lines[0]}") from error
    for key, value in _leaves(raw):
        text = json.dumps(value)
        if "oc.env" in text and "${" in text:
            if not (isinstance(value, str) and key.startswith(ENVIRONMENT)):
                raise UserError(f"{key}={value}: ${{oc.env:...}} is allowed in {', '.join(ENVIRONMENT)} only.")
            _put(resolved, key, value)
    return typing.cast(dict[str, Any], resolved)


def stored(config: dict[str, Any], modules: Sequence[str]) -> dict[str, Any]:
    """A configuration from a run's directory, checked.

    It is data that may come from anywhere: nothing in it is composed or imported, and it interpolates nothing
    but environment variables where those are allowed.
    """
    for key, value in _leaves(config):
        _check_interpolation(key, value)
    return check(config | {"modules": list(modules)}, modules)


def _check_interpolation(key: str, value: Any) -> None:
    text = json.dumps(value)
    if "${" in text:
        resolvers = set(re.findall(r"\$\{([^:}]*)", text))
        if not (isinstance(value, str) and key.startswith(ENVIRONMENT) and resolvers == {"oc.env"}):
            raise UserError(f"{key}={value}: an interpolation is not allowed here.")


def from_environment(config: dict[str, Any]) -> dict[str, Any]:
    """``config`` with its ``${oc.env:...}`` filled in; any other interpolation is refused.

    A stored configuration is data from a directory that may come from anywhere: only the places that may name
    an environment variable are read as more than text.
    """
    filled = copy.deepcopy(config)
    for key, value in _leaves(config):
        if isinstance(value, str) and "${" in value:
            _check_interpolation(key, value)
            try:
                _put(filled, key, OmegaConf.to_container(OmegaConf.create([value]), resolve=True)[0])  # type: ignore[index]
            except OmegaConfBaseException as error:
                raise UserError(f"{key}={value}: {str(error).splitlines()[0]}") from error
    return filled


def _section(tree: Mapping[str, Any], schema: type, prefix: str, modules: Sequence[str]) -> dict[str, Any]:
    hints = typing.get_type_hints(schema, include_extras=True)
    options = {field.name: signature.Parameter(hints[field.name], True) for field in fields(schema)}
    return _options(tree, options, prefix)


def _options(tree: Mapping[str, Any], options: Mapping[str, signature.Parameter], prefix: str) -> dict[str, Any]:
    """``tree`` with every value converted to the annotation of the option of its name."""
    dot = f"{prefix}." if prefix else ""
    for key in tree:
        if key not in options:
            choices = ", ".join(sorted(options)) or "none"
            raise UserError(f"{dot}{key}: no such option.{nearest(str(key), options)}\nOptions here: {choices}.")
    checked = {}
    for key, option in options.items():
        if key in tree:
            checked[key] = _checked(tree[key], option.annotation, f"{dot}{key}")
        elif option.required:
            raise UserError(f"{dot}{key}: a value is needed.")
    return checked


def _checked(value: Any, annotation: Any, key: str) -> Any:
    if isinstance(value, str) and value == "???":
        raise UserError(f"{key}: a value is needed, e.g. {key}=...")
    if isinstance(value, str) and "${" in value and key.startswith(ENVIRONMENT):
        return value
    try:
        return convert(value, annotation)
    except ValueError as error:
        shown = "null" if value is None else value
        raise UserError(f"{key}={shown}: {str(error).removesuffix('.')}.".replace("?.", "?")) from None


def convert(value: Any, annotation: Any) -> Any:
    """``value`` as what ``annotation`` asks for (1e4 is a whole number; 1 is a float; "1" is neither).

    Raises:
        ValueError: it is not; the message says what it must be.
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
            raise ValueError(
                f"must be one of {', '.join(choices)}{nearest(str(value), choices).replace(' Did', '. Did')}"
            )
        return value
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
    """A checked copy of a group's node: itself a ``_target_``, or a mapping of names to such nodes."""
    target = node.get("_target_")
    if target is None:
        for name, child in node.items():
            if not isinstance(child, dict) or "_target_" not in child:
                raise UserError(f"{key}.{name}: is not among the choices made. Choose it first: {key}=[{name}]")
        return {name: _node(child, f"{key}.{name}", modules) for name, child in node.items()}
    home = HOMES[key.split(".")[0]]
    if str(target).startswith("gan_cli.") and not str(target).startswith((f"{home}.",)):
        raise UserError(f"{key}._target_={target}: a target of this group is defined in {home}.")
    options = signature.read(str(target), modules).options
    special = {name: node[name] for name in ("_target_", "_partial_") if name in node}
    rest = {name: value for name, value in node.items() if name not in special}
    # A player's own options stand beside the common ones: optim.discriminator.lr beside optim.lr.
    players = {name: rest.pop(name) for name in list(rest) if key == "optim" and isinstance(rest[name], dict)}
    checked = special | _options(rest, options, key)
    for name, value in checked.items():
        checked[name] = _nested(value, f"{key}.{name}", modules)
    for player, own in players.items():
        whole = _node(player_node(node, player), f"{key}.{player}", modules)
        checked[player] = {name: whole[name] for name in own}
    return checked


def _nested(value: Any, key: str, modules: Sequence[str]) -> Any:
    """A checked copy of an option's value: wherever in it, Hydra would act on a ``_target_``."""
    if isinstance(value, list):
        return [_nested(item, key, modules) for item in value]
    if not isinstance(value, dict):
        return value
    if "_target_" in value:
        return _node(value, key, modules)
    for name in value:
        if str(name).startswith("_"):
            raise UserError(f"{key}.{name}: no such option.")
    return {name: _nested(item, f"{key}.{name}", modules) for name, item in value.items()}


def player_node(optim: Mapping[str, Any], player: str) -> dict[str, Any]:
    """The optimiser of one player: the common options with the player's own laid over them.

    A player whose own options name another ``_target_`` takes nothing from the common ones.
    """
    own = optim.get(player) or {}
    if "_target_" in own:
        return dict(own)
    return {name: value for name, value in optim.items() if not isinstance(value, dict)} | dict(own)


def _check_needs(config: Mapping[str, Any], modules: Sequence[str]) -> None:
    """A game gets what it takes, and nothing is given that would be ignored."""
    needs = signature.read(config["game"]["_target_"], modules).positional
    for group, part in (("model", "model"), ("loss", "loss"), ("penalty", "penalties"), ("dataset", "spec")):
        if part in needs and group != "penalty" and not config[group]:
            raise UserError(f"{group} is missing: game={config['game']['_target_']} needs one.")
        if part not in needs and config[group]:
            empty = "none" if group == "penalty" else f"none (or `override /{group}: none` in an experiment)"
            raise UserError(f"{group} is set, but this game takes none: {group}={empty}.")


def _check_cadences(train: Mapping[str, Any]) -> None:
    for cadence in ("log_every", "sample_every", "checkpoint_every"):
        if train[cadence] % train["steps_per_call"]:
            raise UserError(
                f"train.{cadence}={train[cadence]}: must be a multiple of train.steps_per_call="
                f"{train['steps_per_call']}, the steps that one call of the compiled program makes."
            )


# ------------------------------------------------------------------------------------------ fingerprints


def determining(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options that determine a run's past, flat, by dotted key."""
    return {key: value for key, value in _leaves(config) if not is_free(key)}


def free_leaves(config: Mapping[str, Any]) -> list[str]:
    """The dotted keys of ``config`` that may differ when a run is resumed."""
    return [key for key, _ in _leaves(config) if is_free(key)]


def is_free(key: str) -> bool:
    """Whether ``key`` (or its group) may differ when a run is resumed."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE)


def fingerprint(config: Mapping[str, Any]) -> str:
    """A SHA-256 of the options that determine a run's past."""
    return hashlib.sha256(json.dumps(determining(config), sort_keys=True).encode()).hexdigest()


def _leaves(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of everything that is not a non-empty mapping."""
    for key, value in tree.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{dotted}.")
        else:
            yield dotted, value


def _put(tree: Any, key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        tree = tree[part]
    tree[last] = value


# ---------------------------------------------------------------------------------------------- building


def _instantiate(nodes: dict[str, Any]) -> dict[str, Any]:
    from hydra.errors import HydraException
    from hydra.utils import instantiate

    try:
        return instantiate(nodes, _convert_="all")
    except HydraException as error:
        cause = error.__cause__
        raise cause if isinstance(cause, UserError) else error from None


def build(config: dict[str, Any]) -> Experiment:
    """The objects that a checked configuration describes, the data set loaded. Compiles nothing.

    Raises:
        UserError: options that contradict each other or the data, or a data set that cannot be had.
    """
    filled = from_environment(config)
    nodes = {group: filled[group] or None for group in (*GROUPS, "logger") if group != "optim"}
    needs = signature.read(filled["game"]["_target_"], filled["modules"]).positional
    parts = _instantiate(nodes)

    penalties = parts["penalty"] or {}
    dataset = parts["dataset"]
    available = {"model": parts["model"], "loss": parts["loss"], "penalties": penalties}
    available["spec"] = dataset.spec if dataset else None
    game = parts["game"](*(available[need] for need in needs)) if needs else parts["game"]
    named = [name for name, value in filled["optim"].items() if isinstance(value, dict)]
    for player in named:
        if player not in game.players:
            near = nearest(player, game.players)
            raise UserError(f"optim.{player}: no such player or option.{near} Players: {', '.join(game.players)}.")
    # Schedules are told in steps; a player that makes several moves a step counts that many times faster.
    moves = dict.fromkeys(game.players, filled["strategy"].get("n_critic", 1)) | {game.players[-1]: 1}
    optim = {player: player_node(filled["optim"], player) for player in game.players}
    for player, node in optim.items():
        for length in {"decay_steps", "warmup_steps"} & node.keys():
            node[length] *= moves[player]
    optimisers = _instantiate(optim)
    train = Train(**filled["train"])
    strategy = parts["strategy"](game, optimisers)
    if dataset and dataset.size < train.batch_size:
        raise UserError(
            f"train.batch_size={train.batch_size}: larger than the data set, which has {dataset.size} examples."
        )
    return Experiment(config, game, strategy, optimisers, dataset, train, parts["logger"] or {}, filled["seed"])
