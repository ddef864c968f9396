"""Private training: clipped gradients of single examples, noise, and what reads the data."""

from __future__ import annotations

import functools
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import TINY, Program, environment
from test_devices import check as check_devices
from test_estimators import LAYERS, Case, close, marked

from gan_cli import losses
from gan_cli.config.build import experiment
from gan_cli.engine.state import init_state
from gan_cli.errors import UserError
from gan_cli.estimators import per_example
from gan_cli.estimators.private import bound, private
from gan_cli.estimators.private import check as check_game
from gan_cli.games.gan import GAN
from gan_cli.models import conv
from gan_cli.strategies.updates import gradient

ROWS = 8
PRIVATE = ["estimator=private", "estimator.noise_multiplier=1", "sampler=poisson", "metric=none"]
PLAIN = [*TINY, "model.discriminator.dropout=0"]


class PrivateCase(Case):
    """A private game on a batch with a mask, of which three rows do not count."""

    def __init__(self, *overrides: str):
        super().__init__(*PRIVATE, *overrides)
        public = {"x", "label", "mask"}
        self.batch = self.padded({name: x for name, x in self.batch.items() if name in public})

    def padded(self, batch=None):
        if batch is None:
            return super().padded()
        rows = {name: jnp.concatenate([x, x[:3]]) for name, x in batch.items()}
        return self.game.noise(rows, self.key) | {"mask": jnp.arange(ROWS + 3) < ROWS}

    def private(self, clip: float, noise: float = 0.0, size: int = ROWS):
        return bound(private(max_grad_norm=clip, noise_multiplier=noise), size, self.game.spec)


NETWORKS = {
    "dense and dropout": LAYERS["dense and dropout"],
    "layer norm, two heads": [*LAYERS["layer norm"], "model.conditional=acgan"],
    "spectral norm, embedding": [*LAYERS["projection"], "loss=wgan", "augment=[diffaugment]"],
    "label as an input": LAYERS["concat"],
    "convolutions": LAYERS["convolutions"],
    "r3gan blocks": ["model=r3gan", "loss=lsgan", "penalty=[r1,r2]"],
}
SLOW = [name for name in NETWORKS if name != "dense and dropout"]


@pytest.mark.parametrize("name", marked(NETWORKS, SLOW))
def test_the_gradient_equals_a_loop_over_examples(name):
    """The gradient without noise equals a loop that clips the gradient of one example at a time.

    The gradient of the terms that read no data is that of a batch without data. Every example has its own key.
    """
    case = PrivateCase(*NETWORKS[name])
    state, player = case.state, "discriminator"
    row_key = jax.random.split(jax.random.fold_in(case.key, 2**31))[1]
    keys = jax.random.split(row_key, ROWS + 3)
    estimator = case.private(1.0)
    public = estimator.without_data(case.batch)
    assert not public["x"].any() and len(public["x"]) == ROWS and "mask" not in public
    fake, _ = case.game.fake(state.params, state.net_state, public, case.key, 0)

    def part(own, batch, key, fake, of_data):
        terms = case.game.loss(
            player, state.params | {player: own}, state.net_state, batch, key, state.step, fake
        ).terms.values()
        parts = [t.weight * jnp.mean(t.values) for t in terms if (t.reads_data and t.values.ndim > 0) == of_data]
        return sum(parts, jnp.zeros(()))

    slope = jax.jit(jax.grad(functools.partial(part, of_data=True)))
    own = state.params[player]
    rows = [
        slope(own, {name: x[i][None] for name, x in case.batch.items() if name != "mask"}, keys[i], fake[i][None])
        for i in range(ROWS)
    ]
    norms = [float(optax.tree.norm(row)) for row in rows]
    clip = sorted(norms)[ROWS // 2]
    assert max(norms) > 1.01 * min(norms) > 0
    expected = jax.jit(jax.grad(functools.partial(part, of_data=False)))(own, public, case.key, fake)
    for row, norm in zip(rows, norms, strict=True):
        scale = min(1.0, clip / norm) / ROWS
        expected = jax.tree.map(lambda e, g, scale=scale: e + scale * g, expected, row)
    close(case.gradient(case.private(clip), player).gradient, expected)


def functions():
    """Losses of one example with all ways in which a parameter is read, and whether it has ghost norms."""
    w = jax.random.normal(jax.random.key(0), (5, 5))

    def dense(w, x):
        return jnp.tanh(x[None] @ w).sum()

    def scanned(w, x):
        return jnp.sum(jax.lax.scan(lambda h, _: (jnp.tanh(h @ w), None), x, None, length=3)[0] ** 2)

    def of_image(w, x):
        image = (x[:, None] * x).reshape(1, 5, 5, 1)
        return jnp.sum(jnp.tanh(conv.conv(image, w[:, :, None, None], 2)))

    return w, {
        "dense": (dense, True),
        "transposed": (lambda w, x: jnp.sin(w @ x).sum(), True),
        "twice": (lambda w, x: (jnp.tanh(x @ w) @ w.T * x).sum(), False),
        "twice by products": (lambda w, x: jnp.tanh(jnp.tanh(x @ w) @ w).sum(), True),
        "gradient penalty": (lambda w, x: jnp.sum(jax.grad(dense, argnums=1)(w, x) ** 2), True),
        "inside jit": (lambda w, x: jax.jit(dense)(w, x) + dense(w, 2 * x), True),
        "also decayed": (lambda w, x: dense(w, x) + x[0] * jnp.sum(w**2), False),
        "recurrent": (scanned, False),
        "condition": (lambda w, x: jax.lax.cond(x[0] > 0, dense, scanned, w, x), False),
        "embedding": (lambda w, x: jnp.sum(w[jnp.argmax(x)] ** 2), False),
        "several vectors": (lambda w, x: jnp.tanh(jnp.outer(x, x) @ w).sum(), False),
        "convolution": (of_image, False),
        "unused result": (lambda w, x: jnp.cos(w).sum() * 0 + dense(w, x), False),
        "dead code": (lambda w, x: (dense(w, x), jnp.cos(w).sum())[0], True),
        "unused": (lambda w, x: jnp.sum(x), False),
    }


@pytest.mark.parametrize("name", functions()[1])
@pytest.mark.parametrize("budget", [2**26, 4 * 25 * 3])
def test_every_way_to_read_a_parameter_is_clipped(name, budget, monkeypatch):
    """The clipped sum equals clipping the gradients that ``vmap`` computes, in one slice and in several."""
    monkeypatch.setattr(per_example, "_BUDGET", budget)
    w, every = functions()
    function, ghost = every[name]
    params = {"bias": jnp.ones(5), "w": w}
    x, mask = jax.random.normal(jax.random.key(1), (6, 5)), jnp.arange(6) != 2

    def loss(params, x):
        return function(params["w"], x + params["bias"] * 0.1)

    slopes = jax.vmap(jax.grad(loss), (None, 0))(params, x)
    norms = jax.vmap(optax.tree.norm)(slopes)
    clip = float(jnp.sort(norms)[3]) or 1.0
    scale = mask * jnp.minimum(1, clip / (norms + 1e-20))
    expected = jax.tree.map(lambda g: jnp.tensordot(scale, g, 1), slopes)
    close(jax.jit(lambda p: per_example.clipped_sum(loss, p, x, mask, clip))(params), expected)
    closed = jax.make_jaxpr(lambda leaves, x: loss(dict(zip(("bias", "w"), leaves, strict=True)), x))(
        jax.tree.leaves(params), x[0]
    )
    assert {p.kernel for p in per_example._Program(closed, 2).products.values()} == ({1} if ghost else set())


def test_examples_that_overflow_or_do_not_count_add_nothing():
    """NaN and infinity in padded rows, and in rows whose gradient is not finite, leave the sum finite."""
    w = jnp.ones((3, 2))
    x = jnp.array([[1.0, 2, 3], [jnp.nan] * 3, [3e38] * 3, [2.0, 2, 2]])
    found = per_example.clipped_sum(lambda w, x: jnp.sum((x @ w) ** 2), w, x, jnp.array([1, 0, 1, 1]), 1.0)
    assert jnp.isfinite(found).all() and optax.tree.norm(found) <= 2 + 1e-5


@pytest.mark.parametrize("seed", range(3))
def test_gradients_that_nearly_cancel_are_clipped(seed):
    """A kernel that is read twice, with gradients of norm 10,000 whose difference has norm 5, above the clip."""
    keys = jax.random.split(jax.random.key(seed), 3)
    w, x = jnp.zeros((40, 30)), jax.random.normal(keys[0], (50, 40))
    u, shift = jax.random.normal(keys[1], (30,)), jax.random.normal(keys[2], (40,))
    scale = 1e4 / (optax.tree.norm(x[0]) * optax.tree.norm(u))
    shift *= 5 / (scale * optax.tree.norm(shift) * optax.tree.norm(u))

    def loss(w, x):
        return scale * ((x @ w) @ u - ((x + shift) @ w) @ u)

    found = jax.vmap(lambda x: per_example.clipped_sum(loss, w, x[None], jnp.ones(1), 1.0))(x)
    norms = jnp.sqrt((found**2).sum((1, 2)))
    assert jnp.isfinite(norms).all() and norms.max() < 1.01


class ReadsInNoise(GAN):
    """A game whose random inputs read the data, in one of several ways."""

    how = staticmethod(lambda batch, key: {})

    def noise(self, batch, key):
        return super().noise(batch, key) | self.how(batch, key)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("class", lambda batch, key: {"class": batch["label"]}),
        ("centre", lambda batch, key: {"centre": jnp.broadcast_to(batch["x"].mean(), batch["x"].shape[:1])}),
        ("x", lambda batch, key: {"x": batch["x"][::-1]}),
        ("count", lambda batch, key: {"count": jax.jit(jnp.cumsum)(batch["mask"])}),
        ("loop", lambda batch, key: {"loop": jax.lax.fori_loop(0, 3, lambda i, x: x + 1, batch["x"])}),
        (None, lambda batch, key: {"u": jax.random.bits(key, batch["x"].shape), "z": jnp.zeros_like(batch["x"])}),
    ],
)  # fmt: skip
def test_random_inputs_that_read_the_data_are_refused(name, how):
    game = experiment([*TINY, "dataset=mnist5k"]).game
    game.__class__ = type("Game", (ReadsInNoise,), {"how": staticmethod(how)})
    if name is None:
        return check_game(game.private())
    with pytest.raises(UserError, match=rf"its random inputs \({name}\)"):
        check_game(game.private())


def test_one_example_changes_the_step_by_at_most_the_norm():
    """Without one example, only the discriminator's gradient changes, by at most C / B.

    With another example or another label instead, it changes by at most 2 C / B.
    """
    clip, size = 0.01, 16
    options = [*PLAIN, *PRIVATE, "dataset=mnist5k", "model.conditional=concat", "strategy=simultaneous"]
    options += ["optim=sgd", "optim.lr=1", "optim.clip_norm=null", f"train.batch_size={size}", "penalty=[wgan_gp]"]
    e = experiment([*options, "estimator.noise_multiplier=0", f"estimator.max_grad_norm={clip}"])
    state = init_state(e.setup)
    keys = jax.random.split(jax.random.key(1))
    batch = {
        "x": jax.random.normal(keys[0], (size + 8, 28, 28, 1)),
        "label": jax.random.randint(keys[1], (size + 8,), 0, 10),
        "mask": (jnp.arange(size + 8) < size).astype(jnp.float32),
    }
    step = jax.jit(lambda batch: e.setup.step(state, [batch], jax.random.key(2)))
    before, metrics = step(batch)
    others = {
        "without": (1, batch | {"mask": batch["mask"].at[5].set(0)}),
        "other": (2, batch | {"x": batch["x"].at[5].set(-9), "label": batch["label"].at[5].add(1) % 10}),
        "other label": (2, batch | {"label": (batch["label"].at[5].add(1)) % 10}),
        "padding": (0, batch | {"x": batch["x"].at[size:].set(jnp.nan)}),
    }
    for name, (factor, other) in others.items():  # by name, the largest distance in units of C / B, and the batch
        after, more = step(other)
        moved = jax.tree.map(lambda a, b: a - b, after.params, before.params)
        distance = float(optax.tree.norm(moved["discriminator"]))
        assert distance <= factor * clip / size * (1 + 1e-4), name
        assert distance > 0.1 * factor * clip / size or not factor, name
        for player_state in (lambda s: s.params["generator"], lambda s: s.net_state, lambda s: s.average):
            close(player_state(after), player_state(before), rtol=0, atol=0)
        assert metrics.keys() == more.keys()
        for key in metrics:
            assert key == "discriminator/grad_norm" or metrics[key] == more[key], (name, key)


def test_generated_examples_have_labels_that_do_not_depend_on_the_data():
    case = PrivateCase("model.conditional=concat")
    n = 5000
    real = {"x": jnp.zeros((n, 28, 28, 1)), "label": jnp.full(n, 3), "mask": jnp.zeros(n)}
    batch = case.game.noise(real, case.key)
    other = case.game.noise(real | {"label": jnp.zeros(n, jnp.int32), "mask": jnp.ones(n)}, case.key)
    close([batch["fake_label"], batch["latents"]], [other["fake_label"], other["latents"]], rtol=0, atol=0)
    counts = np.bincount(batch["fake_label"], minlength=10)
    assert ((counts - n / 10) ** 2 / (n / 10)).sum() < 27.9  # chi-squared with 9 degrees of freedom, p = 0.001


@pytest.mark.slow
def test_the_noise_has_the_stated_variance():
    """10,000 gradients of a batch without examples: Gaussian noise of sigma C / B, independent between draws."""
    case = PrivateCase("dataset=ring", "model.discriminator.width=2", "model.discriminator.dropout=0")
    clip, sigma, draws = 0.5, 3.0, 10_000
    batch = case.batch | {"mask": jnp.zeros(ROWS + 3)}
    find = functools.partial(gradient, case.game, case.private(clip, sigma), "discriminator", case.state)
    public = jax.tree.leaves(case.gradient(case.private(clip), "discriminator", batch).gradient)

    @jax.jit
    @jax.vmap
    def noise(key):
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(find(batch, key).gradient)])

    flat = np.concatenate([np.ravel(leaf) for leaf in public])
    drawn = (np.asarray(noise(jax.random.split(jax.random.key(8), draws)), np.float64) - flat) / (
        sigma * clip / ROWS
    )
    size = drawn.size
    assert abs(drawn.mean()) < 4 / size**0.5
    assert abs((drawn**2).mean() - 1) < 4 * (2 / size) ** 0.5
    assert abs((drawn**4).mean() - 3) < 4 * (96 / size) ** 0.5
    assert np.abs(np.corrcoef(drawn.T) - np.eye(drawn.shape[1])).max() < 6 / draws**0.5
    assert np.abs((drawn[1:] * drawn[:-1]).mean(0)).max() < 6 / draws**0.5


@pytest.mark.slow
def test_without_clipping_and_noise_a_run_equals_the_plain_run(monkeypatch):
    """Batches of all examples, as many as ``train.batch_size``, lead to the same state after four steps."""
    # Of neighbours with 16 and 17 examples, one has full batches. The run itself truncates none.
    monkeypatch.setattr("gan_cli.privacy.ledger.Ledger.check_capacity", lambda *_: None)
    options = [*PLAIN, "dataset=ring", "dataset.size=16", "train.batch_size=16", "sampler=poisson"]
    options += ["metric=none", "optim=sgd", "penalty=[r1,r2]", "model.discriminator.norm=spectral"]
    own = ["estimator=private", "estimator.noise_multiplier=0", "estimator.max_grad_norm=1e9"]
    plain, clipped = (Program(experiment([*options, *more])) for more in ([], own))
    plain.run(4), clipped.run(4)
    close(clipped.state, plain.state)


def test_batches_and_noise_derive_from_the_noise_key():
    """One key leads to one run, and another key to another run. The metrics do not read the data.

    Batch normalisation in the generator is allowed, because its statistics are of generated examples.
    """
    program = Program(experiment([*PLAIN, "dataset=ring", *PRIVATE, "model.generator.norm=batch"]))
    start = jax.device_get(program.state)

    def trained(seed):
        state, metrics, _ = program.chunk(jax.device_put(start), program.arrays, 4, jax.random.key(seed))
        assert all(np.isfinite(values).all() for values in metrics.values())
        assert not {name for name in metrics if "real" in name or "accuracy" in name}
        return state.params

    a, b, c = map(trained, (1, 1, 2))
    close(a, b, rtol=0, atol=0)
    assert all(np.any(x != y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(c), strict=True))


@pytest.mark.parametrize(
    "loss", [losses.minimax, losses.nonsaturating, losses.lsgan, losses.wgan, losses.hinge, losses.fgan]
)
def test_losses_without_pairs_are_sums(loss):
    adversarial = loss()
    real, fake = jax.random.normal(jax.random.key(0), (2, 9)) * 0.3
    mixed = adversarial.discriminator(real, fake) + adversarial.discriminator(fake, real)
    alone = adversarial.discriminator(real, real) + adversarial.discriminator(fake, fake)
    close(mixed, alone)
    assert not adversarial.pairs
    slope = jax.jacobian(adversarial.generator, argnums=1)
    close(slope(real, fake), slope(fake, fake))


@pytest.mark.slow
def test_an_autoencoder_is_the_only_player_and_clips_every_term():
    program = Program(experiment([*TINY, *PRIVATE, "game=vae", "dataset=mnist5k", "optim=sgd"]))
    metrics = program.run(2)
    (player,) = program.experiment.game.players
    assert (metrics[f"{player}/loss"] == 0).all() and (metrics[f"{player}/grad_norm"] > 0).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["sampler=shuffled"], "Set sampler=poisson."),
        (["model.discriminator.norm=batch"], "Set model.discriminator.norm=layer."),
        (["model.discriminator.minibatch=std"], "Set model.discriminator.minibatch=none."),
        (["augment=[packing]"], "Set augment=[]."),
        (["augment=[adaptive]"], "Set augment=[]."),
        (["penalty=[dragan]"], "Set penalty=[]."),
        (["loss=relativistic"], "Set loss=nonsaturating."),
        (["loss=relativistic_average"], "Set loss=nonsaturating."),
        (["train.precision=bfloat16"], "Set train.precision=float32."),
        (["strategy=unrolled"], "strategy=unrolled: differentiates"),
        (["train.ensemble={seed: [0, 1]}"], "Set train.ensemble=null."),
        (["estimator.max_grad_norm=0"], "estimator.max_grad_norm=0"),
    ],
    ids=str,
)
def test_combinations_that_break_the_guarantee_are_refused(options, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        experiment([*TINY, *PRIVATE, *options])
    assert "\n" not in str(error.value)


def test_a_game_without_data_is_refused():
    with pytest.raises(UserError, match="no data"):
        experiment(["experiment=bilinear", *PRIVATE[:3]])


def test_a_game_in_which_several_players_read_the_data_is_refused():
    with pytest.raises(UserError, match="the losses of the players"):
        experiment([*TINY, *PRIVATE, "game=vae_gan"])


@pytest.mark.slow
def test_several_devices_train_as_one():
    options = [*PLAIN, *PRIVATE, "dataset=ring", "optim=sgd", "optim.lr=0.01"]
    check_devices(*options, "estimator.noise_multiplier=0.1", only_sums=False)


@pytest.mark.slow
def test_two_devices_compute_the_gradient_of_one():
    """With the same batches and masks, to 1e-5. Plain gradient descent with rate 1 moves by the gradient."""
    options = [*PLAIN, *PRIVATE, "dataset=mnist5k", "model.conditional=projection", "optim=sgd", "optim.lr=1"]
    options += ["strategy=simultaneous", "train.steps=1", "train.steps_per_call=1"]
    code = f"""
import jax, numpy as np
from gan_cli.config.build import experiment
def gradient(devices):
    program = experiment({options!r} + [f"train.devices={{devices}}"]).compile(jax.random.key(5))
    before = jax.device_get(program.init().params)
    after, _, _ = program.run(program.init(), 0)
    return jax.tree.map(lambda a, b: np.asarray(a) - b, jax.device_get(after.params), before)
one, two = gradient(1), gradient(2)
for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
    assert np.abs(a).max() > 0
    np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5 * np.abs(a).max())
"""
    more = environment(JAX_NUM_CPU_DEVICES="2")
    done = subprocess.run([sys.executable, "-c", code], env=more, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.comparison
@pytest.mark.filterwarnings("ignore:optax.global_norm is deprecated")
def test_clipped_sums_equal_jax_privacy():
    """jax-privacy's clipped gradient, for a network with two dense layers and a convolution."""
    clipping = pytest.importorskip("jax_privacy.clipping")
    case = PrivateCase("model=dcgan", "model.discriminator.norm=none")
    state, own = case.state, case.state.params["discriminator"]

    def loss(own, x):
        params = state.params | {"discriminator": own}
        return case.game.network("discriminator", params, state.net_state)(
            x[None], train=True, key=jax.random.key(0)
        ).sum()

    x = case.batch["x"]
    other = clipping.clipped_grad(loss, l2_clip_norm=0.02, batch_argnums=1, keep_batch_dim=False)
    close(per_example.clipped_sum(loss, own, x, jnp.ones(len(x)), 0.02), other(own, x))
