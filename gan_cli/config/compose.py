"""Hydra, as this program uses it: composing, and turning Hydra's complaints into ours.

Composition, help, completion, sweeps and a run's ``.hydra`` folder are Hydra's own. What Hydra leaves to the
application is here: a directory that no two runs share, and errors of a few lines.
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
    """Tell Hydra our schema and resolver; called before Hydra is."""
    started = datetime.now()
    OmegaConf.register_new_resolver(
        "gan_cli.run_id", lambda name: name or started.strftime("%Y-%m-%d/%H-%M-%S"), replace=True
    )
    # The groups' nodes are open: their keys are checked, with the near miss named, by gan_cli.config, against
    # the signatures of what they configure. Hydra itself would refuse `optim.discriminator.lr=...`.
    root = OmegaConf.create({group: {} for group in (*GROUPS, "train", "logger")})
    for group in root:
        root[group]._set_flag("struct", False)
    ConfigStore.instance().store(name="schema", node=root, provider="gan_cli")


@contextlib.contextmanager
def session() -> Iterator[Any]:
    """Hydra, initialised with our configurations; within another Hydra program, that one's is put aside."""
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
    """The override that lets Hydra find a user's own configurations, beside ours."""
    if config_dir is None:
        return []
    if not Path(config_dir).is_dir():
        raise UserError(f"--config-dir {config_dir}: there is no such folder.")
    return [f"hydra.searchpath=['file://{Path(config_dir).resolve()}']"]


def compose(hydra: Any, overrides: Sequence[str], mode: RunMode = RunMode.RUN) -> DictConfig:
    """The composed configuration, Hydra's own node included.

    Where another file of a group is chosen than the experiment's, what the experiment sets in that group goes with
    the file that it was meant for: Adam's moments and rate are not for ``experiment=ring optim=sgd``.

    Raises:
        UserError: an override that cannot be parsed, an unknown option or key, a file that cannot be read.
    """

    def composed(overrides: Sequence[str]) -> DictConfig:
        return hydra.compose_config(
            config_name=CONFIG_NAME, overrides=list(overrides), run_mode=mode, with_log_configuration=False
        )

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
            if group not in its:  # one of Hydra's own
                continue
            if isinstance(its[group], DictConfig) and group not in its.hydra.runtime.choices:  # a list of files
                for name in its[group].keys() - chosen:
                    if not any(key.startswith(f"{group}.{name}.") for key in keys.values()):
                        found[group].pop(name, None)
            elif choices.get(group) != its.hydra.runtime.choices.get(group):
                bare = bare or composed([text for text, key in keys.items() if key != "experiment"])
                found[group] = bare[group]
        return found


def _chosen(hydra: Any, parsed: Sequence[Override]) -> dict[str, set[str]]:
    """The files that the command line chooses of each group but ``experiment``."""
    found = {}
    for override in parsed:
        if override.package is None and override.key_or_group != "experiment" and is_group(hydra, override):
            value = override.value()
            found[override.key_or_group] = set(value) if isinstance(value, list) else {str(value)}
    return found


def ours(composed: DictConfig) -> DictConfig:
    """The composed configuration without Hydra's node."""
    return OmegaConf.masked_copy(composed, [str(key) for key in composed if key != "hydra"])


def parse(hydra: Any, overrides: Sequence[str]) -> list[Override]:
    """The overrides, parsed."""
    with translated(hydra):
        return OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(list(overrides))


def is_group(hydra: Any, override: Override) -> bool:
    """Whether the override chooses a file of a group (``optim=sgd``), rather than setting a value."""
    return hydra.config_loader.repository.group_exists(override.key_or_group)


def modules(parsed: Sequence[Any], composed: Any) -> list[str]:
    """The further modules that ``_target_`` may name.

    Raises:
        UserError: a configuration file names them, and not the command line.
    """
    if composed.modules and not any(override.key_or_group == "modules" for override in parsed):
        raise UserError(f"modules={composed.modules}: may be named on the command line only, never in a file.")
    named = [] if isinstance(composed.modules, str) else [str(module) for module in composed.modules or ()]
    return import_user_modules(named)


@contextlib.contextmanager
def translated(hydra: Any = None) -> Iterator[None]:
    """Within it, what Hydra and OmegaConf raise about the user's input becomes a UserError."""
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
        more = "\npip install 'gan_cli[sweep]' has optuna and submitit_slurm." if group.startswith("hydra/") else ""
        return f"{group}={option}: no such option.{nearest(option, choices)}\nChoices: {', '.join(choices)}.{more}"
    if match := re.search(r"Could not override '([^']+)'", message):
        key = match.group(1)
        choices = list(Schema.__dataclass_fields__)
        return f"{key}: no such option.{nearest(key.split('.')[0], choices)}\nOptions: {', '.join(choices)}."
    if "Config group override must be" in message:
        return "a group is set to null: choose a file of the group, or none where the group has it."
    if match := re.search(
        r"mismatched input|no viable alternative|Error parsing override|token recognition", message
    ):
        quoted = re.search(r"override '([^']*)'", message)
        what = quoted.group(1) if quoted else lines[0]
        return f"{what}: cannot be read. An override is KEY=VALUE; quote what the shell would change."
    return "\n".join(line for line in lines if not line.startswith(("provider=", "Config search path")))[:400]


def _options(hydra: Any, group: str) -> list[str]:
    if hydra is None:
        return []
    options = hydra.config_loader.get_group_options(group, ObjectType.CONFIG)
    return sorted(option for option in options if not option.startswith("_"))


def claim(directory: Path) -> Path:
    """Make ``directory``, or the first of directory-1, directory-2, ... that did not exist: it is ours alone."""
    for number in range(1000):
        candidate = directory if number == 0 else directory.with_name(f"{directory.name}-{number}")
        try:
            candidate.mkdir(parents=True)
            return candidate
        except FileExistsError:
            continue
    raise UserError(f"{directory}: a thousand directories of this name exist already.")
