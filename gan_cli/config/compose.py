"""Composes configurations with Hydra, and translates Hydra's errors into messages of a few lines.

Hydra composes the YAML files, completes shell commands, runs sweeps and writes the ``.hydra`` folder of a run. This
module adds the schema, the precedence of the command line over an experiment, and directories that no two runs
share.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hydra import initialize_config_module
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gan_cli.config.options import import_user_modules
from gan_cli.config.schema import GROUPS, Schema
from gan_cli.errors import UserError, nearest

CONFIG_MODULE, CONFIG_NAME = "gan_cli.configs", "config"


def register() -> None:
    """Register the schema and the resolver of run names with Hydra, before it composes a configuration."""
    started = datetime.now()
    OmegaConf.register_new_resolver(
        "gan_cli.run_id", lambda name: name or started.strftime("%Y-%m-%d/%H-%M-%S"), replace=True
    )
    # The nodes of the groups accept any key. gan_cli.config.check compares the keys with signatures, and its
    # messages name the nearest option. Hydra's own check would refuse `optim.discriminator.lr=...`.
    root = OmegaConf.create({group: {} for group in (*GROUPS, "train", "logger")})
    for group in root:
        root[group]._set_flag("struct", False)
    ConfigStore.instance().store(name="schema", node=root, provider="gan_cli")


@contextlib.contextmanager
def session() -> Iterator[Any]:
    """A context manager that yields Hydra, initialised with the shipped configurations.

    At the end, it restores the state of an outer Hydra program.
    """
    register()
    state = GlobalHydra.instance()
    outer = state.hydra
    state.clear()
    try:
        with initialize_config_module(CONFIG_MODULE, version_base="1.3", job_name="gan-train"):
            assert state.hydra is not None
            yield state.hydra
    finally:
        if outer is not None:
            state.clear()
            state.initialize(outer)


def search_path(config_dir: str | None) -> list[str]:
    """The override that adds the user's configuration folder to Hydra's search path; empty without a folder."""
    if config_dir is None:
        return []
    if not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: the folder does not exist. Check the path.")
    return [f"hydra.searchpath=['file://{Path(config_dir).resolve()}']"]


def compose(hydra: Any, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
    """The composed configuration, including the ``hydra`` node.

    If the overrides replace a choice of an experiment, the options that the experiment sets in that group do not
    apply. For example, ``experiment=ring optim=sgd`` does not use the experiment's options of Adam.

    Raises:
        UserError: an override cannot be parsed, a choice or a key is unknown, or a file cannot be read.
    """

    def composed(overrides: Sequence[str]) -> DictConfig:
        config: DictConfig = hydra.compose_config(
            config_name=CONFIG_NAME, overrides=list(overrides), run_mode=mode, with_log_configuration=False
        )
        return config

    with translated(hydra):
        found = composed(overrides)
        choices = found.hydra.runtime.choices
        if not choices.experiment:
            return found
        parsed = parse(hydra, overrides)
        keys = dict(zip(overrides, (override.key_or_group for override in parsed), strict=True))
        its = composed([text for text, key in keys.items() if key in ("experiment", "hydra.searchpath")])
        bare = None
        for group, chosen in _chosen(hydra, parsed).items():
            if group not in its:  # a group of Hydra, such as hydra/launcher
                continue
            # A group that takes a list of choices is not in `choices`.
            if isinstance(its[group], DictConfig) and group not in its.hydra.runtime.choices:
                for name in its[group].keys() - chosen:
                    if not any(key.startswith(f"{group}.{name}.") for key in keys.values()):
                        found[group].pop(name, None)
            elif choices.get(group) != its.hydra.runtime.choices.get(group):
                bare = bare or composed([text for text, key in keys.items() if key != "experiment"])
                found[group] = bare[group]
        return found


def _chosen(hydra: Any, parsed: Sequence[Override]) -> dict[str, set[str]]:
    """The choices that the command line makes in each group except ``experiment``."""
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
    """Parse overrides with Hydra's grammar.

    Raises:
        UserError: an override cannot be parsed.
    """
    parser = OverridesParser.create(config_loader=hydra.config_loader)
    parsed = []
    for override in overrides:
        try:
            parsed += parser.parse_overrides([override])
        except (HydraException, ValueError) as error:
            raise UserError(
                f"{override}: cannot be parsed. Write KEY=VALUE, and quote characters that the shell interprets."
            ) from error
    return parsed


def is_group(hydra: Any, override: Override) -> bool:
    """Whether the override chooses a file of a group (``optim=sgd``) instead of setting an option."""
    return bool(hydra.config_loader.repository.group_exists(override.key_or_group))


def modules(parsed: Sequence[Any], composed: Any) -> list[str]:
    """The user's modules from the option ``modules``, made importable.

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
def translated(hydra: Any = None) -> Iterator[None]:
    """Convert errors of Hydra and OmegaConf about the user's input into a UserError."""
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_explain(str(error), hydra)) from error
    except ValueError as error:
        if "override" not in str(error).lower():
            raise
        raise UserError(_explain(str(error), hydra)) from error


def _explain(message: str, hydra: Any) -> str:
    lines = [line.strip() for line in message.strip().splitlines() if line.strip()]
    if match := re.search(r"Could not (?:find|load) '(.+)/([^/']+)'", message):
        group, option = match.groups()
        choices = _options(hydra, group)
        more = (
            "\nTo use optuna or submitit_slurm, run: pip install 'gan_cli[sweep]'"
            if group.startswith("hydra/")
            else ""
        )
        return f"{group}={option}: no such option.{nearest(option, choices)}\nChoices: {', '.join(choices)}.{more}"
    if match := re.search(r"Could not override '([^']+)'", message):
        key = match.group(1)
        choices = list(Schema.__dataclass_fields__)
        return f"{key}: no such option.{nearest(key.split('.')[0], choices)}\nOptions: {', '.join(choices)}."
    if "Config group override must be" in message:
        return "an override sets a group to null. Choose a file of the group instead, e.g. penalty=none."
    if match := re.search(
        r"mismatched input|no viable alternative|Error parsing override|token recognition", message
    ):
        quoted = re.search(r"override '([^']*)'", message)
        what = quoted.group(1) if quoted else lines[0]
        return f"{what}: cannot be parsed. Write KEY=VALUE, and quote characters that the shell interprets."
    return "\n".join(line for line in lines if not line.startswith(("provider=", "Config search path")))[:400]


def _options(hydra: Any, group: str) -> list[str]:
    if hydra is None:
        return []
    options = hydra.config_loader.get_group_options(group, ObjectType.CONFIG)
    return sorted(option for option in options if not option.startswith("_"))


def claim(directory: Path) -> Path:
    """Make and return a new directory: ``directory``, or else directory-1, directory-2, and so on.

    Two processes never get the same directory.
    """
    for number in range(1000):
        candidate = directory if number == 0 else directory.with_name(f"{directory.name}-{number}")
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            continue
    raise UserError(
        f"{directory}: a thousand directories of this name exist already. Choose another name, e.g. name=NAME."
    )
