"""The schema of a composed configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gan_cli.types import Decay, NonNegativeInt, PositiveInt, Precision, Seed

# A group's node is plain `_target_` and keyword arguments; these are the groups that have one.
GROUPS = ("game", "model", "loss", "penalty", "augment", "optim", "strategy", "dataset", "metric", "features")
# Where a group's targets are defined: no other function of the package may be named there.
GROUP_MODULES = {
    "game": "gan_cli.games",
    "model": "gan_cli.models",
    "loss": "gan_cli.losses",
    "penalty": "gan_cli.penalties",
    "augment": "gan_cli.augment",
    "optim": "gan_cli.optim",
    "strategy": "gan_cli.strategies",
    "dataset": "gan_cli.data",
    "metric": "gan_cli.metrics",
    "features": "gan_cli.metrics.features",
    "logger": "gan_cli.loggers",
}
# What may differ when a run is resumed. Everything else determines the past and is hashed.
FREE = frozenset(
    {
        "train.steps",
        "train.steps_per_call",
        "train.log_every",
        "train.sample_every",
        "train.checkpoint_every",
        "train.keep",
        "train.devices",
        "train.on_nan",
        "train.profile",
        "train.eigenvalues",
        "train.eval_every",
        "train.eval_samples",
        "train.objective",
        "train.patience",
        "train.report",
        "metric",
        "features",
        "logger",
        "name",
        "resume",
        "dry_run",
        "modules",
        # Where the data lie, not what they are: the checkpoint holds a fingerprint of their content.
        "dataset.path",
        "dataset.data_dir",
        "dataset.on_error",
    }
)
# Where ${oc.env:...} may stand; it is stored unresolved, so that no secret lands in a run's directory.
ENVIRONMENT = ("logger", "dataset.path", "dataset.data_dir", "features.weights")


@dataclass(frozen=True)
class Train:
    """Options of ``train``: how long a run is, how often it reports, what it computes in.

    Cadences are in steps; 0 is never, but that what ``metric`` names is computed at the end in any case.
    ``objective`` is the figure that says which checkpoint is the best, and ``patience`` after how many evaluations
    without a better one to stop (0: never). ``ensemble`` is how many seeds to train at once, or the values of each
    scalar option to train with, in all combinations. ``devices`` is over how many each batch is split, of all
    processes. ``eigenvalues`` is how many of the game's Jacobian to find at the end.

    A default here is not the user's (``configs/train`` has those): it is what a run did that was written before
    there was the option.
    """

    steps: PositiveInt
    batch_size: PositiveInt
    steps_per_call: PositiveInt
    log_every: PositiveInt
    sample_every: NonNegativeInt
    checkpoint_every: NonNegativeInt
    keep: PositiveInt
    ema: Decay
    eval_every: NonNegativeInt = 0
    eval_samples: PositiveInt = 5000
    objective: str | None = None
    patience: NonNegativeInt = 0
    report: bool = False
    on_nan: Literal["stop", "continue"] = "stop"
    precision: Precision = "float32"
    eigenvalues: NonNegativeInt = 0
    ensemble: PositiveInt | dict[str, Any] | None = None
    devices: PositiveInt | Literal["all"] = 1
    profile: bool = False


@dataclass(frozen=True)
class Schema:
    """The root of the configuration. A node of ``_target_`` and options is checked against its signature."""

    game: dict[str, Any]
    model: dict[str, Any] | None
    loss: dict[str, Any] | None
    penalty: dict[str, Any]
    augment: dict[str, Any]
    optim: dict[str, Any]
    strategy: dict[str, Any]
    dataset: dict[str, Any] | None
    metric: dict[str, Any]
    features: dict[str, Any]
    train: Train
    logger: dict[str, Any]
    seed: Seed
    name: str | None
    resume: str | None
    dry_run: bool
    modules: list[str]


# What a game may take, by the group that makes it.
GAME_PARTS = {"model": "model", "loss": "loss", "penalty": "penalties", "augment": "augments", "dataset": "spec"}
