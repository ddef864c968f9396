"""The members of ``train.ensemble``: which configurations one program trains."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

from gan_cli.errors import UserError, nearest
from gan_cli.storage.dotted import leaves, put

# What an ensemble's members may differ in: numbers that the compiled program can take as arguments.
_VARIED = ("optim", "penalty", "loss", "strategy")


def members(config: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The members of ``train.ensemble``, none where there is none: its overrides and its configuration.

    Raises:
        UserError: a name that is no option, or none that may vary, or values that are not a list of numbers.
    """
    asked = config["train"]["ensemble"]
    if asked is None:
        return []
    if asked == {}:
        raise UserError("train.ensemble={}: name what to vary, e.g. {seed:[1,2]}, or a number of seeds.")
    if isinstance(asked, int):
        asked = {"seed": [config["seed"] + i for i in range(asked)]}
    known = {key for key, _ in leaves(config) if not key.startswith("train.ensemble")}
    for key, values in asked.items():
        path = key.split(".")
        # A player's own option may be one that it shares so far: optim.discriminator.lr.
        of_player = len(path) == 3 and path[0] == "optim" and f"optim.{path[2]}" in known
        if key not in known and not of_player:
            raise UserError(f"train.ensemble: {key} is no option of this configuration.{nearest(key, known)}")
        if key != "seed" and key.split(".")[0] not in _VARIED:
            raise UserError(f"train.ensemble: {key} cannot vary; seed and numbers of {', '.join(_VARIED)} can.")
        if not isinstance(values, list) or not values or not all(type(v) in (int, float) for v in values):
            raise UserError(f"train.ensemble: {key} needs a list of numbers, e.g. {{{key}:[1,2]}}.")
    found = []
    for values in itertools.product(*asked.values()):
        overrides = dict(zip(asked, values, strict=True))
        member = copy.deepcopy(dict(config))
        for key, value in overrides.items():
            put(member, key, value)
        member["train"]["ensemble"] = None
        found.append((overrides, member))
    return found
