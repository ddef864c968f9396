"""The configuration of a resumed run: the stored options, updated with the options that the user may change."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from gan_cli.config import identity, schema
from gan_cli.errors import UserError
from gan_cli.storage.run_directory import facts


def read(directory: Path) -> dict[str, Any]:
    """The contents of ``run.json`` in the directory of a run. The text in the file is not executed.

    Raises:
        UserError: the directory does not exist or contains no run, or ``run.json`` is damaged.
    """
    try:
        return facts(directory)
    except UserError as error:
        raise UserError(f"resume={error}") from error


def merge(
    stored: dict[str, Any],
    composed: dict[str, Any],
    overrides: Sequence[Override],
    is_group: Callable[[Override], bool],
) -> dict[str, Any]:
    """The stored configuration of a run, updated with the options that a resumed run may change.

    Args:
        stored: the configuration that the first process of the run stored in the run's directory.
        composed: the configuration that results from the current YAML files and the command line.
        overrides: the overrides on the command line.
        is_group: a function that returns whether an override selects a file of a group, as ``optim=adam`` does.

    Raises:
        UserError: an override changes an option that a resumed run cannot change.
    """
    merged: dict[str, Any] = json.loads(json.dumps(stored))
    past, now = identity.determining(stored), identity.determining(composed)
    for override in overrides:
        key = override.key_or_group
        if key.startswith(("hydra.", "hydra/")):
            continue
        group = override.package or key.replace("/", ".") if is_group(override) else None
        if identity.is_free(key) or (group and identity.is_free(group)):
            _copy(composed, merged, group or key)
        else:
            # An experiment sets options in many groups, so all options that must not change are compared.
            under = "" if key == "experiment" else group or key
            _compare(past, now, under, override)
            if group is not None or key == "experiment":
                for free in identity.free_leaves(composed):
                    if free.startswith(f"{under}.") or not under:
                        _copy(composed, merged, free)
    return merged


def _compare(past: dict[str, Any], now: dict[str, Any], prefix: str, override: Override) -> None:
    def under(key: str) -> bool:
        return not prefix or key == prefix or key.startswith(f"{prefix}.")

    # The default of decay_steps depends on train.steps. The stored value was set when the run first started.
    for key in sorted(filter(under, past.keys() | now.keys())):
        if key.endswith("decay_steps") and now.get(key) is None:
            continue
        # These values were computed when the run first started, or an earlier version had another default.
        if key in ("estimator.noise_multiplier", "dataset.normalisation") and now.get(key) is None:
            continue
        # A run of a version whose models had no encoders, or a run with null, uses no encoder.
        of_encoder = key == "model.encoder" or key.startswith("model.encoder.")
        if of_encoder and prefix in ("", "model") and not _encodes(past):
            continue
        if past.get(key) != now.get(key):
            raise UserError(
                f"{override.input_line}: the run was started with {key}={past.get(key, '(not set)')}, "
                "which a resumed run cannot change. Leave out the override, or start a new run.\n"
                "A resumed run can change: "
                f"{', '.join(sorted(schema.FREE - {'name', 'resume', 'dry_run', 'modules'}))}."
            )


def _encodes(options: dict[str, Any]) -> bool:
    """Whether the options of a run describe an encoder."""
    return any(key.startswith("model.encoder.") for key in options)


def _copy(source: dict[str, Any], target: dict[str, Any], key: str) -> None:
    *path, last = key.split(".")
    for part in path:
        source, target = source.get(part, {}), target.setdefault(part, {})
    if last not in source:
        raise UserError(f"{key}: a resumed run cannot remove an option. Leave out the override that removes {key}.")
    target[last] = source[last]
