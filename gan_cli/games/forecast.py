"""Forecasting: a GAN of the future of a series or of a clip, given its past."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.augment import Augment
from gan_cli.data.features import Vector
from gan_cli.data.series.feature import Series
from gan_cli.data.video.feature import Video
from gan_cli.errors import UserError
from gan_cli.games.gan import GAN
from gan_cli.games.networks import check_generates, normal_prior
from gan_cli.losses import Loss
from gan_cli.models import Model
from gan_cli.penalties import Penalty
from gan_cli.types import Batch, ByPlayer, Feature, PositiveInt, Spec, Task, Tree

FORECAST, CONTINUE = "forecast", "continue"


class Forecast(GAN):
    """Forecasting: a conditional GAN of the next steps of a series, or frames of a clip, given the past.

    Mirza and Osindero 2014, section 3.2, with the past as the condition. The generator maps latents and the past to
    the future. The discriminator sees the past and the future. The generator's network has the latents, followed by
    the values of the past, as its input, so that any model with a generator and a discriminator can play the game.

    Args:
        spec: the features of an example: ``x``, windows of a series, or clips.
        model: the two networks.
        loss: the adversarial loss of each player.
        penalties: mapping from the name of each penalty to the penalty, a term of the discriminator's loss.
        augments: mapping from the name of each augmentation to the augmentation of the discriminator's input.
        precision: data type in which the networks compute, float32 or bfloat16.
        horizon: number of steps of the future, the last steps of a window, or frames of a clip.
        past: number of steps of the past, just before the future. If null, all other steps.

    Raises:
        UserError: the data are neither series nor clips, past and horizon do not fit into a window, or the
            networks, the penalties and the augmentations are not compatible with each other.
    """

    def __init__(
        self,
        spec: Spec,
        model: Model,
        loss: Loss,
        penalties: dict[str, Penalty],
        augments: dict[str, Augment],
        precision: str,
        *,
        horizon: PositiveInt = 8,
        past: PositiveInt | None = None,
    ):
        check_generates("forecast", model, spec)
        window = spec["x"]
        if not isinstance(window, Series | Video):
            raise UserError(
                "game=forecast: learns the future of series or clips, and the examples of the data set are "
                f"{window.noun}. Choose a data set of these, e.g. dataset=stocks or dataset=moving_digits."
            )
        past = window.length - horizon if past is None else past
        if past < 1 or past + horizon > window.length:
            steps, option = (
                ("frames", "dataset.frames") if isinstance(window, Video) else ("steps", "dataset.length")
            )
            whole = "clip" if isinstance(window, Video) else "window"
            raise UserError(
                f"game.horizon={horizon}: {max(past, 1)} {steps} of the past and {horizon} of the future do not "
                f"fit into a {whole} of {window.length} {steps}. Choose a smaller game.horizon or a larger "
                f"{option}."
            )
        self._latents, self._steps, self._seen = model.latent_dim, past + horizon, window.part(past)
        future, make = window.part(horizon), model.generator

        def generator(feature: Feature, latent_dim: int, rngs: nnx.Rngs) -> Any:
            return make(future, latent_dim, rngs)

        inputs = model.latent_dim + self._seen.size
        conditional = dataclasses.replace(model, latent_dim=inputs, generator=generator)
        super().__init__({"x": window.part(self._steps)}, conditional, loss, penalties, augments, precision)
        self.spec = spec
        self.tasks = self._forecast_tasks(window, future)

    def private(self) -> Forecast:
        """Private training is not available, because the generator reads the past of the real windows."""
        raise UserError(
            "game=forecast: the generator reads the past of the real windows, which no noise protects. With "
            "estimator=private, set game=gan."
        )

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with its last past and future steps, and with latents, followed by the past."""
        x = batch["x"][:, -self._steps :]
        latents = super().noise(batch, key)["latents"][:, : self._latents]
        return batch | {"x": x, "latents": self._inputs_of(latents, x[:, : self._seen.length])}

    @staticmethod
    def _inputs_of(latents: jax.Array, past: jax.Array) -> jax.Array:
        """The input of the generator's network: latents, followed by the values of the past."""
        return jnp.concatenate([latents, past.reshape(past.shape[0], -1)], axis=1)

    def _generate(
        self,
        params: ByPlayer,
        net_state: ByPlayer,
        latents: jax.Array,
        labels: jax.Array | None,
        train: bool,
        key: jax.Array,
    ) -> tuple[jax.Array, Tree]:
        """The past, followed by a generated future, ``[n, past + horizon, ...]``."""
        future, state = super()._generate(params, net_state, latents, labels, train, key)
        past = latents[:, self._latents :].reshape(latents.shape[0], *self._seen.shape)
        return jnp.concatenate([past, future], axis=1), state

    def _forecast_tasks(self, window: Series | Video, future: Series | Video) -> dict[str, Task]:
        latents = Vector(self._latents)
        prior = normal_prior(self._latents)

        def scenario(params: ByPlayer, net_state: ByPlayer, latents: jax.Array, past: jax.Array) -> jax.Array:
            made = self.decode(params, net_state, self._inputs_of(latents, past), None)
            return made[:, self._seen.length :]

        def forecast(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
            return {"samples": scenario(params, net_state, inputs["latents"], inputs["past"])}

        def continued(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
            made = scenario(params, net_state, inputs["latents"], inputs["past"])
            return {"samples": jnp.concatenate([inputs["past"], made], axis=1)}

        def complete(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
            x = inputs["x"]
            kept, past = x[:, : -future.length], x[:, -self._steps : -future.length]
            made = scenario(params, net_state, inputs["latents"], past)
            return {"samples": jnp.concatenate([kept, made], axis=1)}

        inputs: Spec = {"past": self._seen, "latents": latents}
        if isinstance(window, Video):  # a clip is shown from its beginning
            named = {CONTINUE: Task(inputs, {"samples": window.part(self._steps)}, continued, prior)}
        else:
            named = {FORECAST: Task(inputs, {"samples": future}, forecast, prior)}
        return named | {
            "complete": Task(
                {"x": window, "latents": latents},
                {"samples": window},
                complete,
                prior,
                pictured=("x", "samples"),
            ),
        }
