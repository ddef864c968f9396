"""Names and paths on the command line, which are taken as they are typed, although Hydra's grammar needs quotes."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from gan_cli.config.schema import TEXTS
from gan_cli.errors import UserError


def quoted(text: str) -> str:
    """``text`` between quotes, as a value of an override. Hydra's grammar reads it as this text."""
    value: str = QuotedString(text, Quote.single).with_quotes()
    return value


def as_typed(overrides: Sequence[str], *, sweep: bool = False) -> list[str]:
    """A list of the overrides, in which the values of the options in ``TEXTS`` are quoted where Hydra needs quotes.

    Such a value keeps its meaning in Hydra's grammar if it is empty, ``null`` or already between quotes and, in a
    sweep, if it lists several values, e.g. ``name=a,b`` or ``name=choice(a,b)``. An interpolation ``${...}`` is
    resolved in any case.

    Args:
        overrides: the arguments of a command line.
        sweep: whether the arguments describe a sweep.

    Raises:
        UserError: an override contains bytes that are not text.
    """
    for override in overrides:
        if "\0" in override or any("\ud800" <= letter <= "\udfff" for letter in override):
            raise UserError(
                f"{override.split('=')[0]}: the value contains bytes that are not text in the encoding of this "
                "terminal. Rename the file or use a symbolic link to it, or set LC_ALL=C.UTF-8."
            )
    return [_as_typed(override, sweep) for override in overrides]


def of_job(override: str) -> str:
    """An override that Hydra's sweeper wrote for a job, as ``as_typed`` reads it.

    A sweeper writes a backslash before special characters, which ``as_typed`` would take for a part of the name.
    """
    key, equals, _ = override.partition("=")
    parsed = grammatical(override)
    if not equals or key.lstrip("+") not in TEXTS or parsed is None or "\\" not in override:
        return override
    value = parsed.value()
    return f"{key}={quoted(value)}" if isinstance(value, str) else override


def advice(override: str) -> str:
    """A sentence with the line to type, for an override that Hydra cannot parse."""
    key, equals, value = override.partition("=")
    if not equals or not key:
        return "Write KEY=VALUE, e.g. optim=adam."
    return f"Write KEY=VALUE. If the value is text, type: {shlex.quote(f'{key}={quoted(value)}')}"


def _as_typed(override: str, sweep: bool) -> str:
    key, equals, value = override.partition("=")
    if not equals or key.lstrip("+") not in TEXTS or value in ("", "null"):
        return override
    parsed = grammatical(override)
    if parsed is not None:
        found = parsed._value
        if isinstance(found, QuotedString) or (sweep and parsed.is_sweep_override()):
            return override
        if isinstance(found, str | int) and not isinstance(found, bool) and str(found) == value:
            return override
    return f"{key}={quoted(value)}"


def grammatical(override: str) -> Override | None:
    """The override in Hydra's grammar, or None if the grammar does not allow it."""
    with contextlib.suppress(HydraException, ValueError):
        found: Override = OverridesParser.create().parse_override(override)
        return found
    return None
