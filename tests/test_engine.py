"""The compiled program: a step depends on configuration, seed and step only, without transfers or recompilation."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest
from conftest import TINY, Program, loss_value

from gan_cli.config.build import experiment
from gan_cli.data.scaling import normalise

# All stateful features together: batch and spectral normalisation, dropout, moving average, n_critic, momentum, a
# schedule and a lazy penalty. With 4,500 digits and three batches of 900 per step, epochs end within steps.
EVERYTHING = [
    *TINY,
    "train.batch_size=900",
    "model.generator.norm=batch",
    "model.discriminator.norm=spectral",
    "model.discriminator.dropout=0.2",
    "strategy.n_critic=3",
    "optim=momentum",
    "optim.schedule=cosine",
    "optim.decay_steps=100",
    "penalty=[r1]",
    "penalty.r1.interval=3",
    "train.ema=0.9",
    "dataset.flip=true",
]


def same(a, b):
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


def test_chunks_of_any_length_give_the_same_bits():
    e = experiment(EVERYTHING)
    whole, cut = Program(e), Program(e)
    metrics = whole.run(4)
    parts = [cut.run(length) for length in (1, 3)]
    assert same(whole.state, cut.state)
    for name, values in metrics.items():
        found = np.concatenate([part[name] for part in parts])
        last = name.endswith("update_ratio")  # logged for the last step of a call only
        np.testing.assert_array_equal(values[-1:] if last else values, found[-1:] if last else found)


def test_seeds_differ():
    a, b = (Program(experiment([*TINY, f"seed={seed}"])) for seed in (1, 2))
    assert not same(a.state.params, b.state.params)
    assert not np.array_equal(a.run(4)["generator/loss"], b.run(4)["generator/loss"])


def test_moving_average():
    p = Program(experiment([*TINY, "train.ema=0.75"]))
    average = jax.device_get(p.state.average["generator"])
    for _ in range(3):
        p.run(1)
        average = jax.tree.map(
            lambda a, new: 0.75 * a + 0.25 * np.asarray(new), average, p.state.params["generator"]
        )
    for a, b in zip(jax.tree.leaves(average), jax.tree.leaves(p.state.average["generator"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_no_transfers_and_one_program():
    p = Program(experiment(TINY))
    p.run(4)
    with jax.transfer_guard("disallow"):
        for _ in range(3):
            p.state, _, _ = p.chunk(p.state, p.arrays, 4)
    assert p.chunk._cache_size() == 1


def test_state_is_donated():
    p = Program(experiment(TINY))
    before = jax.tree.leaves(p.state)
    p.run(4)
    assert all(leaf.is_deleted() for leaf in before)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_players_own_rate_affects_that_player_only(player):
    """optim.<player>.lr does not change the first update of the other player."""
    common = Program(experiment([*TINY, "optim=sgd", "strategy=simultaneous"]))
    own = Program(experiment([*TINY, "optim=sgd", "strategy=simultaneous", f"optim.{player}.lr=0.123"]))
    common.run(1), own.run(1)
    other = ({"generator", "discriminator"} - {player}).pop()
    assert same(common.state.params[other], own.state.params[other])
    assert not same(common.state.params[player], own.state.params[player])


def test_a_player_may_have_another_optimiser():
    e = experiment([*TINY, "optim=adam", "optim@optim.discriminator=sgd", "optim.discriminator.lr=0.1"])
    p = Program(e)
    sizes = {player: len(jax.tree.leaves(p.state.opt_state[player])) for player in e.game.players}
    assert sizes["discriminator"] < sizes["generator"]  # SGD stores nothing, Adam two moments


def test_schedules_count_steps_instead_of_updates():
    """With n_critic updates per step, the rates of both players reach zero at the same step."""
    e = experiment([*TINY, "strategy.n_critic=3", "optim=sgd", "optim.clip_norm=null", "optim.schedule=linear"])
    assert e.config["optim"]["decay_steps"] == 8
    for player, moves in (("discriminator", 24), ("generator", 8)):
        optimiser = e.optimisers[player]
        state, one = optimiser.init(np.float32(0)), np.float32(1)
        rates = []
        for _ in range(moves + 1):
            update, state = optimiser.update(one, state, one)
            rates.append(-float(update))
        assert rates[-1] == 0 and rates[-2] > 0, player


def test_penalty_weight_follows_its_schedule():
    """Without decay_steps, the schedule spans the run, which has 8 steps in TINY."""
    e = experiment([*TINY, "penalty=[r1]", "penalty.r1.gamma=2.0", "penalty.r1.gamma_end=0.5"])
    params, net_state = e.game.init(jax.random.key(0))
    batch = {"x": normalise(jax.numpy.asarray(e.dataset.examples["x"][:8]))}
    loss = jax.jit(
        lambda step: loss_value(e.game, "discriminator", params, net_state, batch, jax.random.key(1), step)
    )
    (first, metrics), (middle, _), (last, _), (after, _) = (loss(step) for step in (0, 4, 8, 100))
    amount = metrics["discriminator/r1"]
    np.testing.assert_allclose([first - middle, first - last], [0.75 * amount, 1.5 * amount], rtol=1e-3)
    assert after == last


@pytest.mark.parametrize(
    ("model", "penalty"), [("mlp", "[r1]"), pytest.param("resnet", "none", marks=pytest.mark.slow)]
)
def test_bfloat16_keeps_float32_state(model, penalty):
    """Networks compute in bfloat16; parameters, moments, statistics and losses stay in float32."""
    options = [
        *TINY,
        f"model={model}",
        "model.discriminator.norm=spectral",
        "model.generator.norm=batch",
        f"penalty={penalty}",
    ]
    wide, narrow = (Program(experiment([*options, f"train.precision={p}"])) for p in ("float32", "bfloat16"))
    a, b = wide.run(4), narrow.run(4)
    for x in jax.tree.leaves((narrow.state, b)):
        assert x.dtype != jax.numpy.bfloat16
    for name in ("generator/loss", "discriminator/loss"):
        assert not np.array_equal(a[name], b[name])
        np.testing.assert_allclose(a[name], b[name], rtol=0.05, atol=0.02, err_msg=name)


def test_the_order_is_a_function_of_seed_and_step():
    """The order of the batches from step 5 on equals the end of the order from step 0 on."""
    from gan_cli.engine import randomness

    e = experiment([*TINY, "strategy.n_critic=2"])
    data = e.dataset
    order = np.asarray(randomness.order(data.feed, e.seed, 5, 3, 2, 8).indices[""])
    whole = np.asarray(randomness.order(data.feed, e.seed, 0, 8, 2, 8).indices[""])
    np.testing.assert_array_equal(order, whole[5:])
    assert order.shape == (3, 2, 8) and len(np.unique(order)) == 48


def test_moving_average_of_statistics():
    """The batch statistics are averaged in the same way as the weights."""
    program = Program(experiment([*TINY, "model.generator.norm=batch", "train.ema=0.75"]))
    own = lambda: jax.device_get(program.state.net_state["generator"])  # noqa: E731
    average = jax.device_get(program.state.average_state["generator"])
    for _ in range(3):
        program.run(1)
        average = jax.tree.map(lambda a, new: 0.75 * a + 0.25 * new, average, own())
    found = program.state.average_state["generator"]
    for a, b in zip(jax.tree.leaves(average), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    assert any((a != b).any() for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(own()), strict=True))


def test_the_average_of_a_schedule_free_optimiser_is_sampled():
    program = Program(experiment([*TINY, "optim=schedule_free", "optim.lr=0.01", "train.ema=0"]))
    program.run(4)
    state, optimiser = program.state, program.experiment.optimisers["generator"]
    expected = optimiser.evaluation_params(state.opt_state["generator"], state.params["generator"])
    pairs = list(zip(*map(jax.tree.leaves, (state.average["generator"], expected)), strict=True))
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
    assert any((a != p).any() for (a, _), p in zip(pairs, jax.tree.leaves(state.params["generator"]), strict=True))


@pytest.mark.parametrize("optimiser", ["adam", "adabelief", "amsgrad"])
def test_xla_computes_each_moment_once(optimiser):
    """The program copies as many arrays as with SGD. It would copy the old moment to compute the new one twice."""

    def copies(optimiser: str) -> int:
        steps = experiment([*TINY, f"optim={optimiser}", "metric=none"]).compile()
        return len(re.findall(r"= f32\S* copy\(", steps.lower(steps.init(), 4).compile().as_text()))

    assert copies(optimiser) == copies("sgd") > 0
