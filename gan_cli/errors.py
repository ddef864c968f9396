"""What can go wrong in ways that a user can mend: told in a few lines, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input. Its message, one to five lines, names the key, the value and the choices.

    Raised before anything is compiled and before a directory is made; ends a run with exit status 2.
    """


class RunFailed(Exception):
    """A run that had started cannot go on (disk full, damaged checkpoints); ends it with exit status 1."""


def nearest(word: str, choices: Iterable[str]) -> str:
    """``" Did you mean 'adam'?"``, or nothing when no choice is close to ``word``."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
