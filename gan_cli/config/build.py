"""Builds the objects of an experiment from a checked configuration. No other module builds them."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from gan_cli import estimators
from gan_cli.config import check, identity
from gan_cli.config.build_ensemble import Ensemble, build_ensemble
from gan_cli.config.build_private import ledger_of, source_of, with_noise
from gan_cli.config.options import options_of
from gan_cli.config.schema import Train
from gan_cli.data import canaries, duplicates
from gan_cli.data.capacity import available_memory
from gan_cli.data.dataset import Dataset
from gan_cli.data.samplers import too_large
from gan_cli.engine.compiled_steps import CompiledSteps, Length
from gan_cli.engine.devices import Devices
from gan_cli.engine.ensemble import EnsembleSteps
from gan_cli.engine.state import TrainSetup, init_state
from gan_cli.errors import UserError, nearest
from gan_cli.estimators import Estimator, private
from gan_cli.loggers import Logger, Record
from gan_cli.metrics import Metric
from gan_cli.metrics.eigenvalues import bytes_needed
from gan_cli.metrics.evaluator import check_inputs, check_metrics, for_data, objective_of, reads_features
from gan_cli.metrics.features import Extractor
from gan_cli.metrics.targets import Target, targets_of
from gan_cli.models import Model
from gan_cli.optim import Optimiser
from gan_cli.privacy import leaks
from gan_cli.privacy.leaks import Parts, Verdict
from gan_cli.privacy.ledger import Ledger
from gan_cli.types import Game, Spec, Strategy


@dataclass(frozen=True)
class Experiment:
    """The objects that make up a run, or an ensemble of runs.

    Attributes:
        config: the checked configuration.
        setup: the game, the strategy, the optimisers and the seed.
        dataset: the training data, or None if the game uses no data or the data were not loaded.
        train: the options of the group ``train``.
        loggers: dictionary from names of loggers to functions ``(directory, records) -> Logger``. Each function
            opens a logger for a run.
        metrics: dictionary from names to the metrics that evaluate samples.
        features: a function ``(dataset) -> Extractor`` that returns the feature extractor for the metrics.
        ensemble: the runs that are trained together, or None for a single run.
        ledger: the privacy that the run spends, or None without private training.
        leaks: the verdicts on everything that reads the data in private training.
    """

    config: dict[str, Any]
    setup: TrainSetup
    dataset: Dataset | None
    train: Train
    loggers: dict[str, Callable[[Path, list[Record]], Logger]]
    metrics: dict[str, Metric]
    features: Callable[[Dataset], Extractor]
    ensemble: Ensemble | None = None
    ledger: Ledger | None = None
    leaks: tuple[Verdict, ...] = ()

    @property
    def game(self) -> Game:
        """The game of the setup."""
        return self.setup.game

    @property
    def strategy(self) -> Strategy:
        """The strategy of the setup."""
        return self.setup.strategy

    @property
    def optimisers(self) -> dict[str, Optimiser]:
        """The optimisers of the setup, a dictionary with the players as keys."""
        return self.setup.optimisers

    @property
    def seed(self) -> int:
        """The seed of the run."""
        seed: int = self.setup.seed  # only Ensemble.make builds setups with a traced seed
        return seed

    @property
    def fingerprint(self) -> str:
        """The SHA-256 hash of the options that a resumed run may not change."""
        return identity.fingerprint(self.config)

    @property
    def has_secret_seed(self) -> bool:
        """Whether the noise of private training derives from the seed.

        The marks of generated files then state neither the seed nor the fingerprint, from which somebody could find
        the seed by trial.
        """
        return bool(self.config["estimator"].get("reproducible"))

    @functools.cached_property
    def devices(self) -> Devices:
        """The devices on which the run computes."""
        return Devices(self.train.devices)

    @functools.cached_property
    def targets(self) -> dict[str, Target]:
        """The data with which metrics compare the outputs of the game's tasks, by the name of the task."""
        assert self.dataset is not None
        features = self.features if reads_features(self.metrics) else None
        return targets_of(self.dataset, self.game.tasks, features)

    def check_evaluation(self) -> None:
        """Raise a UserError if the data, the features or the game lack an input of a metric. Computes nothing."""
        if self.metrics and self.dataset is not None:
            check_inputs(self.metrics, self.targets, self.dataset, self.game.tasks)

    def compile(self, noise_key: jax.Array | None = None) -> CompiledSteps:
        """The object that compiles and executes the training steps of the run or of the ensemble.

        Args:
            noise_key: the secret key of private training, from which the noise and the batches derive. With None,
                they derive from the seed.
        """
        options, many = self.train, self.ensemble
        length = Length(options.steps, options.steps_per_call, options.batch_size, options.ema)
        if many is None:
            return CompiledSteps(self.setup, self.dataset, self.devices, length, noise_key)
        seeds = [member.seed for member in many.members]
        freeze = options.on_nan == "stop"
        return EnsembleSteps(
            self.setup, self.dataset, length,
            make=many.make, varied=many.varied, seeds=seeds, freeze=freeze,
        )  # fmt: skip


def experiment(overrides: Sequence[str] = ()) -> Experiment:
    """Compose, check and build the experiment that command-line overrides describe.

    Raises:
        UserError: an override is not valid.
    """
    from gan_cli.config import compose, quoting

    overrides = quoting.as_typed(overrides)
    with compose.session() as hydra:
        parsed = compose.parse(hydra, overrides)
        composed = compose.compose(hydra, overrides)
        return build(check.check(compose.ours(composed), compose.modules(parsed, composed)))


def build(config: dict[str, Any], spec: Spec | None = None, resumes: Path | None = None) -> Experiment:
    """Build the experiment that a checked configuration describes. Nothing is compiled.

    Args:
        config: the checked configuration.
        spec: the features of an example by name. If ``spec`` is given, the function does not load
            the data set. With None, the function loads the data set, which provides the Spec.
        resumes: the directory of the run to resume, or None for a new run.

    Raises:
        UserError: options contradict each other or the data, or the data set is not available.
    """
    filled = check.from_environment(config)
    trains = spec is None
    estimator: Estimator = _make(filled["estimator"])
    data = _dataset(filled, estimator) if trains else None
    spec = data.spec if data else spec
    metrics, features = evaluation_of(config)
    metrics = for_data(metrics, data) if data else metrics
    others = _make(filled["logger"]) or {}, metrics, features
    options, ledger = Train(**filled["train"]), None
    verdicts: list[Verdict] = []
    if data and estimator.private:
        source = source_of(config, data) if resumes is None else None
        parts = Parts(_make(filled["loss"]), _make(filled["penalty"]) or {}, _make(filled["augment"]) or {})
        verdicts = leaks.verdicts(config, data, parts, source)
        leaks.check(verdicts)
    setup = build_setup(filled, spec, estimator)
    if data and estimator.private:
        ledger = ledger_of(config, estimator.private, setup, data, source, resumes)
        if estimator.private.noise_multiplier is None:
            config = with_noise(config, ledger.noise_multiplier)
            estimator = private.with_noise(estimator, ledger.noise_multiplier)
            setup = setup._replace(strategy=_strategy(filled, setup.game, spec, estimator))
        options = dataclasses.replace(options, steps=ledger.last_step(options.steps))
    whole = Experiment(config, setup, data, options, *others, ledger=ledger, leaks=tuple(verdicts))
    if trains:
        _check_batches(data, whole, estimator)
    for name, metric in whole.metrics.items():
        if isinstance(metric, Metric) and "audited" in metric.needs:
            raise UserError(
                f"metric={name}: trains further runs like this one, so it is computed after training. Leave it "
                f"out, and run gan-eval RUN --metrics {name}."
            )
    if whole.metrics and not whole.game.tasks:
        raise UserError(
            f"metric=[{','.join(whole.metrics)}]: metrics evaluate samples, and this game does not "
            "generate samples. Set metric=none."
        )
    if whole.metrics and data:
        targets = targets_of(data, whole.game.tasks)
        check_metrics(whole.metrics, targets, whole.train.eval_samples)
        objective_of(whole.metrics, whole.train.objective, targets)
    if whole.train.eigenvalues:
        _check_eigenvalues(whole)
    return dataclasses.replace(whole, ensemble=build_ensemble(whole, filled, spec, build_setup))


def _check_batches(data: Dataset | None, whole: Experiment, estimator: Estimator) -> None:
    """Raise a UserError if the sampler cannot draw the batches, or the run cannot divide them."""
    key, rows, game = "train.batch_size", whole.train.batch_size, whole.game
    if data:
        chosen = _name(whole.config["sampler"])
        if game.sampler and chosen != game.sampler[0]:
            raise UserError(
                f"sampler={chosen}: the losses of this game assume the batches of sampler={game.sampler[0]}, and "
                f"would learn another distribution. Set sampler={game.sampler[0]}, or {game.sampler[1]}."
            )
        domains = data.domains
        if game.paired and len(domains) > 1:
            raise UserError(
                f"dataset: this game needs pairs, and the features of this data set belong to the domains "
                f"{', '.join(domains)}, whose examples are drawn independently. Set game=cyclegan or game=cut, or "
                "choose a data set of pairs, e.g. dataset=edges or dataset=paired."
            )
        smallest = min(domain.size for domain in domains.values())
        sampler, *_ = data.feed.samplers(min(rows, smallest)).values()
        if sampler.needs_correction and not game.sampler:
            raise UserError(
                f"sampler={chosen}: draws the examples with other frequencies than the data have, and this game "
                "does not correct for them. Set sampler=shuffled."
            )
        if smallest < rows and not sampler.repeats:
            raise too_large(rows, smallest)
        if sampler.pads:
            estimators.check(_name(whole.config["estimator"]), estimator, game, pads=True)
            if len(domains) > 1:
                raise UserError(
                    f"sampler={_name(whole.config['sampler'])}: batches differ in size, so the examples of the "
                    f"domains {', '.join(domains)} cannot form pairs. Set sampler=shuffled."
                )
            key, rows = "sampler.capacity", sampler.rows
    slice_, devices = estimator.multiple or 1, len(whole.devices)
    for number, unit in (
        (game.pack, f"augment.packing.size={game.pack}"),
        (slice_, f"estimator.size={slice_}"),
        (devices, f"the number of devices, {devices}"),
    ):
        if rows % number:
            raise UserError(
                f"{key}={rows}: must be a multiple of {unit}, e.g. {key}={math.ceil(rows / number) * number}."
            )
    if slice_ > 1 and slice_ % devices:
        raise UserError(
            f"estimator.size={slice_}: must be a multiple of the number of devices, {devices}, because each slice "
            f"is split over the devices. Set e.g. estimator.size={math.ceil(slice_ / devices) * devices}."
        )


def _name(node: dict[str, Any]) -> str:
    """The name of the target of a checked node, for messages."""
    name: str = node["_target_"].rpartition(".")[2]
    return name


def evaluation_of(config: dict[str, Any]) -> tuple[dict[str, Metric], Callable[[Dataset], Extractor]]:
    """A pair: the metrics of a checked configuration by name, and the factory of their feature extractor.

    The factory is a function that takes the reference data set and returns the feature extractor.
    """
    filled = check.from_environment(config)
    return _make(filled["metric"]) or {}, _make(filled["features"])


def dataset(config: dict[str, Any]) -> Dataset | None:
    """The data set of a checked configuration, after the treatment of copies, or None for ``dataset=none``."""
    filled = check.from_environment(config)
    return _dataset(filled, _make(filled["estimator"]))


def _dataset(filled: dict[str, Any], estimator: Estimator) -> Dataset | None:
    node = filled["dataset"] or {}
    # A table without a choice of its own takes the representation that private training needs.
    if estimator.private and node.get("normalisation", "") is None and node.get("schema", "") is not None:
        node["normalisation"] = "range"
    data = _make(filled["dataset"])
    if data is not None and not isinstance(data, Dataset):
        raise UserError(
            f"dataset: the function in _target_ must return a gan_cli.data.Dataset, but it returned "
            f"{type(data).__name__}. Correct the function."
        )
    if data is None:
        return None
    chosen = dataclasses.replace(data, sampler=_make(filled["sampler"]), private=estimator.private is not None)
    return canaries.planted(duplicates.treated(chosen), filled["seed"])


def build_setup(filled: dict[str, Any], spec: Spec | None, estimator: Estimator | None = None) -> TrainSetup:
    """Build the game, the strategy and the optimisers.

    Args:
        filled: a checked configuration with environment variables filled in. Its numbers may be traced.
        spec: the features of an example by name, or None for a run without data.
        estimator: the estimator that ``filled`` describes. With None, the function builds it.

    Raises:
        UserError: ``optim`` has options of an unknown player, or an object cannot be built from its options.
    """
    needs = options_of(filled["game"]["_target_"], filled["modules"]).positional
    model = _make(filled["model"])
    available = {
        "spec": spec,
        "model": model.for_examples(spec["x"]) if isinstance(model, Model) and spec and "x" in spec else model,
        "loss": _make(filled["loss"]),
        "penalties": _make(filled["penalty"]) or {},
        "augments": _make(filled["augment"]) or {},
        "precision": filled["train"]["precision"],
    }
    game = _make(filled["game"])
    if needs:
        game = game(*(available[need] for need in needs))
    named = [name for name, value in filled["optim"].items() if isinstance(value, dict)]
    for player in named:
        if player not in game.players:
            near = nearest(player, game.players)
            raise UserError(
                f"optim.{player}: there is no such player or option.{near} Players: {', '.join(game.players)}."
            )
    estimator = estimator or _make(filled["estimator"])
    assert estimator is not None
    if estimator.private:
        game = game.private()
        private.check(game)
    estimators.check(_name(filled["estimator"]), estimator, game, pads=False)
    strategy = _strategy(filled, game, spec, estimator)
    optim = {player: check.player_node(filled["optim"], player) for player in game.players}
    for player, node in optim.items():
        for length in {"decay_steps", "warmup_steps"} & node.keys():
            # Users give the length of a schedule in training steps, but an optimiser counts updates of its player.
            node[length] = node[length] * strategy.updates[player]
    optimisers = {player: _optimiser(_make(node, f"optim (for the {player})")) for player, node in optim.items()}
    strategy.check(optimisers)
    return TrainSetup(game, strategy, optimisers, filled["seed"])


def _strategy(filled: dict[str, Any], game: Game, spec: Spec | None, estimator: Estimator) -> Strategy:
    """The strategy of a game, which takes its gradients with the estimator."""
    if estimator.private:
        estimator = private.bound(estimator, filled["train"]["batch_size"], spec)
    strategy: Strategy = _make(filled["strategy"])(game, estimator)
    return strategy


def _optimiser(made: Any) -> Optimiser:
    """Return an optimiser of this package unchanged, or wrap an Optax transformation as an ``Optimiser``."""
    return made if isinstance(made, Optimiser) else Optimiser(made.init, made.update)


def _make(node: Any, label: str = "") -> Any:
    """Build the object that a checked node describes: call its ``_target_`` with its options.

    Nested nodes are built first. A list becomes a list of objects. A dictionary without ``_target_`` becomes a
    dictionary of objects, or None if it is empty. With ``_partial_``, the result is a ``functools.partial`` of the
    target. Hydra's ``instantiate`` is not used, because it rejects traced numbers and interprets keys that
    ``check`` does not check. The configuration determines the type of the result, so the static type is Any.

    Args:
        node: the checked node, or a value without nodes, which is returned unchanged.
        label: the beginning of an error message. If ``label`` is empty, the message begins with the target's name.

    Raises:
        UserError: the target raises a TypeError or a ValueError when it is called with the options.
    """
    if isinstance(node, list):
        return [_make(item) for item in node]
    if not isinstance(node, dict):
        return node
    options = {name: _make(value) for name, value in node.items() if name not in ("_target_", "_partial_")}
    if "_target_" not in node:
        return options or None
    module, _, name = node["_target_"].rpartition(".")
    target = getattr(importlib.import_module(module), name)
    if node.get("_partial_"):
        return functools.partial(target, **options)
    try:
        return target(**options)
    except (TypeError, ValueError) as error:
        if isinstance(error, jax.errors.JAXTypeError):
            raise
        raise UserError(f"{label or node['_target_']}: {error}") from error


def _check_eigenvalues(whole: Experiment) -> None:
    """Raise a UserError if computing the eigenvalues of the Jacobian needs more memory than is available."""
    params = jax.eval_shape(lambda: init_state(whole.setup)).params
    needed = bytes_needed(sum(leaf.size for leaf in jax.tree.leaves(params)), whole.train.eigenvalues)
    if needed > available_memory():
        raise UserError(
            f"train.eigenvalues={whole.train.eigenvalues}: needs about {needed / 2**30:.0f} GiB of memory, and "
            f"{available_memory() / 2**30:.0f} GiB are available. Choose fewer eigenvalues, e.g. "
            "train.eigenvalues=4, or a smaller model."
        )
