"""The variational autoencoder against closed forms: likelihoods, bounds, and probabilistic PCA."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.stats
from flax import nnx

from gan_cli.data.features import Image, Label, Vector
from gan_cli.errors import UserError
from gan_cli.games import likelihoods
from gan_cli.games.vae import VAE
from gan_cli.models import Model, dcgan, dirac, mlp, pacgan, r3gan, resnet

RNG = np.random.default_rng(0)


class LinearDecoder(nnx.Module):
    """Decoder without hidden layers: W z + b."""

    couples_batch = False

    def __init__(self, feature: Any, latent_dim: int, rngs: nnx.Rngs):
        self.weight = nnx.Param(0.3 * jax.random.normal(rngs.params(), (latent_dim, feature.size)))
        self.bias = nnx.Param(jnp.zeros(feature.size))

    def __call__(self, z: Any, *, train: bool, key: Any) -> Any:
        return z @ self.weight[...] + self.bias[...]


class LinearEncoder(nnx.Module):
    """Encoder with a linear mean and the same variances for all examples."""

    couples_batch = False

    def __init__(self, feature: Any, outputs: int, rngs: nnx.Rngs):
        self.weight = nnx.Param(0.3 * jax.random.normal(rngs.params(), (feature.size, outputs // 2)))
        self.bias = nnx.Param(jnp.zeros(outputs // 2))
        self.log_variance = nnx.Param(jnp.zeros(outputs // 2))

    def __call__(self, x: Any, *, train: bool, key: Any) -> Any:
        mean = x @ self.weight[...] + self.bias[...]
        return jnp.concatenate([mean, jnp.broadcast_to(self.log_variance[...], mean.shape)], 1)


LINEAR = Model(2, LinearDecoder, None, encoder=LinearEncoder)
FAMILIES = {
    family.__name__.rpartition(".")[2]: Model(
        4, functools.partial(family.Generator, width=8), None, encoder=functools.partial(family.Encoder, width=8)
    )
    for family in (mlp, dcgan, resnet)
}
IMAGE = Image(8, 8, 1)


def images(n: int) -> jax.Array:
    levels = RNG.integers(0, 256, (n, *IMAGE.shape), np.uint8)
    return IMAGE.encode(jnp.asarray(levels))


def loss_of(game: VAE, params: Any, net_state: Any, x: Any, key: Any, step: int = 10**6) -> Any:
    """The scalar loss and the metrics on a batch, with the game's noise for ``key``."""
    found = game.loss("vae", params, net_state, game.noise({"x": x}, key), key, jnp.int32(step))
    return sum(term.weight * term.values.mean() for term in found.terms.values()), found.metrics


def score(game: VAE, params: Any, net_state: Any, inputs: Any, keys: Any, k: int) -> Any:
    """The outputs of the task ``score`` with ``k`` importance samples for each example."""
    inputs = {**inputs, "importance_samples": jnp.full(len(keys), k, jnp.float32)}
    return jax.jit(game.tasks["score"].apply)(params, net_state, inputs, keys)


def test_likelihoods_equal_those_of_scipy():
    logits, x = RNG.normal(0, 3, 50), RNG.normal(0, 1, 50)
    binary = RNG.integers(0, 2, 50).astype(float)
    expected = scipy.stats.bernoulli.logpmf(binary, 1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(likelihoods.bernoulli(jnp.asarray(logits), jnp.asarray(binary)), expected, rtol=1e-5)
    np.testing.assert_allclose(
        likelihoods.gaussian(jnp.asarray(logits), jnp.float32(np.log(0.49)), jnp.asarray(x)),
        scipy.stats.norm.logpdf(x, logits, 0.7),
        rtol=1e-5, atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("bits", [8, 16])
def test_probabilities_of_all_levels_sum_to_one(bits):
    """The density of dequantised values, averaged over the noise, is a distribution over the levels.

    By Jensen's inequality, the mean log-density is at most the log-probability of the level.
    """
    count, width = 2**bits, likelihoods.level(bits)
    levels = IMAGE.encode(jnp.arange(count, dtype=jnp.uint8 if bits == 8 else jnp.uint16))[:, None]
    noise = (jnp.arange(64) + 0.5) / 64
    logs = likelihoods.gaussian(
        jnp.float32(0.1), jnp.log(jnp.float32(0.04)), likelihoods.dequantised(levels, noise, width)
    )
    logs += likelihoods.log_level(1, width)
    probability = jnp.exp(logs).mean(1)
    edges = (np.arange(count + 1) - 0.5) * width - 1
    np.testing.assert_allclose(probability, np.diff(scipy.stats.norm.cdf(edges, 0.1, 0.2)), atol=1e-6)
    np.testing.assert_allclose(probability.sum(), 1, atol=1e-4)
    assert (logs.mean(1) <= jnp.log(probability) + 1e-5).all()


def test_kl_divergence_and_its_gradient_equal_the_closed_form():
    """The divergence equals a numerical integral. Its gradient is m in the mean m, and (v - 1) / 2 in log v."""
    mean, log_variance = jnp.float32([0.3, -1.2, 0.0]), jnp.float32([-2.0, 0.5, 0.0])
    grid = np.linspace(-12, 12, 20001)
    for m, s, value in zip(mean, jnp.exp(log_variance / 2), likelihoods.kl(mean, log_variance), strict=True):
        q, prior = scipy.stats.norm(m, s), scipy.stats.norm(0, 1)
        integral = np.trapezoid(q.pdf(grid) * (q.logpdf(grid) - prior.logpdf(grid)), grid)
        np.testing.assert_allclose(value, integral, atol=1e-5)
    gradient = jax.grad(lambda m, v: likelihoods.kl(m, v).sum(), (0, 1))(mean, log_variance)
    np.testing.assert_allclose(gradient[0], mean, atol=1e-6)
    np.testing.assert_allclose(gradient[1], (jnp.exp(log_variance) - 1) / 2, atol=1e-6)


def points() -> np.ndarray:
    """1,000 points in five dimensions, whose covariance has two large eigenvalues."""
    rng = np.random.default_rng(1)
    return (rng.normal(size=(1000, 2)) @ rng.normal(size=(2, 5)) + 0.4 * rng.normal(size=(1000, 5)) + 1).astype(
        np.float32
    )


def test_best_elbo_of_a_linear_vae_is_the_likelihood_of_probabilistic_pca():
    """Lucas et al. 2019, theorem 1; the maximum likelihood is that of Tipping and Bishop 1999, eq. 8."""
    x = points()
    covariance = np.cov(x.T, bias=True)
    eigenvalues = np.sort(np.linalg.eigvalsh(covariance))[::-1]
    variance = eigenvalues[2:].mean()
    exact = -0.5 * (5 * np.log(2 * np.pi) + np.log(eigenvalues[:2]).sum() + 3 * np.log(variance) + 5)
    game = VAE({"x": Vector(5)}, LINEAR, "float32", likelihood="gaussian")
    params, net_state = game.init(jax.random.key(0))
    steps = 4000
    optimiser = optax.adam(optax.cosine_decay_schedule(2e-2, steps))

    def update(carry: Any, key: Any) -> Any:
        params, state = carry
        gradient = jax.grad(lambda p: loss_of(game, p, net_state, jnp.asarray(x), key)[0])(params)
        updates, state = optimiser.update(gradient, state)
        return (optax.apply_updates(params, updates), state), None

    keys = jax.random.split(jax.random.key(1), steps)
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(update, carry, keys))((params, optimiser.init(params)))
    metrics = jax.lax.map(
        lambda key: loss_of(game, params, net_state, jnp.asarray(x), key)[1],
        jax.random.split(jax.random.key(2), 50),
    )
    np.testing.assert_allclose(metrics["vae/elbo"].mean(), exact, atol=1e-2)
    np.testing.assert_allclose(metrics["vae/variance"][0], variance, rtol=0.02)


def linear_gaussian(variance: float = 0.3) -> Any:
    """A linear-Gaussian model, its parameters, and its points; q(z|x) is wider than the exact posterior."""
    game = VAE({"x": Vector(5)}, LINEAR, "float32", likelihood="gaussian", variance=variance)
    params, net_state = game.init(jax.random.key(3))
    rng = np.random.default_rng(2)
    weight, bias = rng.normal(size=(2, 5)), rng.normal(size=5)
    precision = np.eye(2) + weight @ weight.T / variance
    inverse = np.linalg.inv(precision)
    own = params["vae"]
    own["decoder"]["weight"][...], own["decoder"]["bias"][...] = jnp.float32(weight), jnp.float32(bias)
    own["encoder"]["weight"][...] = jnp.float32(weight.T @ inverse / variance)
    own["encoder"]["bias"][...] = jnp.float32(-bias @ weight.T @ inverse / variance)
    own["encoder"]["log_variance"][...] = jnp.log(jnp.float32(1.3 * np.diag(inverse)))
    x = rng.normal(size=(200, 2)) @ weight + bias + variance**0.5 * rng.normal(size=(200, 5))
    exact = scipy.stats.multivariate_normal(bias, weight.T @ weight + variance * np.eye(5)).logpdf(x)
    return game, params, net_state, jnp.float32(x), exact


def test_importance_sampled_nll_of_a_linear_gaussian_decoder_is_exact():
    game, params, net_state, x, exact = linear_gaussian()
    keys = jax.random.split(jax.random.key(4), len(x))
    found = score(game, params, net_state, {"x": x}, keys, 5000)
    np.testing.assert_allclose(found["nll"].mean(), -exact.mean(), atol=1e-2)
    np.testing.assert_allclose(found["nll"], -exact, atol=0.1)
    assert (found["nll"] <= -found["elbo"]).all()
    assert -found["elbo"].mean() > -exact.mean() + 0.02  # q(z|x) is not the exact posterior


def test_score_of_a_row_does_not_depend_on_the_other_rows():
    game, params, net_state, x, _ = linear_gaussian()
    keys = jax.random.split(jax.random.key(4), len(x))
    whole = score(game, params, net_state, {"x": x}, keys, 30)
    part = score(game, params, net_state, {"x": x[5:8]}, keys[5:8], 30)
    for name in ("elbo", "nll"):
        np.testing.assert_allclose(part[name], whole[name][5:8], rtol=1e-5)
    single = score(game, params, net_state, {"x": x}, keys, 1)
    np.testing.assert_allclose(single["nll"], -single["elbo"], rtol=1e-5)


def test_bound_grows_with_the_number_of_importance_samples_up_to_the_likelihood():
    """Burda et al. 2016, theorem 1. With one sample, the bound is the ELBO."""
    _, params, net_state, x, exact = linear_gaussian()
    bounds = {}
    for k in (1, 5, 50):
        game = VAE({"x": Vector(5)}, LINEAR, "float32", likelihood="gaussian", variance=0.3, importance_samples=k)
        losses, metrics = jax.lax.map(
            lambda key, game=game: loss_of(game, params, net_state, x, key), jax.random.split(jax.random.key(5), 50)
        )
        bounds[k] = -losses.mean()
        np.testing.assert_allclose(metrics["vae/elbo"].mean(), bounds[1], atol=0.01)
    assert bounds[1] + 0.05 < bounds[5] < bounds[50] + 1e-3
    np.testing.assert_allclose(bounds[50], exact.mean(), atol=0.01)
    ratio = score(
        game, params, net_state, {"x": jnp.repeat(x, 20, 0)}, jax.random.split(jax.random.key(6), 4000), 1
    )
    np.testing.assert_allclose(ratio["elbo"].mean(), bounds[1], atol=0.05)


def test_free_bits_limit_the_divergence_of_each_latent_dimension():
    """Kingma et al. 2016, eq. 15: the sum over dimensions of max(limit, mean divergence)."""
    game = VAE({"x": IMAGE}, FAMILIES["mlp"], "float32", free_bits=0.5, beta=2.0)
    assert game.coupled == {"vae"}
    params, net_state = game.init(jax.random.key(0))
    batch = game.noise({"x": images(16)}, jax.random.key(1))
    terms = game.loss("vae", params, net_state, batch, jax.random.key(2), jnp.int32(0)).terms
    seen = 2 * likelihoods.threshold(batch["x"]) - 1
    code, _ = game.networks["encoder"](
        params["vae"]["encoder"], net_state["vae"]["encoder"], seen, None, train=True, key=jax.random.key(0)
    )
    divergence = likelihoods.kl(code[:, :4], code[:, 4:]).mean(0)
    np.testing.assert_allclose(terms["kl"].values.mean(), jnp.maximum(divergence, 0.5).sum(), rtol=1e-5)
    assert terms["kl"].weight == 2.0


def test_kl_warmup_raises_the_weight_linearly():
    game = VAE({"x": IMAGE}, FAMILIES["mlp"], "float32", beta=4.0, kl_warmup=10)
    params, net_state = game.init(jax.random.key(0))
    batch = game.noise({"x": images(4)}, jax.random.key(1))
    weights = [
        float(game.loss("vae", params, net_state, batch, jax.random.key(2), jnp.int32(step)).terms["kl"].weight)
        for step in (0, 4, 9, 100)
    ]
    np.testing.assert_allclose(weights, [0.4, 2.0, 4.0, 4.0], rtol=1e-6)


def test_fixed_binarisation_draws_each_image_once_in_proportion_to_its_intensity():
    x = images(500)
    binary = likelihoods.sampled_once(x)
    assert jnp.array_equal(binary[::-1][:7], likelihoods.sampled_once(x[::-1][:7]))
    changed = likelihoods.sampled_once(x.at[:, 0, 0].set(-x[:, 0, 0]))
    assert 0.1 < jnp.mean(changed != binary) < 0.6  # another image has independent random numbers
    probability = (x + 1) / 2
    np.testing.assert_allclose((binary - probability).mean(), 0, atol=0.01)
    np.testing.assert_allclose(
        ((binary - probability) ** 2).mean(), (probability * (1 - probability)).mean(), atol=0.01
    )
    assert jnp.array_equal(likelihoods.threshold(IMAGE.encode(jnp.uint8([127, 128]))), jnp.float32([0, 1]))


def test_dynamic_binarisation_draws_again_in_training_only():
    x = images(8)
    found = {}
    for kind in ("threshold", "fixed", "dynamic"):
        game = VAE({"x": IMAGE}, FAMILIES["mlp"], "float32", binarisation=kind)
        params, net_state = game.init(jax.random.key(0))
        terms = [
            game.loss(
                "vae", params, net_state, game.noise({"x": x}, jax.random.key(i)), jax.random.key(9), jnp.int32(0)
            )
            for i in (1, 2)
        ]
        found[kind] = (
            [term.terms["kl"].values for term in terms],
            game.tasks["encode"].apply(params, net_state, {"x": x}, jax.random.split(jax.random.key(0), 8))[
                "codes"
            ],
        )
    for kind, (divergences, _) in found.items():
        assert jnp.array_equal(*divergences) == (kind != "dynamic")
    assert jnp.array_equal(found["fixed"][1], found["dynamic"][1])
    assert not jnp.array_equal(found["fixed"][1], found["threshold"][1])


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("conditional", ["none", "concat"])
def test_tasks_of_every_family(family, likelihood, conditional):
    """Tasks return arrays of the declared shapes, and depend on the label if the model is conditional."""
    model = FAMILIES[family]
    model = Model(model.latent_dim, model.generator, None, conditional, model.encoder)
    game = VAE({"x": IMAGE, "label": Label(3)}, model, "float32", likelihood=likelihood)
    params, net_state = game.init(jax.random.key(0))
    x, keys, n = images(6), jax.random.split(jax.random.key(1), 6), 6
    label = jnp.arange(n, dtype=jnp.int32) % 3
    latents = jax.vmap(lambda key: game.tasks["generate"].prior(key, None)["latents"])(keys)
    given = {"x": x, "latents": latents, "label": label, "importance_samples": jnp.full(n, 3.0)}
    for name, task in game.tasks.items():
        inputs = {name: given[name] for name in task.inputs}
        made = task.apply(params, net_state, inputs, keys)
        assert {k: v.shape for k, v in made.items()} == {k: (n, *f.shape) for k, f in task.outputs.items()}
        assert ("label" in task.inputs) == (conditional != "none")
        if conditional != "none":
            changed = task.apply(params, net_state, inputs | {"label": (label + 1) % 3}, keys)
            assert all(not jnp.array_equal(made[k], changed[k]) for k in made), name
    assert (jnp.abs(game.tasks["generate"].apply(params, net_state, given, keys)["samples"]) <= 1).all()


@pytest.mark.parametrize(
    ("spec", "model", "options", "message"),
    [
        ({"x": Vector(2)}, FAMILIES["mlp"], {}, "game.likelihood=bernoulli: .*game.likelihood=gaussian"),
        ({"x": IMAGE}, Model(4, r3gan.Generator, None), {}, "model.encoder=null: .*model=mlp"),
        ({"x": Vector(2)}, Model(4, pacgan.Generator, None), {"likelihood": "gaussian"}, "model.encoder=null"),
        ({"x": Vector(1)}, Model(4, dirac.Generator, None), {"likelihood": "gaussian"}, "model.encoder=null"),
        ({"x": IMAGE}, FAMILIES["mlp"], {"free_bits": 0.1, "importance_samples": 2}, "game.free_bits=0.1"),
        ({"x": IMAGE}, Model(4, mlp.Generator, None, "concat", mlp.Encoder), {}, "model.conditional=concat"),
    ],
)
def test_what_does_not_fit_is_refused(spec, model, options, message):
    with pytest.raises(UserError, match=message):
        VAE(spec, model, "float32", **options)
