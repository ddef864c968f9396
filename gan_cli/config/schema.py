"""The schema of a composed configuration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from gan_cli.types import Decay, NonNegativeInt, PositiveInt, Precision, Seed

# The groups whose YAML files hold a `_target_` and its keyword arguments.
GROUPS = (
    *(
        "game",
        "model",
        "loss",
        "penalty",
        "augment",
        "optim",
        "strategy",
        "estimator",
        "dataset",
        "sampler",
        "metric",
    ),
    "features",
)
# For each group, the module that defines the group's targets. Targets in other modules of this package are refused.
GROUP_MODULES = {
    "game": "gan_cli.games",
    "model": "gan_cli.models",
    "loss": "gan_cli.losses",
    "penalty": "gan_cli.penalties",
    "augment": "gan_cli.augment",
    "optim": "gan_cli.optim",
    "strategy": "gan_cli.strategies",
    "estimator": "gan_cli.estimators",
    "dataset": "gan_cli.data",
    "sampler": "gan_cli.data.samplers",
    "metric": "gan_cli.metrics",
    "features": "gan_cli.metrics.features",
    "logger": "gan_cli.loggers",
}
# Options that a resumed run may change. All other options determine the training state that the run has reached,
# and are part of the fingerprint of the run.
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
        "train.tune",
        "train.profile",
        "train.eigenvalues",
        "train.eval_every",
        "train.eval_samples",
        "train.objective",
        "train.patience",
        "train.report",
        "card",
        "metric",
        "features",
        "logger",
        "name",
        "resume",
        "dry_run",
        "modules",
        # The location of the data may change, because the checkpoint holds a fingerprint of their content.
        "dataset.path",
        # Runs of versions without this option may need dataset.layout=earlier. The fingerprint of the data covers
        # the effect of the option: the training images and their labels.
        "dataset.layout",
        "dataset.data_dir",
        "dataset.on_error",
    }
)
# Groups and options that may contain ${oc.env:NAME}. A run's directory stores the interpolation instead of the
# value of the environment variable, because the value may be a secret.
ENVIRONMENT = ("logger", "dataset.path", "dataset.data_dir", "features.weights")

# Options that take a name or a path, which the command line accepts as it is typed, without Hydra's quotes.
TEXTS = (
    "name",
    "resume",
    "init_from",
    "dataset.path",
    "dataset.data_dir",
    "dataset.label",
    "dataset.schema",
    "dataset.group",
    "dataset.time",
    "dataset.split",
    "features.weights",
    "card.intended_use",
    "card.out_of_scope",
    "card.data",
    "card.licence",
    "card.contact",
    "hydra.run.dir",
    "hydra.sweep.dir",
    "hydra.sweep.subdir",
)


@dataclass(frozen=True)
class Train:
    """The options of the group ``train``, which control the training of a run.

    The defaults for a new run are in ``configs/train/default.yaml``. The defaults in this class apply to runs that
    were started before the option existed, and reproduce the behaviour of these runs.

    Args:
        steps: number of training steps.
        batch_size: number of examples in a batch, summed over all devices.
        steps_per_call: number of training steps in one call of the compiled program. log_every, sample_every
            and checkpoint_every must be multiples of this number. With metrics, eval_every must be a multiple too.
        log_every: number of steps between two lines of metrics.jsonl.
        sample_every: number of steps between two sample grids. 0 disables the sample grids.
        checkpoint_every: number of steps between two checkpoints. With 0, a checkpoint is saved only at the end.
        keep: number of checkpoints to keep. Older checkpoints are deleted. Members of an ensemble keep at least 2.
        ema: decay rate of the exponential moving average of the generator's parameters. Samples and metrics use the
            average. 0 disables the average.
        eval_every: number of steps between two evaluations of the metrics. 0 disables evaluations during training.
            The metrics are always computed once at the end.
        eval_samples: number of samples that are drawn for each evaluation.
        objective: name of the metric value that selects the best checkpoint and controls early stopping. A
            hyperparameter search optimises this value. With null, the objective is the first metric value that can
            rank checkpoints.
        patience: number of evaluations without improvement of the objective after which training stops. 0 disables
            early stopping.
        report: whether to write report.html at the end.
        on_nan: whether a run stops when a loss, a gradient or a parameter is not finite. With stop, the run ends
            with the status diverged. With continue, the run keeps training.
        precision: floating-point type in which the networks compute. Parameters and updates are always float32.
        eigenvalues: number of eigenvalues of the game's Jacobian to compute at the end of the run. The eigenvalues
            with the largest absolute values are computed. With 0, no eigenvalues are computed.
        ensemble: the runs to train together in one compiled program. With a number n, n runs are trained that
            differ only in their seed. With lists of values of numeric options, e.g.
            {optim.lr:[1e-4,2e-4],seed:[1,2]}, one run is trained for each combination of values. With null, a
            single run is trained.
        devices: number of devices over which each batch is split. With all, the batch is split over the devices of
            all processes.
        tune: whether a new run on a CPU measures which options of the compiler make its program fastest. With auto,
            it does so if the measurement takes at most 2 % of the run. The result is cached, so that later runs of
            the same program only read it. With retune, the run measures in any case. A resumed run keeps its
            program.
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
    tune: Literal["auto", "off", "retune"] = "off"
    profile: bool = False


@dataclass(frozen=True)
class Card:
    """The options of the group ``card``: what the user states in the model card of ``gan-report``.

    Args:
        intended_use: the use for which the model is made.
        out_of_scope: uses for which the model is not suited.
        data: origin of the training data, and the consent of the people whom the data describe.
        licence: licence of the model and of its samples.
        contact: where to send questions and complaints.
    """

    intended_use: str | None = None
    out_of_scope: str | None = None
    data: str | None = None
    licence: str | None = None
    contact: str | None = None


@dataclass(frozen=True)
class Schema:
    """The root of the configuration: the groups, and the options outside the groups.

    The options of a group are checked against the signature of the group's ``_target_``.

    Args:
        game: the players, and the loss that each player minimises.
        model: the networks of the players.
        loss: adversarial losses of the discriminator and the generator.
        penalty: regularisation terms added to the discriminator's loss.
        augment: augmentations of the discriminator's inputs, applied to real and generated examples alike.
        optim: optimiser of the players.
        strategy: rule that combines the updates of the players into a training step.
        estimator: how the gradient of a loss is computed on a batch.
        dataset: the training data.
        sampler: rule that selects the examples of each batch. Null without data; with data, null means shuffled.
        metric: metrics that evaluate samples during training and at the end.
        features: feature space in which metrics such as FID compare samples with data.
        card: statements of the user in the model card of the report.
        train: length of a run, batch size, cadences, moving average, precision and devices.
        logger: destinations of the logged metrics, in addition to metrics.jsonl.
        seed: seed of all random numbers of the run.
        name: name of the run. The directory of the run is outputs/NAME. With null, the directory is named after the
            date and time of the start.
        init_from: directory of a run whose newest checkpoint provides the initial parameters, or the path of a
            checkpoint, e.g. outputs/digits/best or outputs/digits/checkpoints/2000. Arrays that have no counterpart
            of the same name and shape in the checkpoint are initialised from the seed. With null, all arrays are.
        init_parts: parts of the training state that init_from provides. weights are the parameters and the state of
            the networks (e.g. batch statistics). averages are the weights and their moving averages. all also
            includes the states of the optimisers and of the strategy.
        resume: directory of a run to continue. With auto, the run whose name the option name gives is continued, or
            started if it does not exist.
        dry_run: whether to check the configuration, build all objects and write a picture of the data, instead of
            training.
        modules: list of your own Python modules. Configuration files may use their functions and classes. This
            option can be set only on the command line.
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
    estimator: dict[str, Any] = field(default_factory=lambda: {"_target_": "gan_cli.estimators.mean"})
    sampler: dict[str, Any] | None = None
    card: dict[str, Any] = field(default_factory=dict)
    init_from: str | None = None
    init_parts: Literal["weights", "averages", "all"] = "averages"


# For each group, the parameter of a game that receives the object built from the group.
GAME_PARTS = {"model": "model", "loss": "loss", "penalty": "penalties", "augment": "augments", "dataset": "spec"}
