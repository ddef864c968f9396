"""Errors that a user can fix. The command line prints their messages without a traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Raised for invalid input. The message names the option, the value and the remedy in one to five lines.

    Most causes are detected before the training program is compiled and before the run's directory is created. The
    command exits with status 2.
    """


class RunFailed(Exception):
    """Raised if a run that has started cannot continue, e.g. because the disk is full.

    The command exits with status 1.
    """


def nearest(word: str, choices: Iterable[str]) -> str:
    """The text ``" Did you mean '<choice>'?"`` with the choice that is most similar to ``word``.

    The text is empty if no choice is similar.
    """
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f" Did you mean '{close[0]}'?" if close else ""
