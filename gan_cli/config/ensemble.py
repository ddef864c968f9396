"""The configurations of the members of an ensemble (``train.ensemble``)."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gan_cli.errors import UserError, nearest
from gan_cli.storage.dotted import leaves, put

# Members may differ in the seed and in numeric options of these groups. Only numbers can vary, because the compiled
# program receives the varied options as arguments.
_VARIED = ("optim", "penalty", "loss", "strategy", "game")


def members(config: Mapping[str, Any]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """The overrides and the configuration of each member of an ensemble.

    Returns:
        A list with one pair for each member. The first item is a dictionary from the dotted keys in
        ``train.ensemble`` to the values for this member. The second item is the complete configuration of the
        member. If ``train.ensemble`` is null, the list is empty.

    Raises:
        UserError: ``train.ensemble`` is empty, contains an unknown option or an option that cannot vary within an
            ensemble, or gives an option something other than a list of numbers.
    """
    asked = config["train"]["ensemble"]
    if asked is None:
        return []
    if asked == {}:
        raise UserError(
            "train.ensemble={}: is empty. Set a number of seeds, e.g. train.ensemble=8, or the values of options, "
            "e.g. train.ensemble={seed:[1,2]}."
        )
    if isinstance(asked, int):
        asked = {"seed": [config["seed"] + i for i in range(asked)]}
    known = {key for key, _ in leaves(config) if not key.startswith("train.ensemble")}
    for key, values in asked.items():
        path = key.split(".")
        # An option of one player (optim.discriminator.lr) may override an option of all players (optim.lr).
        of_player = len(path) == 3 and path[0] == "optim" and f"optim.{path[2]}" in known
        if key not in known and not of_player:
            raise UserError(
                f"train.ensemble: this configuration has no option {key}. Correct the key.{nearest(key, known)}"
            )
        if key != "seed" and key.split(".")[0] not in _VARIED:
            raise UserError(
                f"train.ensemble: {key} cannot vary within an ensemble. Only the seed and numeric options of the "
                f"groups {', '.join(_VARIED)} can. Remove {key} from train.ensemble, and vary it in a sweep: "
                f"--multirun {key}=A,B."
            )
        if not isinstance(values, list) or not values or not all(type(v) in (int, float) for v in values):
            raise UserError(f"train.ensemble: {key} needs a list of numbers, e.g. train.ensemble={{{key}:[1,2]}}.")
    found = []
    for values in itertools.product(*asked.values()):
        overrides = dict(zip(asked, values, strict=True))
        member = copy.deepcopy(dict(config))
        for key, value in overrides.items():
            put(member, key, value)
        member["train"]["ensemble"] = None
        found.append((overrides, member))
    return found


def of_jobs(jobs: Sequence[Sequence[str]]) -> list[str] | None:
    """The overrides of an ensemble that trains the same runs as the jobs of a sweep, or None.

    An ensemble replaces jobs that differ in seeds and in numbers with a decimal point or an exponent, and that are
    all combinations of these values.

    Args:
        jobs: the overrides of each job, e.g. ``["optim.lr=1e-3", "seed=1"]``.
    """
    each = [dict(override.split("=", 1) for override in job if "=" in override) for job in jobs]
    alike = all(one.keys() == each[0].keys() and len(one) == len(job) for one, job in zip(each, jobs, strict=True))
    if len(jobs) < 2 or not alike:
        return None
    values = {key: list(dict.fromkeys(one[key] for one in each)) for key in each[0]}
    varied = {key: texts for key, texts in values.items() if len(texts) > 1}
    every = {tuple(one[key] for key in varied) for one in each}
    whole = len(every) == len(jobs) == math.prod(map(len, varied.values()))
    if not whole or not all(_varies(key, text) for key, texts in varied.items() for text in texts):
        return None
    if {"train.ensemble", "train.devices"} & values.keys():
        return None
    told = ",".join(f"{key}:[{','.join(texts)}]" for key, texts in varied.items())
    return [*(f"{key}={one}" for key, (one, *more) in values.items() if not more), f"train.ensemble={{{told}}}"]


def _varies(key: str, text: str) -> bool:
    """Whether an ensemble may vary an option with the value ``text``, as far as the two texts tell."""
    if key == "seed":
        return text.isdecimal()
    try:
        finite = math.isfinite(float(text))
    except ValueError:
        return False
    # An integer may be an option that determines the program, e.g. strategy.n_critic.
    return finite and not text.lstrip("+-").isdecimal() and key.split(".")[0] in _VARIED
