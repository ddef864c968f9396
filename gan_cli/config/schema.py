"""The schema of a composed configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gan_cli.types import Decay, NonNegativeInt, PositiveInt, Precision, Seed

# The groups whose YAML files hold a `_target_` and its keyword arguments.
GROUPS = ("game", "model", "loss", "penalty", "augment", "optim", "strategy", "dataset", "metric", "features")
# The module that defines a group's targets. A configuration may not name functions from elsewhere in the package.
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
# Options that may change when a run is resumed. All other options determine the
# steps that the run has made, and enter the fingerprint of the run.
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
        # The location of the data may change, because the checkpoint holds a fingerprint of their content.
        "dataset.path",
        "dataset.data_dir",
        "dataset.on_error",
    }
)
# Options that may contain ${oc.env:...}. A run's directory stores the interpolation and not the value of the
# variable, because the value may be a secret.
ENVIRONMENT = ("logger", "dataset.path", "dataset.data_dir", "features.weights")


@dataclass(frozen=True)
class Train:
    """Length of a run, batch size, cadences, moving average, precision and devices.

    Users get the defaults of ``configs/train/default.yaml``. A default in this class reproduces the behaviour of
    runs that were started before the option existed.

    Args:
        steps: number of training steps.
        batch_size: examples in a batch, summed over all devices.
        steps_per_call: steps in one call of the compiled program; every cadence must be a multiple of it.
        log_every: steps between two lines of metrics.jsonl.
        sample_every: steps between two sample grids; 0 disables them.
        checkpoint_every: steps between two checkpoints; 0 saves only at the end.
        keep: number of newest checkpoints that are kept.
        ema: decay rate of the exponential moving average of the generator's parameters. Samples and metrics use the
            average. 0 disables the average.
        eval_every: steps between two evaluations of the metrics; 0 disables them. The metrics are always
            computed once at the end.
        eval_samples: number of samples in each evaluation.
        objective: name of the metric value that selects the best checkpoint, controls early stopping, and is
            optimised by a search. null selects the first metric value for which lower or higher is better.
        patience: number of evaluations without a better objective after which training stops; 0 disables early
            stopping.
        report: whether to write report.html at the end.
        on_nan: reaction to a loss, gradient or parameter that is not finite. stop ends the run with the status
            diverged. continue trains on.
        precision: floating-point type in which the networks compute. Parameters and updates are always float32.
        eigenvalues: number of eigenvalues of the game's Jacobian to compute at the end of the run, beginning with
            the largest modulus. 0 computes no eigenvalues.
        ensemble: runs to train together in one compiled program. A number, e.g. 8, trains this number of seeds.
            Lists of values of numeric options, e.g. {optim.lr:[1e-4,2e-4],seed:[1,2]}, train all combinations.
            null trains a single run.
        devices: number of devices over which each batch is split. all uses the devices of all processes.
        profile: whether to record a profile of two calls of the compiled program, for TensorBoard and Perfetto.
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
    """The root of the configuration: the groups, and the options outside the groups.

    The options of a group are checked against the signature of the function that its ``_target_`` names.

    Args:
        game: the players, and the loss that each minimises.
        model: the networks of the players.
        loss: adversarial loss of discriminator and generator.
        penalty: regularisation terms added to the discriminator's loss.
        augment: augmentations of the discriminator's inputs, applied to real and generated examples alike.
        optim: optimiser of the players.
        strategy: how the updates of the players are combined into a training step.
        dataset: the training data.
        metric: metrics, computed during training and at the end.
        features: feature space in which metrics such as FID compare samples with data.
        train: length of a run, batch size, cadences, moving average, precision and devices.
        logger: destinations of the logged metrics, in addition to metrics.jsonl.
        seed: seed of all random numbers of the run.
        name: name of the run's directory, outputs/NAME; null names the directory by date and time.
        resume: directory of a run to continue; auto continues the run called name, or starts it if there is none.
        dry_run: whether to check the configuration, build all objects and draw the data, without training.
        modules: Python modules of your own that configuration files may name. This option can be set on the command
            line only.
    """

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


# The parameter of a game that receives the object built from a group.
GAME_PARTS = {"model": "model", "loss": "loss", "penalty": "penalties", "augment": "augments", "dataset": "spec"}
