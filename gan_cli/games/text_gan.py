"""The adversarial game of texts, with two estimators of the generator's gradient."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.augment import Augment
from gan_cli.data.text.feature import FREE
from gan_cli.engine import devices
from gan_cli.errors import UserError
from gan_cli.games.networks import Network
from gan_cli.games.text import GENERATOR, TextGame
from gan_cli.losses import Loss, masked_mean
from gan_cli.models import TextModel
from gan_cli.penalties import Penalty
from gan_cli.types import (
    Batch,
    ByPlayer,
    Decay,
    LossTerms,
    Metrics,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    Term,
    TextGradient,
    UnitFloat,
)

DISCRIMINATOR = "discriminator"


class TextGAN(TextGame):
    """GAN of texts: a generator that writes tokens against a discriminator of texts or of each token.

    Tokens have no derivative, so the generator's gradient is estimated. With ``gradient=score``, it is that of
    REINFORCE (Williams 1992), as in ScratchGAN (d'Autume et al. 2019, eqs. 3 to 5): the mean of
    sum_t (R_t - b) grad log p(x_t | x_<t) with the returns R_t = sum_{s >= t} gamma^(s - t) r_s and the rewards
    r_s = 2 D(x_s | x_<s) - 1. A discriminator with one logit for a text gives its last token a reward. The baseline
    b is a moving average of the mean return. With ``gradient=gumbel``, the generator writes relaxed tokens of a
    Gumbel-softmax (Jang et al. 2017; Kusner and Hernandez-Lobato 2016), through which the loss is differentiated.

    Args:
        spec: the features of an example: ``x``, texts.
        model: the two networks.
        loss: the adversarial loss of each player. With ``gradient=score``, only that of the discriminator is used.
        penalties: gradient penalties, which are not defined for tokens.
        augments: augmentations, which are not defined for tokens.
        precision: data type in which the networks compute. Only float32 is possible.
        gradient: estimator of the generator's gradient: ``score`` or ``gumbel``.
        gamma: discount of the rewards of later tokens, for ``score``. Set 1 for a discriminator with one logit for
            a text.
        baseline_decay: decay rate of the moving average of the returns, for ``score``.
        temperature: temperature of the relaxation at the end of pre-training, for ``gumbel``.
        temperature_end: temperature after ``temperature_steps``, for ``gumbel``.
        temperature_steps: number of steps after pre-training in which the temperature changes, by the same factor
            at each step.
        straight_through: whether the discriminator sees one-hot vectors in place of relaxed ones, for ``gumbel``.
        pretrain_steps: number of steps at the start of the run in which the generator maximises the likelihood of
            the data, and the discriminator does not move.
        mle_weight: factor of the negative log-likelihood of the data in the generator's loss after pre-training.

    Raises:
        UserError: the data are no texts, the networks are not those of texts, or a penalty or an augmentation is
            not defined for tokens.
    """

    players = (DISCRIMINATOR, GENERATOR)
    shares_fakes = True

    def __init__(
        self,
        spec: Spec,
        model: TextModel,
        loss: Loss,
        penalties: dict[str, Penalty],
        augments: dict[str, Augment],
        precision: str,
        *,
        gradient: TextGradient = "score",
        gamma: UnitFloat = 0.23,
        baseline_decay: Decay = 0.08,
        temperature: PositiveFloat = 1.0,
        temperature_end: PositiveFloat = 0.1,
        temperature_steps: PositiveInt = 10_000,
        straight_through: bool = True,
        pretrain_steps: NonNegativeInt = 1_000,
        mle_weight: NonNegativeFloat = 1.0,
    ):
        super().__init__("text_gan", spec, model, precision)
        _check_undifferentiated(penalties, augments)
        self.adversarial = loss
        self._gumbel, self._gamma, self._decay = gradient == "gumbel", gamma, baseline_decay
        self._temperatures = temperature, temperature_end, temperature_steps
        self._straight, self._pretrain, self._mle = straight_through, pretrain_steps, mle_weight
        discriminator = Network(lambda key: model.discriminator(self._x, nnx.Rngs(key)), precision)
        self.networks = {DISCRIMINATOR: discriminator, **self.networks}
        if loss.couples_batch or any(network.couples_batch for network in self.networks.values()):
            self.coupled = frozenset(self.players)

    def private(self) -> TextGAN:
        """Private training is not available, because the likelihood of the generator reads the data as well."""
        raise UserError(
            "game=text_gan: both players read the data. With estimator=private, set game=language_model."
        )

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: initial parameters and initial network state. The discriminator's state holds the baseline b."""
        params, net_state = super().init(key)
        net_state[DISCRIMINATOR]["baseline"] = jnp.zeros(())
        return params, net_state

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with a standard normal value for each token that the generator draws, ``[batch, length]``."""
        return batch | {"noise": devices.split(jax.random.normal(jax.random.fold_in(key, 2), batch["x"].shape))}

    def fake(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[jax.Array, ByPlayer]:
        """A pair: generated texts, and the network state. The texts are zeros during pre-training.

        Tokens ``[batch, length]`` are real numbers, because strategies differentiate with respect to a generated
        batch. Relaxed texts are ``[batch, length, words]``.
        """
        noise, own = batch["noise"], net_state[GENERATOR]["network"]

        def write() -> jax.Array:
            network = self.networks[GENERATOR]
            if self._gumbel:
                written: jax.Array = network(
                    params[GENERATOR], own, noise, self.temperature(step),
                    straight_through=self._straight, train=True, key=jax.random.fold_in(key, 3), method="relaxed",
                )[0]  # fmt: skip
                return written
            fixed = jax.lax.stop_gradient(params[GENERATOR])
            inputs = {
                "noise": noise,
                "temperature": jnp.ones(noise.shape[0]),
                "prompt": jnp.full(noise.shape, FREE, jnp.int32),
            }
            tokens: jax.Array = network(fixed, own, inputs, train=True, key=key, method="sample")[0]
            return tokens.astype(jnp.float32)

        shape = jax.eval_shape(write).shape
        return self._after(step, write, lambda: jnp.zeros(shape)), net_state

    def loss(
        self,
        player: str,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        fake: Any = None,
    ) -> LossTerms:
        """The terms of a player's loss: the adversarial loss and, for the generator, the likelihood of the data."""
        if fake is None:
            fake, _ = self.fake(params, net_state, batch, key, step)
        own_key = jax.random.fold_in(key, self.players.index(player))
        if player == DISCRIMINATOR:
            return self._discriminator_loss(params, net_state, batch, fake, own_key, step)
        return self._generator_loss(params, net_state, batch, fake, own_key, step)

    def _discriminator_loss(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, fake: jax.Array, key: jax.Array, step: jax.Array
    ) -> LossTerms:
        mask, own = batch.get("mask"), net_state[DISCRIMINATOR]
        before = own["baseline"]

        def compare() -> tuple[jax.Array, jax.Array, Metrics]:
            real_logits, fake_logits = self._both(params, net_state, batch["x"], fake, key)
            values = self._per_text(self.adversarial.discriminator(real_logits, fake_logits))
            mean_return = jax.lax.stop_gradient(masked_mean(self._returns(fake_logits, fake).mean(1), mask))
            above = self.adversarial.above_boundary(real_logits, fake_logits)
            found = {
                "real_logits": real_logits,
                "fake_logits": fake_logits,
                "real_accuracy": above[0] > 0,
                "fake_accuracy": above[1] < 0,
            }
            means = {
                name: masked_mean(self._per_text(one.astype(jnp.float32)), mask) for name, one in found.items()
            }
            return values, self._decay * before + (1 - self._decay) * mean_return, means

        def wait() -> tuple[jax.Array, jax.Array, Metrics]:
            zero = jnp.zeros(())
            names = ("real_logits", "fake_logits", "real_accuracy", "fake_accuracy")
            return jnp.zeros(batch["x"].shape[0]), before, dict.fromkeys(names, zero)

        values, baseline, metrics = self._after(step, compare, wait)
        metrics["baseline"] = baseline
        return LossTerms(
            {"adversarial": Term(values)},
            net_state | {DISCRIMINATOR: {"network": own["network"], "baseline": baseline}},
            {f"{DISCRIMINATOR}/{name}": value for name, value in metrics.items()},
        )

    def _generator_loss(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, fake: jax.Array, key: jax.Array, step: jax.Array
    ) -> LossTerms:
        likelihood_key, real_key, key = jax.random.split(key, 3)
        tokens, mask = batch["x"], batch.get("mask")

        def likelihood() -> jax.Array:
            return self.log_likelihood(params, net_state, tokens, train=True, key=likelihood_key)[0]

        def adversarial() -> jax.Array:
            if self._gumbel:
                real_logits, fake_logits = self._both(params, net_state, tokens, fake, real_key)
                return self._per_text(self.adversarial.generator(real_logits, fake_logits))
            logits = self._logits(params, net_state, fake, real_key)
            advantage = self._returns(logits, fake) - net_state[DISCRIMINATOR]["baseline"]
            values, _ = self.log_likelihood(params, net_state, fake.astype(jnp.int32), train=False, key=key)
            surrogate: jax.Array = -(jax.lax.stop_gradient(advantage) * values).mean(1)
            return surrogate

        none = jnp.zeros(tokens.shape[0])
        terms = {"adversarial": Term(self._after(step, adversarial, lambda: none))}
        metrics: Metrics = {}
        if self._pretrain or self._mle:
            # After pre-training, the likelihood is computed only if it is a part of the loss.
            values = likelihood() if self._mle else self._after(step, lambda: jnp.zeros(tokens.shape), likelihood)
            weight = jnp.where(step < self._pretrain, 1.0, self._mle)
            terms["likelihood"] = Term(-values.mean(1), weight)
            metrics = self._likelihood_metrics(values, tokens, mask)
        return LossTerms(terms, net_state, metrics)

    def temperature(self, step: int | jax.Array) -> jax.Array:
        """The temperature of the relaxation at a step."""
        first, last, steps = self._temperatures
        share = jnp.clip((step - self._pretrain) / steps, 0, 1)
        return first * jnp.power(last / first, share)

    def _after(self, step: jax.Array, then: Any, before: Any) -> Any:
        """``then()`` after pre-training, and ``before()`` during it. Only one of them is computed."""
        return jax.lax.cond(step < self._pretrain, before, then) if self._pretrain else then()

    def _logits(self, params: ByPlayer, net_state: ByPlayer, x: jax.Array, key: jax.Array) -> jax.Array:
        """Logits ``[batch]``, or ``[batch, length]`` with zeros after the end of each text."""
        x = x if x.ndim == 3 else x.astype(jnp.int32)
        own = net_state[DISCRIMINATOR]["network"]
        logits: jax.Array = self.networks[DISCRIMINATOR](params[DISCRIMINATOR], own, x, train=True, key=key)[0]
        if logits.ndim == 2:
            logits *= self.counted(_hard(x))
        return logits

    def _both(
        self, params: ByPlayer, net_state: ByPlayer, real: jax.Array, fake: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """A pair: the logits of real and of generated texts."""
        if fake.ndim == 3:
            of_real, of_fake = jax.random.split(key)
            return self._logits(params, net_state, real, of_real), self._logits(params, net_state, fake, of_fake)
        both = jnp.concatenate([real, fake.astype(jnp.int32)])
        real_logits, fake_logits = jnp.split(self._logits(params, net_state, both, key), 2)
        return real_logits, fake_logits

    def _returns(self, logits: jax.Array, fake: jax.Array) -> jax.Array:
        """The returns ``[batch, length]`` of the tokens of generated texts, from the discriminator's logits."""
        counted = self.counted(_hard(fake))
        rewards = 2 * jax.nn.sigmoid(logits) - 1
        if logits.ndim == 1:
            last = counted - jnp.pad(counted[:, 1:], ((0, 0), (0, 1)))
            rewards = rewards[:, None] * last
        return discounted(rewards * counted, self._gamma)

    @staticmethod
    def _per_text(values: jax.Array) -> jax.Array:
        """Values ``[batch]`` of texts, the means of values of tokens."""
        return values if values.ndim == 1 else values.mean(1)


def discounted(rewards: jax.Array, gamma: float) -> jax.Array:
    """The returns R_t = sum_{s >= t} gamma^(s - t) r_s of rewards ``[batch, length]``."""
    length = rewards.shape[1]
    ahead = jnp.arange(length)[:, None] - jnp.arange(length)
    return rewards @ jnp.where(ahead >= 0, jnp.float32(gamma) ** jnp.maximum(ahead, 0), 0)


def _hard(x: jax.Array) -> jax.Array:
    """The tokens ``[batch, length]`` of texts, whose relaxed rows become their largest weights."""
    return x.argmax(2) if x.ndim == 3 else x.astype(jnp.int32)


def _check_undifferentiated(penalties: dict[str, Penalty], augments: dict[str, Augment]) -> None:
    """Raise a UserError if there are penalties or augmentations, which are functions of real numbers."""
    for name in penalties:
        raise UserError(
            f"penalty.{name}: is a function of real-valued examples, and tokens are none. With game=text_gan, "
            "leave it out. model.discriminator.dropout regularises the discriminator."
        )
    for name in augments:
        raise UserError(
            f"augment.{name}: changes real-valued examples, and tokens are none. With game=text_gan, leave it out."
        )
