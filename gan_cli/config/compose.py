"""Composes configurations with Hydra, and translates Hydra's errors into messages of a few lines.

Hydra composes the YAML files, completes shell commands, runs sweeps and writes the ``.hydra`` folder of a run. This
module registers the names of the groups, gives choices on the command line precedence over an experiment, and drops
the defaults of groups that the game does not use. It also creates a separate directory for each run.
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.basecontainer import BaseContainer
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from gan_cli.config.options import import_user_modules, options_of
from gan_cli.config.quoting import advice, grammatical, quoted
from gan_cli.config.schema import GAME_PARTS, GROUPS, Schema
from gan_cli.errors import UserError, nearest

CONFIG_MODULE, CONFIG_NAME = "gan_cli.configs", "config"
_SEARCHPATH = "hydra.searchpath="


def register() -> None:
    """Register the groups and the resolver ``gan_cli.run_id`` with Hydra.

    The function must be called before Hydra composes a configuration.
    """
    started = datetime.now()
    OmegaConf.register_new_resolver(
        "gan_cli.run_id", lambda name: name or started.strftime("%Y-%m-%d/%H-%M-%S"), replace=True
    )
    # The nodes of the groups accept any key, because Hydra would otherwise refuse `optim.discriminator.lr=...`.
    # gan_cli.config.check compares the keys with signatures, and its messages suggest the nearest option.
    root = OmegaConf.create({group: {} for group in (*GROUPS, "train", "card", "logger")})
    for group in root:
        root[group]._set_flag("struct", False)
    ConfigStore.instance().store(name="schema", node=root, provider="gan_cli")


@contextlib.contextmanager
def isolated() -> Iterator[None]:
    """A context manager in which Hydra and OmegaConf have the settings of this program.

    When the context ends, the calling program, which may use Hydra itself, finds Hydra and the resolvers of
    OmegaConf as they were.
    """
    instances, resolvers = Singleton._instances, dict(BaseContainer._resolvers)
    Plugins.instance()  # registers the sources of configuration files
    own: Any = {kind: instances[kind] for kind in (Plugins, SourcesRegistry)}
    store = copy.copy(ConfigStore.instance())
    store.repo = _nested_copy(store.repo)  # Hydra copies a node of it when it loads the node
    Singleton._instances = own | {ConfigStore: store}
    try:
        register()
        yield
    finally:
        Singleton._instances = instances
        BaseContainer._resolvers.clear()
        BaseContainer._resolvers.update(resolvers)


def _nested_copy(repository: dict[str, Any]) -> dict[str, Any]:
    return {name: _nested_copy(part) if isinstance(part, dict) else part for name, part in repository.items()}


@contextlib.contextmanager
def session() -> Iterator[Any]:
    """A context manager that yields Hydra, initialised with the shipped configurations, inside ``isolated``."""
    with isolated(), initialize_config_module(CONFIG_MODULE, version_base="1.3", job_name="gan-train"):
        yield GlobalHydra.instance().hydra


def search_path(config_dir: str | None) -> list[str]:
    """A list with the override that adds the folder ``config_dir`` to Hydra's search path.

    If ``config_dir`` is None, the list is empty.

    Raises:
        UserError: the folder does not exist.
    """
    if config_dir is None:
        return []
    if not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: the folder does not exist. Check the path.")
    return [f"{_SEARCHPATH}[{quoted(f'file://{Path(config_dir).resolve()}')}]"]


def compose(hydra: Any, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
    """The composed configuration, including the ``hydra`` node.

    If an override replaces the choice that an experiment makes in a group, the options that the experiment sets in
    this group do not apply. For example, with ``experiment=ring optim=sgd``, the experiment's options for Adam do
    not apply.

    A group that the game does not use is empty if ``config.yaml`` alone chooses its file, and no option of the
    group is set. For example, ``game=bilinear`` has no networks, although ``config.yaml`` chooses ``model: mlp``.
    ``gan_cli.config.check`` refuses all other choices and options of such a group.

    Raises:
        UserError: an override cannot be parsed, a choice or a key is unknown, or a file cannot be read.
    """

    def composed(overrides: Sequence[str]) -> DictConfig:
        try:
            config: DictConfig = hydra.compose_config(
                config_name=CONFIG_NAME, overrides=list(overrides), run_mode=mode, with_log_configuration=False
            )
        except (AssertionError, AttributeError) as error:  # OmegaConf cannot merge a group of keys into null
            raise UserError(
                "an override sets a group of keys where the configuration has null, e.g. hydra.sweeper.params. Set "
                "the group in a YAML file, or list the values of a sweep on the command line: seed=1,2."
            ) from error
        return config

    with translated(hydra, _config_dirs(overrides)):
        found, parsed = composed(overrides), parse(hydra, overrides)
        keys = dict(zip(overrides, (override.key_or_group for override in parsed), strict=True))
        choices = found.hydra.runtime.choices
        if idle := unused(found, parsed):
            requested = _requested(hydra, overrides, parsed, mode)
            default = composed([text for text, key in keys.items() if key == "hydra.searchpath"])
            for group in idle:
                if group not in requested and found[group] == default[group]:
                    found[group], choices[group] = {}, "none"
        if not choices.experiment:
            return found
        its = composed([text for text, key in keys.items() if key in ("experiment", "hydra.searchpath")])
        bare = None
        for group, chosen in _chosen(hydra, parsed).items():
            if group not in its:  # a group of Hydra, such as hydra/launcher
                continue
            # `choices` contains only the groups that take a single choice.
            if isinstance(its[group], DictConfig) and group not in its.hydra.runtime.choices:
                for name in its[group].keys() - chosen:
                    if not any(key.startswith(f"{group}.{name}.") for key in keys.values()):
                        found[group].pop(name, None)
            elif choices.get(group) != its.hydra.runtime.choices.get(group):
                bare = bare or composed([text for text, key in keys.items() if key != "experiment"])
                found[group] = bare[group]
        return found


def unused(composed: DictConfig, parsed: Sequence[Override]) -> list[str]:
    """The groups with a file or with options that the game of the composed configuration does not use.

    A run without data does not use the group ``sampler``.

    Args:
        composed: the composed configuration.
        parsed: the parsed command-line overrides, which may name the module of the game.
    """
    target = OmegaConf.select(composed, "game._target_")
    if not isinstance(target, str):  # gan_cli.config.check refuses this configuration
        return []
    uses = options_of(target, modules(parsed, composed)).positional
    found = [group for group, part in GAME_PARTS.items() if part not in uses and composed[group]]
    without_data = GAME_PARTS["dataset"] not in uses or not composed["dataset"]
    return [*found, "sampler"] if without_data and composed["sampler"] else found


def _requested(hydra: Any, overrides: Sequence[str], parsed: Sequence[Override], mode: RunMode) -> set[str]:
    """The groups of which the command line or an experiment file chooses a file or, on the command line, an option.

    A choice counts if it equals the choice of ``config.yaml`` too.
    """
    defaults = hydra.config_loader.compute_defaults_list(CONFIG_NAME, list(overrides), mode)
    return {*defaults.overrides.override_choices, *(override.key_or_group.split(".")[0] for override in parsed)}


def _chosen(hydra: Any, parsed: Sequence[Override]) -> dict[str, set[str]]:
    """A dictionary from each group on the command line, except ``experiment``, to the set of its chosen names."""
    found = {}
    for override in parsed:
        if override.package is None and override.key_or_group != "experiment" and is_group(hydra, override):
            value = override.value()
            found[override.key_or_group] = set(value) if isinstance(value, list) else {str(value)}
    return found


def ours(composed: DictConfig) -> DictConfig:
    """The composed configuration without the ``hydra`` node."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def parse(hydra: Any, overrides: Sequence[str]) -> list[Override]:
    """Parse command-line overrides with Hydra's grammar.

    Raises:
        UserError: an override cannot be parsed.
    """
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    parsed = []
    for override in overrides:
        try:
            parsed += parser.parse_overrides([override])
        except (HydraException, ValueError) as error:
            raise UserError(f"{override}: cannot be parsed. {advice(override)}") from error
    return parsed


def is_group(hydra: Any, override: Override) -> bool:
    """Whether an override chooses a file of a group (``optim=sgd``) instead of setting an option."""
    return bool(hydra.config_loader.repository.group_exists(override.key_or_group))


def modules(parsed: Sequence[Any], composed: Any) -> list[str]:
    """The names of the user's modules in the option ``modules``, which this function makes importable.

    Args:
        parsed: the parsed command-line overrides.
        composed: the composed configuration.

    Raises:
        UserError: ``modules`` is set in a configuration file instead of on the command line.
    """
    if composed.modules and not any(override.key_or_group == "modules" for override in parsed):
        raise UserError(
            f"modules={composed.modules}: can be set on the command line only. Remove modules from the "
            "configuration file, and add modules=[...] to the command."
        )
    # gan_cli.config.check refuses a value that is not a list.
    named = [str(module) for module in composed.modules] if OmegaConf.is_list(composed.modules) else []
    return import_user_modules(named)


@contextlib.contextmanager
def translated(hydra: Any = None, config_dirs: Sequence[Path] = ()) -> Iterator[None]:
    """Context manager that converts errors of Hydra and OmegaConf about user input into a UserError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(str(error), hydra, config_dirs)) from error
    except YAMLError as error:
        raise UserError(_explain_yaml(error)) from error
    except ValueError as error:
        if "override" not in str(error).lower():
            raise
        raise UserError(_explain(str(error), hydra, config_dirs)) from error


def _explain(message: str, hydra: Any, config_dirs: Sequence[Path]) -> str:
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if match := re.search(r"Could not (?:find|load) '(.+)/([^/']+)'", message):
        group, option = match.groups()
        choices = _choices(hydra, group, config_dirs)
        more = (
            "\nTo use optuna or submitit_slurm, run: pip install 'gan_cli[sweep]'"
            if group.startswith("hydra/")
            else ""
        )
        return f"{group}={option}: no such choice.{nearest(option, choices)}\nChoices: {', '.join(choices)}.{more}"
    if match := re.search(r"Could not override '([^']+)'", message):
        key = match.group(1)
        choices = list(Schema.__dataclass_fields__)
        return f"{key}: no such option.{nearest(key.split('.')[0], choices)}\nOptions: {', '.join(choices)}."
    if match := re.search(r"Error merging override (.*)|Interpolation key '.*' not found", message):
        what = match.group(1) or lines[0]
        return f"{what}: the interpolation cannot be resolved. Correct it, or choose a text without ${{."
    if "Config group override must be" in message:
        return "an override sets a group to null. Choose a file of the group instead, e.g. penalty=none."
    if match := re.search(
        r"mismatched input|no viable alternative|Error parsing override|token recognition", message
    ):
        quoted = re.search(r"override '([^']*)'", message)
        what = quoted.group(1) if quoted else lines[0]
        return f"{what}: cannot be parsed. {advice(what)}"
    return "\n".join(line for line in lines if not line.startswith(("provider=", "Config search path")))[:400]


def _choices(hydra: Any, group: str, config_dirs: Sequence[Path]) -> list[str]:
    """The names of the shipped choices of a group, and of the choices in the user's configuration folders."""
    if hydra is None:
        return []
    found = set(hydra.config_loader.get_group_options(group, ObjectType.CONFIG))
    found |= {file.stem for folder in config_dirs for file in (folder / group).glob("*.yaml")}
    return sorted(name for name in found if not name.startswith("_"))


def _config_dirs(overrides: Sequence[str]) -> list[Path]:
    """The user's configuration folders among the overrides, as ``search_path`` writes them."""
    parsed = [grammatical(override) for override in overrides if override.startswith(_SEARCHPATH)]
    lists = [override.value() for override in parsed if override is not None]
    return [Path(str(path).removeprefix("file://")) for paths in lists if isinstance(paths, list) for path in paths]


def _explain_yaml(error: YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{mark.name}, line {mark.line + 1}" if mark is not None else "a configuration file"
    return f"{where}: is not valid YAML ({getattr(error, 'problem', None) or error}). Correct the file."


def claim(directory: Path) -> Path:
    """Create a new directory, and return its path.

    If ``directory`` exists, the function tries ``directory-1``, ``directory-2`` and so on. Two processes never
    receive the same directory.

    Raises:
        UserError: ``directory`` and all 999 numbered variants of its name exist.
    """
    for number in range(1000):
        candidate = directory if number == 0 else directory.with_name(f"{directory.name}-{number}")
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            continue
    raise UserError(
        f"{directory}: this directory and 999 numbered variants of its name exist already. Set a name, e.g. "
        "name=digits."
    )
