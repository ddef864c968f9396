"""The variational autoencoder: one player, whose encoder and decoder maximise a bound on the likelihood."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.data.features import Number, Raw, Vector
from gan_cli.data.tables.feature import Table
from gan_cli.engine import devices
from gan_cli.errors import UserError
from gan_cli.games import likelihoods
from gan_cli.games.networks import (
    Network,
    autoencoder_tasks,
    build_encoder,
    build_generator,
    check_generates,
    label_classes,
    normal_prior,
)
from gan_cli.losses import masked_mean
from gan_cli.models import Model
from gan_cli.types import (
    Batch,
    Binarisation,
    ByPlayer,
    Game,
    Likelihood,
    LossTerms,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    Task,
    Term,
    Tree,
    Variance,
)

VAE_PLAYER = "vae"
# Number of importance samples that the task ``score`` decodes at once for each example. It bounds the memory.
_CHUNK = 4
# Number of importance samples of the task ``score``, unless its inputs state another number.
SCORE_SAMPLES = 200
# Limits of the log-variances of the numbers of a table: standard deviations from 0.01 to 1, as in the code of TVAE.
_LOG_VARIANCES = 2 * math.log(0.01), 0.0


class VAE(Game):
    """Variational autoencoder: an encoder and a decoder that maximise a lower bound on log p(x).

    Kingma and Welling 2014. The decoder is the generator of the model, and the prior of the latents is N(0, I). The
    bound is the evidence lower bound (ELBO), E log p(x|z) - KL(q(z|x) || p(z)), with the KL divergence in closed
    form (eq. 10 of the paper). Likelihoods are in nats per example. Images are binary with
    ``likelihood=bernoulli``, and have 8 or 16 bits per value with ``likelihood=gaussian`` (uniform dequantisation).
    Rows of tables need ``likelihood=table``. ``experiment=tvae`` pins the networks and options of Xu et al. 2019.

    Args:
        spec: the features of an example: ``x`` and, for a conditional model, ``label``.
        model: the networks. The encoder and the generator are used.
        precision: data type in which the networks compute, float32 or bfloat16. Parameters, latents, likelihoods
            and updates are float32 in both cases.
        beta: factor of the KL divergence (Higgins et al. 2017, beta-VAE). With 1, the loss is the negative ELBO.
        likelihood: distribution of an example given its latents. ``bernoulli`` needs images, which it binarises.
            ``gaussian`` is for images and for points. ``table`` is for rows of tables: numbers are normal, each
            with a learnt standard deviation between 0.01 and 1, and categories have the probabilities of a softmax.
            The task ``generate`` draws the numbers and returns the most probable categories (TVAE, Xu et al. 2019).
        variance: variance of the Gaussian likelihood, a number, or ``learnt`` for one parameter that all values
            share (Rybkin et al. 2021). The unit is the scale of the networks, on which images lie in [-1, 1].
        binarisation: how ``likelihood=bernoulli`` makes binary images. With ``threshold``, values in the
            upper half of the range (of 8 bits, at least 128) become 1. With ``fixed``, each value is drawn once,
            with a probability equal to its intensity. The random numbers depend on the image only, so all runs see
            the same binary images. With ``dynamic``, the values are drawn again each time that an image is used in
            training (Burda et al. 2016). Tasks and metrics then use the images of ``fixed``.
        importance_samples: number k of posterior samples per example. With more than one, the loss is the negative
            k-sample bound of the importance weighted autoencoder (IWAE, Burda et al. 2016, eq. 8), and ``beta`` and
            ``kl_warmup`` multiply log q(z|x) - log p(z).
        free_bits: lower limit, in nats, of the KL divergence of each latent dimension, averaged over the batch
            (Kingma et al. 2016, eq. 15, with one latent dimension per group). Smaller divergences are not reduced
            further. With null, there is no limit.
        kl_warmup: number of training steps during which the factor of the KL divergence rises linearly to ``beta``
            (Bowman et al. 2016, Sonderby et al. 2016). 0 disables the warm-up.

    Raises:
        UserError: the data, the networks and the options are not compatible with each other.
    """

    players = (VAE_PLAYER,)
    averaged: tuple[str, ...] = (VAE_PLAYER,)

    def __init__(
        self,
        spec: Spec,
        model: Model,
        precision: str,
        *,
        beta: NonNegativeFloat = 1.0,
        likelihood: Likelihood = "bernoulli",
        variance: Variance = "learnt",
        binarisation: Binarisation = "threshold",
        importance_samples: PositiveInt = 1,
        free_bits: PositiveFloat | None = None,
        kl_warmup: NonNegativeInt = 0,
    ):
        check_generates("vae", model, spec)
        self.spec: Spec = spec
        self._latent_dim, self._x = model.latent_dim, spec["x"]
        self._beta, self._warmup, self._free_bits = beta, kl_warmup, free_bits
        self._likelihood, self._variance, self._binarisation = likelihood, variance, binarisation
        self._samples = importance_samples
        self._check_options()
        self._learns_variance = likelihood != "bernoulli" and variance == "learnt"
        # The width of one level of images, or None for examples of real values.
        bits = {np.dtype(np.uint8): 8, np.dtype(np.uint16): 16}.get(np.dtype(self._x.dtype))
        self._level = None if bits is None else likelihoods.level(bits)
        self._classes = label_classes(model, spec)
        encoder = build_encoder("vae", model, self._x, 2 * model.latent_dim, self._classes)
        decoder = build_generator(model, Raw(self._x), self._classes)
        self.networks = {"encoder": Network(encoder, precision), "decoder": Network(decoder, precision)}
        self._check_shapes()
        coupled = free_bits is not None or any(one.couples_batch for one in self.networks.values())
        self.coupled = frozenset({VAE_PLAYER} if coupled else ())
        self.tasks = self._tasks()

    def _check_options(self) -> None:
        if isinstance(self._x, Table) != (self._likelihood == "table"):
            wanted = "table" if isinstance(self._x, Table) else "gaussian"
            raise UserError(
                f"game.likelihood={self._likelihood}: is no distribution of {self._x.noun}, of which this data set "
                f"consists. Set game.likelihood={wanted}."
            )
        if self._likelihood == "bernoulli" and self._x.bounds is None:
            raise UserError(
                "game.likelihood=bernoulli: models binary values, but the values of the data set are not bounded. "
                "Set game.likelihood=gaussian, or choose a data set of images, e.g. dataset=mnist5k."
            )
        if self._free_bits is not None and self._samples > 1:
            raise UserError(
                f"game.free_bits={self._free_bits}: limits the KL divergence, which is no term of the bound with "
                f"game.importance_samples={self._samples}. Set game.free_bits=null or game.importance_samples=1."
            )

    def _check_shapes(self) -> None:
        def shapes() -> tuple[jax.Array, jax.Array]:
            params, net_state = self.init(jax.random.key(0))
            label = None if self._classes is None else jnp.zeros(2, jnp.int32)
            arguments = params[VAE_PLAYER], net_state[VAE_PLAYER]
            code, _ = self._apply("encoder", *arguments, jnp.zeros((2, *self._x.shape)), label)
            raw, _ = self._apply("decoder", *arguments, jnp.zeros((2, self._latent_dim)), label)
            return code, raw

        code, raw = jax.eval_shape(shapes)
        for name, found, wanted in (
            ("encoder", code.shape[1:], (2 * self._latent_dim,)),
            ("generator", raw.shape[1:], self._x.shape),
        ):
            if found != wanted:
                raise UserError(
                    f"model.{name}: returns arrays of shape {found} for an example, but the shape must be {wanted}."
                    f" Correct the __call__ method of the {name}, or choose another model."
                )

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: the initial parameters and network states of the encoder and the decoder, by player.

        A learnt variance starts at 1, or at 0.1 for images, whose values lie in [-1, 1]. The learnt standard
        deviations of the numbers of a table start at 0.1.
        """
        params: dict[str, Tree] = {}
        state: dict[str, Tree] = {}
        for i, (name, network) in enumerate(self.networks.items()):
            params[name], state[name] = network.init(jax.random.fold_in(key, i))
        if self._learns_variance and isinstance(self._x, Table):
            params["log_variance"] = jnp.full(self._x.scalars, 2 * math.log(0.1), jnp.float32)
        elif self._learns_variance:
            params["log_variance"] = jnp.log(jnp.float32(1.0 if self._x.bounds is None else 0.1))
        return {VAE_PLAYER: params}, {VAE_PLAYER: state}

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with random numbers for each example.

        ``posterior_noise`` ``[batch, k, latent_dim]`` is standard normal. ``pixel_noise`` ``[batch, *shape]`` is
        uniform in [0, 1), for dynamic binarisation and for dequantisation.
        """
        posterior_key, pixel_key = jax.random.split(key)
        x = batch["x"]
        shape = (len(x), self._samples, self._latent_dim)
        batch = batch | {"posterior_noise": devices.split(jax.random.normal(posterior_key, shape))}
        if self._uses_pixel_noise:
            batch["pixel_noise"] = devices.split(jax.random.uniform(pixel_key, x.shape))
        return batch

    @property
    def _uses_pixel_noise(self) -> bool:
        return self._binarisation == "dynamic" if self._likelihood == "bernoulli" else self._level is not None

    def loss(
        self,
        player: str,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        fake: jax.Array | None = None,
    ) -> LossTerms:
        """The negative bound on log p(x), with metrics ``elbo``, ``kl`` and ``reconstruction`` (E log p(x|z)).

        The metrics are means over the batch in nats per example. ``beta``, free bits and the warm-up have no effect
        on them.
        """
        own, state = params[player], net_state[player]
        label = self._label(batch)
        seen, target = self._targets(batch["x"], batch.get("pixel_noise"), train=True)
        encoder_key, decoder_key = jax.random.split(key)
        mean, log_variance, encoder_state = self._posterior(own, state, seen, label, True, encoder_key)
        noise = batch["posterior_noise"]
        latents = mean[:, None] + jnp.exp(log_variance / 2)[:, None] * noise
        likelihood, decoder_state = self._log_likelihood(own, state, latents, target, label, True, decoder_key)
        divergence = likelihoods.kl(mean, log_variance)
        weight = self._beta * jnp.minimum(1.0, (step + 1) / jnp.maximum(self._warmup, 1))
        if self._samples == 1:
            terms = {
                "reconstruction": Term(-likelihood[:, 0]),
                "kl": Term(self._limited(divergence, batch.get("mask")).sum(-1), weight),
            }
        else:
            ratio = _log_ratio(latents, noise, log_variance[:, None])
            terms = {"bound": Term(-_log_mean_exp(likelihood + weight * ratio))}
        reconstruction = masked_mean(likelihood.mean(1), batch.get("mask"))
        kl = masked_mean(divergence.sum(-1), batch.get("mask"))
        metrics = {"elbo": reconstruction - kl, "kl": kl, "reconstruction": reconstruction}
        if self._learns_variance:
            variance = jnp.exp(self._log_variance(own))
            metrics["variance"] = variance.mean() if isinstance(self._x, Table) else variance
        return LossTerms(
            terms,
            net_state | {player: {"encoder": encoder_state, "decoder": decoder_state}},
            {f"{player}/{name}": value for name, value in metrics.items()},
        )

    def membership_scores(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array
    ) -> jax.Array | None:
        """The bound on log p(x) ``[n]`` that training maximises, averaged over 8 draws of the latents."""

        def bound(key: jax.Array) -> jax.Array:
            noise_key, loss_key = jax.random.split(key)
            noisy, last = self.noise(batch, noise_key), jnp.int32(2**30)  # after the warm-up
            terms = self.loss(self.players[0], params, net_state, noisy, loss_key, last).terms.values()
            return -sum((term.weight * term.values for term in terms), jnp.zeros(len(batch["x"])))

        found: jax.Array = jax.lax.map(bound, jax.random.split(key, 8)).mean(0)
        return found

    def _limited(self, divergence: jax.Array, mask: jax.Array | None) -> jax.Array:
        """KL divergences ``[batch, latent_dim]``, replaced by ``free_bits`` in dimensions whose mean is smaller."""
        if self._free_bits is None:
            return divergence
        above = jax.vmap(lambda values: masked_mean(values, mask), 1)(divergence) > self._free_bits
        return jnp.where(above, divergence, self._free_bits)

    def _label(self, batch: Batch) -> jax.Array | None:
        return None if self._classes is None else batch["label"]

    def _targets(self, x: jax.Array, noise: jax.Array | None, train: bool) -> tuple[jax.Array, jax.Array]:
        """A pair: the input of the encoder, and the values of which the likelihood is computed."""
        if self._likelihood != "bernoulli":
            return x, x if noise is None or self._level is None else likelihoods.dequantised(x, noise, self._level)
        if self._binarisation == "threshold":
            binary = likelihoods.threshold(x)
        elif self._binarisation == "dynamic" and train:
            assert noise is not None
            binary = likelihoods.sampled(x, noise)
        else:
            binary = likelihoods.sampled_once(x, self._level or likelihoods.level(8))
        return 2 * binary - 1, binary

    def _apply(
        self,
        name: str,
        params: Tree,
        state: Tree,
        x: jax.Array,
        label: jax.Array | None,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        key = jax.random.key(0) if key is None else key
        return self.networks[name](params[name], state[name], x, label, train=train, key=key)

    def _posterior(
        self,
        params: Tree,
        state: Tree,
        seen: jax.Array,
        label: jax.Array | None,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array, Tree]:
        """The mean and the log-variance ``[batch, latent_dim]`` of q(z|x), and the new state of the encoder."""
        code, state = self._apply("encoder", params, state, seen, label, train, key)
        mean, log_variance = jnp.split(code, 2, axis=-1)
        return mean, log_variance, state

    def _log_likelihood(
        self,
        params: Tree,
        state: Tree,
        latents: jax.Array,
        target: jax.Array,
        label: jax.Array | None,
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        """log p(x|z) ``[batch, k]`` for latents ``[batch, k, latent_dim]``, and the new state of the decoder."""
        n, k, _ = latents.shape
        repeated = None if label is None else jnp.repeat(label, k)
        raw, state = self._apply("decoder", params, state, latents.reshape(n * k, -1), repeated, train, key)
        raw, target = raw.reshape(n, k, *self._x.shape), target[:, None]
        if self._likelihood == "bernoulli":
            values = likelihoods.bernoulli(raw, target)
        elif isinstance(self._x, Table):
            values = likelihoods.table(raw, self._log_variance(params), target, self._x)
        else:
            values = likelihoods.gaussian(self._x.head(raw), self._log_variance(params), target)
        total = values.sum(tuple(range(2, values.ndim)))
        if self._likelihood == "gaussian" and self._level is not None:
            total += likelihoods.log_level(self._x.size, self._level)
        return total, state

    def _log_variance(self, params: Tree) -> jax.Array:
        if self._learns_variance:
            learnt: jax.Array = params["log_variance"]
            if not isinstance(self._x, Table):
                return learnt
            # The gradient passes the limits, so that a parameter beyond a limit can return.
            return learnt + jax.lax.stop_gradient(jnp.clip(learnt, *_LOG_VARIANCES) - learnt)
        return jnp.log(jnp.float32(self._variance))

    def _encode(self, params: ByPlayer, net_state: ByPlayer, x: jax.Array, label: jax.Array | None) -> jax.Array:
        """The means of q(z|x), ``[n, latent_dim]``."""
        seen, _ = self._targets(x, None, train=False)
        return self._posterior(params[VAE_PLAYER], net_state[VAE_PLAYER], seen, label)[0]

    def _decode(
        self, params: ByPlayer, net_state: ByPlayer, latents: jax.Array, label: jax.Array | None
    ) -> jax.Array:
        """The means of p(x|z), on the scale of the networks, for latents ``[n, latent_dim]``."""
        raw, _ = self._apply("decoder", params[VAE_PLAYER], net_state[VAE_PLAYER], latents, label)
        if self._likelihood == "bernoulli":
            return 2 * jax.nn.sigmoid(raw) - 1
        x = self._x.head(raw)
        return x if label is None else self._x.with_label(x, label)

    def _draw(self, params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
        """Rows of a table whose numbers are drawn with their standard deviations."""
        assert isinstance(self._x, Table)
        mean = self._decode(params, net_state, inputs["latents"], inputs.get("label"))
        std = jnp.exp(self._log_variance(params[VAE_PLAYER]) / 2)
        return {"samples": mean.at[:, : self._x.scalars].add(std * inputs["noise"])}

    def _tasks(self) -> dict[str, Task]:
        tasks = autoencoder_tasks(self._x, self._latent_dim, self._classes, self._encode, self._decode)
        if isinstance(self._x, Table) and self._x.scalars:
            tasks["generate"] = _with_noise(tasks["generate"], self._x.scalars)._replace(apply=self._draw)
        inputs = {**tasks["encode"].inputs, "importance_samples": Number()}
        score = Task(
            inputs,
            {"elbo": Number(), "nll": Number()},
            self._score,
            lambda key, truncation: {"importance_samples": jnp.float32(SCORE_SAMPLES)},
        )
        return tasks | {"score": score}

    def _score(self, params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
        """The ELBO and the negative log-likelihood (nll) of examples, in nats, by importance sampling.

        Both are computed from the same k log-weights w = log p(x|z) + log p(z) - log q(z|x) with z from q(z|x),
        where k is the input ``importance_samples`` of each example. The ELBO is the mean of w, and the nll is -log
        mean exp w (Burda et al. 2016, section 5). The nll is at most -elbo, and in expectation at least -log p(x).
        A dequantised image has one sample of the dequantisation noise.
        """
        own, state = params[VAE_PLAYER], net_state[VAE_PLAYER]
        x, label = inputs["x"], self._label(inputs)
        number = jnp.maximum(inputs["importance_samples"].astype(jnp.int32), 1)
        pixel_keys, sample_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
        noise = None
        if self._uses_pixel_noise and self._likelihood == "gaussian":
            noise = jax.vmap(lambda key: jax.random.uniform(key, self._x.shape))(pixel_keys)
        seen, target = self._targets(x, noise, train=False)
        mean, log_variance, _ = self._posterior(own, state, seen, label)

        def draw(key: jax.Array, numbers: jax.Array) -> jax.Array:
            keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
            return jax.vmap(lambda key: jax.random.normal(key, (self._latent_dim,)))(keys)

        def add(carried: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
            first, total, log_sum = carried
            numbers = first + jnp.arange(_CHUNK)
            noise = jax.vmap(draw, (0, None))(sample_keys, numbers)
            latents = mean[:, None] + jnp.exp(log_variance / 2)[:, None] * noise
            weights, _ = self._log_likelihood(own, state, latents, target, label)
            weights += _log_ratio(latents, noise, log_variance[:, None])
            used = numbers < number[:, None]
            total += jnp.where(used, weights, 0.0).sum(1)
            log_sum = jnp.logaddexp(log_sum, _log_sum_exp(jnp.where(used, weights, -jnp.inf)))
            return first + _CHUNK, total, log_sum

        # The memory of a chunk does not depend on the number of importance samples.
        start = jnp.int32(0), jnp.zeros(x.shape[0]), jnp.full(x.shape[0], -jnp.inf)
        _, total, log_sum = jax.lax.while_loop(lambda carried: carried[0] < number.max(), add, start)
        return {"elbo": total / number, "nll": jnp.log(number.astype(jnp.float32)) - log_sum}


def _with_noise(task: Task, size: int) -> Task:
    """The task with a further input ``noise`` of ``size`` standard normal values, which the prior draws."""
    first, more = task.prior, normal_prior(size)
    assert first is not None

    def prior(key: jax.Array, truncation: float | None) -> Batch:
        return {**first(key, truncation), "noise": more(jax.random.fold_in(key, 2), truncation)["latents"]}

    return task._replace(inputs={**task.inputs, "noise": Vector(size)}, prior=prior)


def _log_ratio(latents: jax.Array, noise: jax.Array, log_variance: jax.Array) -> jax.Array:
    """log p(z) - log q(z|x) for latents z = mean + exp(log_variance / 2) * noise, summed over the last axis."""
    return 0.5 * (noise**2 - latents**2 + log_variance).sum(-1)


def _log_sum_exp(values: jax.Array) -> jax.Array:
    result: jax.Array = jax.nn.logsumexp(values, axis=1)
    return result


def _log_mean_exp(values: jax.Array) -> jax.Array:
    return _log_sum_exp(values) - jnp.log(float(values.shape[1]))
