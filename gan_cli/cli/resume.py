"""Where a run starts from: a new directory, or one that holds a run to go on with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override

from gan_cli.config import identity, schema
from gan_cli.errors import UserError
from gan_cli.storage.run_directory import facts


def read(directory: Path) -> dict[str, Any]:
    """What a run's directory tells of it, as data: nothing in it is composed or executed.

    Raises:
        UserError: the directory is missing, or holds no run.
    """
    try:
        return facts(directory)
    except UserError as error:
        raise UserError(f"resume={error}") from error


def merge(
    stored: dict[str, Any], composed: dict[str, Any], overrides: Sequence[Override], is_group: Any
) -> dict[str, Any]:
    """The stored configuration, with what the command line may change taken from ``composed``.

    Args:
        stored: what the run's directory holds.
        composed: today's configuration, composed with the command line's overrides.
        overrides: those overrides.
        is_group: whether an override chooses a file of a group.

    Raises:
        UserError: an override would change the run's past.
    """
    merged = json.loads(json.dumps(stored))
    past, now = identity.determining(stored), identity.determining(composed)
    for override in overrides:
        key = override.key_or_group
        if key.startswith(("hydra.", "hydra/")):
            continue
        group = override.package or key.replace("/", ".") if is_group(override) else None
        if identity.is_free(key) or (group and identity.is_free(group)):
            _copy(composed, merged, group or key)
        else:
            # An experiment sets values anywhere; what it says of the past must be what it was.
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

    # Where a value hangs on the number of steps (decay_steps), the first start has fixed it.
    for key in sorted(filter(under, past.keys() | now.keys())):
        if key.endswith("decay_steps") and now.get(key) is None:
            continue
        if past.get(key) != now.get(key):
            raise UserError(
                f"{override.input_line}: {key} was {past.get(key, 'not set')}, which a resumed run cannot change.\n"
                f"What can: {', '.join(sorted(schema.FREE - {'name', 'resume', 'dry_run', 'modules'}))}."
            )


def _copy(source: dict[str, Any], target: dict[str, Any], key: str) -> None:
    *path, last = key.split(".")
    for part in path:
        source, target = source.get(part, {}), target.setdefault(part, {})
    if last not in source:
        raise UserError(f"{key}: cannot be taken away from a run that is resumed.")
    target[last] = source[last]
