"""Trains the reference runs of a privacy audit, and scores examples under a run and its reference runs."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data import canaries
from gan_cli.data.dataset import BATCH, Canaries, Dataset
from gan_cli.engine.state import TrainState, init_state
from gan_cli.engine.steps import scan_steps
from gan_cli.errors import UserError
from gan_cli.metrics import Audit, Scores
from gan_cli.metrics.neighbours import neighbours
from gan_cli.metrics.targets import GENERATE, cropped
from gan_cli.privacy import accounting
from gan_cli.privacy.ledger import spent_by
from gan_cli.storage.run_directory import facts
from gan_cli.trained.restore import RestoredRun
from gan_cli.trained.sampling import runners
from gan_cli.types import Tree

log = logging.getLogger(__name__)
_SAMPLES = 5_000  # samples of each generator, among which the nearest one to an example is searched
_STREAM = 8  # number of the stream of random numbers of a seed from which the reference runs derive
Arrays = Mapping[str, np.ndarray]


def audited(run: RestoredRun, references: int, examples: int, seed: int) -> Audit:
    """The scores of training examples, held-out examples and canaries under a run and its reference runs.

    A reference run starts with the initial parameters of the run and makes as many steps with the same options. Its
    batches and its noise are drawn anew. Half of the examined examples, and half of the canaries, are among its
    training examples, which are as many as those of the run. Every second reference run has the other halves.

    Args:
        run: the run, restored with its data.
        references: number of reference runs.
        examples: largest number of training examples, and of held-out examples, that are examined.
        seed: seed of the choice of examples, and of the reference runs.

    Raises:
        UserError: the game has no score, or reference runs cannot be trained.
    """
    data = _checked(run)
    assert data.held_out is not None
    planted = canaries.read(run.directory)
    if data.planted is not None and planted is None:
        log.warning(
            "%s: this copy of the run has no file private/canaries.npz, so epsilon is not bounded from below.",
            run.directory,
        )
    rng = np.random.default_rng([seed, _STREAM])
    own = data.size - (0 if data.planted is None else int(data.planted.included.sum()))
    count = min(examples, data.held_out_size, own // 2)
    order = rng.permutation(own)
    examined = _joined(data.take(order[:count]), _rows(data.held_out, rng.permutation(data.held_out_size)[:count]))
    member = np.arange(2 * count) < count
    common, extra = data.take(order[count:]), planted or Canaries(_rows(examined, np.arange(0)), np.zeros(0, bool))
    trained, with_canary = _halves(2 * count, references, rng), _halves(len(extra.included), references, rng)
    sets = [
        _joined(common, _rows(examined, a), _rows(extra.examples, b))
        for a, b in zip(trained, with_canary, strict=True)
    ]
    log.info("%s: training %d reference runs of %d steps.", run.directory, references, run.step)
    states = [run.state, *_trained(run, data, sets, seed)]
    scored = np.stack([_of_networks(run, state, _joined(examined, extra.examples), seed) for state in states])
    near = np.stack([_of_samples(run, state, data, examined, seed) for state in states])
    found = {"": _scores(scored[:, : 2 * count], trained), "_generator": _scores(near, trained)}
    promised, delta = _promised(run)
    return Audit(
        found,
        member,
        _scores(scored[:, 2 * count :], with_canary) if planted is not None else None,
        extra.included,
        promised,
        delta,
    )


def _checked(run: RestoredRun) -> Dataset:
    """The data of a run that can be audited.

    Raises:
        UserError: the run cannot be audited.
    """
    path, data, game = run.directory, run.experiment.dataset, run.experiment.game
    if data is None:
        raise UserError(f"{path}: the audit needs the data of the run. Leave out --reference.")
    sampler = run.experiment.config["sampler"]["_target_"].rpartition(".")[2]
    if data.streams or len(data.domains) > 1 or sampler not in ("shuffled", "poisson"):
        raise UserError(
            f"{path}: reference runs need data of one domain in memory, in batches of sampler=shuffled or poisson. "
            "Choose another run."
        )
    if data.held_out is None or not all(name in data.held_out for name in data.spec):
        raise UserError(
            f"{path}: the audit compares training examples with held-out examples, and {data.name} has none. "
            "Choose a run on data with held-out examples, e.g. with dataset.hold_out=0.2."
        )
    if run.experiment.config["init_from"] is not None:
        raise UserError(f"{path}: started with parameters of another run, which reference runs cannot repeat.")
    batch = {name: jax.ShapeDtypeStruct((2, *one.shape), np.asarray(one.encode(data.arrays[name][:1])).dtype)
             for name, one in data.spec.items()}  # fmt: skip
    score = jax.eval_shape(game.membership_scores, run.state.params, run.state.net_state, batch, jax.random.key(0))
    if score is None or GENERATE not in game.tasks:
        raise UserError(
            f"{path}: the game of this run has no likelihood and no logit of a single example. Membership "
            "inference needs game=gan without packing, or game=vae."
        )
    return data


def _halves(n: int, runs: int, rng: np.random.Generator) -> np.ndarray:
    """Booleans ``[runs, n]``: random halves. Every second run has the other half. Of odd n, one is in no half."""
    found = np.zeros((runs, n), bool)
    for i in range(runs):
        if i % 2 == 0:
            order = rng.permutation(n)
        found[i, order[i % 2 * (n // 2) :][: n // 2]] = True
    return found


def _trained(run: RestoredRun, data: Dataset, sets: Sequence[Arrays], seed: int) -> list[TrainState]:
    """The states of reference runs after as many steps as the run has made, trained as one ensemble.

    Args:
        run: the run.
        data: the data of the run.
        sets: the training examples of each reference run, equally many.
        seed: seed of the batches and of the noise.
    """
    experiment, steps = run.experiment, run.step
    setup, options = experiment.setup, experiment.train
    feed = dataclasses.replace(data, examples=sets[0], planted=None, columns={}).feed
    keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), _STREAM), len(sets))
    start = jax.jit(functools.partial(init_state, setup))()
    # Under vmap, convolutions would become slow grouped convolutions.
    convolves = any(leaf.ndim > 2 for leaf in jax.tree.leaves(start.params))

    @functools.partial(jax.jit, static_argnums=3, donate_argnums=0)
    def advance(states: TrainState, arrays: Tree, keys: jax.Array, length: int) -> TrainState:
        def member(state: TrainState, arrays: Tree, key: jax.Array) -> TrainState:
            chunk = scan_steps(setup._replace(seed=key), feed, options.batch_size, options.ema, freeze=False)
            after: TrainState = chunk(state._replace(step=states.step), True, arrays, length)[0]
            return after._replace(step=None)

        own = states._replace(step=None), arrays, keys
        after = jax.lax.map(lambda one: member(*one), own) if convolves else jax.vmap(member)(*own)
        return after._replace(step=states.step + length)

    alone = start._replace(step=None)
    states = jax.tree.map(lambda leaf: jnp.stack([leaf] * len(sets)), alone)._replace(step=start.step)
    arrays = {name: jnp.stack([one[name] for one in sets]) for name in sets[0]}
    with experiment.devices.mesh():
        for at in range(0, steps, options.steps_per_call):
            states = advance(states, arrays, keys, min(options.steps_per_call, steps - at))
    found = jax.device_get(states)
    return [
        jax.tree.map(lambda leaf, i=i: leaf[i], found._replace(step=None))._replace(step=found.step)
        for i in range(len(sets))
    ]


def _of_networks(run: RestoredRun, state: TrainState, examples: Arrays, seed: int) -> np.ndarray:
    """The scores ``[n]`` of stored examples by the networks that read the data (``Game.membership_scores``)."""
    spec, score = run.experiment.dataset.spec, jax.jit(run.experiment.game.membership_scores)  # type: ignore[union-attr]
    found = []
    for i in range(0, len(next(iter(examples.values()))), BATCH):
        batch = {n: jnp.asarray(one.encode(cropped(one, examples[n][i : i + BATCH]))) for n, one in spec.items()}
        found.append(np.asarray(score(state.params, state.net_state, batch, jax.random.key(seed))))
    return np.concatenate(found)


def _of_samples(run: RestoredRun, state: TrainState, data: Dataset, examples: Arrays, seed: int) -> np.ndarray:
    """Minus the distance ``[n]`` of each example to the nearest sample, as networks see them."""
    feature, runner = data.feature, runners(run.experiment.game)[GENERATE]

    def seen(stored: Any) -> np.ndarray:
        encoded = np.asarray(feature.encode(cropped(feature, np.asarray(stored))))
        return encoded.reshape(len(encoded), -1).astype(np.float32)

    samples = np.concatenate([seen(part) for part in runner.numbered(state, seed, _SAMPLES)])
    distances: np.ndarray = np.sqrt(neighbours(seen(examples[data.main]), samples)[1])
    return -distances


def _promised(run: RestoredRun) -> tuple[dict[str, float], float]:
    """A pair: the promised epsilon and that of the counted updates, and delta. Without a promise: {} and 0."""
    record, ledger = facts(run.directory), run.experiment.ledger
    if "privacy" not in record or ledger is None:
        return {}, 0.0
    updates = _updates(run)
    counted = ledger.own(run.step)._replace(steps=updates, truncation=ledger.overflow * updates)
    earlier = spent_by(record, str(run.directory))[:-1]
    return {
        "epsilon_promised": math.inf if record["privacy"]["epsilon"] is None else record["privacy"]["epsilon"],
        "epsilon_counted": accounting.epsilon((*earlier, counted), ledger.delta).value,
    }, ledger.delta


def _updates(run: RestoredRun) -> int:
    """Number of updates of the player that reads the data: the larger of two counts that the ledger does not make.

    The first is the step of the checkpoint times the updates that the strategy makes in a step. The second is the
    count of the player's optimiser, which plain gradient descent does not have.
    """
    experiment = run.experiment
    readers = experiment.game.reads_data or experiment.game.players
    made = int(run.state.step) * sum(experiment.strategy.updates[player] for player in readers)
    states = {player: run.state.opt_state[player] for player in readers}
    leaves = jax.tree_util.tree_leaves_with_path(states)
    counts = [leaf for path, leaf in leaves if str(path[-1]).strip(".'[]") == "count" and np.ndim(leaf) == 0]
    return max([made, *map(int, counts)])


def _scores(scores: np.ndarray, trained: np.ndarray) -> Scores:
    return Scores(scores[0], scores[1:], trained)


def _rows(arrays: Arrays, rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: one[rows] for name, one in arrays.items()}


def _joined(*parts: Arrays) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
