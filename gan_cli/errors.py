"""Errors that a user can fix. The command line prints their messages in a few lines, without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Wrong input: the message, one to five lines long, names the key, the value and the remedy.

    It is raised before the program is compiled and before the run's directory is created. The command exits with
    status 2.
    """


class RunFailed(Exception):
    """A started run cannot continue, because of a full disk or damaged checkpoints, for example.

    The command exits with status 1.
    """


def nearest(word: str, choices: Iterable[str]) -> str:
    """The hint ``" Did you mean 'adam'?"``, or an empty string if no choice is close to ``word``."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
