"""The VAE-GAN: an autoencoder whose reconstructions are compared in a layer of a discriminator."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp

from gan_cli.augment import Augment
from gan_cli.engine import devices
from gan_cli.errors import UserError
from gan_cli.games import likelihoods
from gan_cli.games.gan import DISCRIMINATOR, GAN, GENERATOR
from gan_cli.games.networks import Network, autoencoder_tasks, build_encoder, check_generates, label_classes
from gan_cli.losses import Loss, masked_mean
from gan_cli.models import Model
from gan_cli.penalties import Penalty
from gan_cli.types import Batch, ByPlayer, Game, LossTerms, NonNegativeFloat, Spec, Term

ENCODER, DECODER = "encoder", "decoder"


class VAEGAN(Game):
    """VAE-GAN: an encoder and a decoder, with a discriminator that learns the measure of similarity.

    Larsen et al. 2016, algorithm 1. The decoder is the generator of the model. Images and reconstructions are
    compared by the last hidden layer of the discriminator, with a Gaussian likelihood of variance 1. The encoder
    minimises the KL divergence of its posterior from N(0, I) plus the reconstruction error. The decoder minimises
    ``gamma`` times the reconstruction error plus the generator's loss. The discriminator minimises its adversarial
    loss, and does not reduce the reconstruction error. The generated examples of the adversarial losses are the
    reconstructions of the batch and as many samples from the prior. The losses are the means over the two kinds.

    Args:
        spec: the features of an example: ``x`` and, for a conditional model, ``label``.
        model: the three networks.
        loss: the adversarial loss of the discriminator and the decoder.
        penalties: mapping from the name of each penalty to the penalty, a term of the discriminator's loss.
        augments: mapping from the name of each augmentation to the augmentation of the discriminator's input.
            Reconstructions are compared without augmentation.
        precision: data type in which the networks compute, float32 or bfloat16. Parameters, logits, examples,
            losses and updates are float32 in both cases.
        gamma: factor of the reconstruction error in the decoder's loss (gamma in algorithm 1). Large values favour
            faithful reconstructions, and small values realistic samples.
        beta: factor of the KL divergence in the encoder's loss. Larsen et al. use 1, with a convolutional layer of
            thousands of values. A layer of few units needs smaller values, e.g. 0.05, because its distances are
            small, and the codes would otherwise contain little information on the examples.

    Raises:
        UserError: the data, the networks, the penalties and the augmentations are not compatible with each other.
    """

    players = (DISCRIMINATOR, ENCODER, DECODER)
    averaged: tuple[str, ...] = (ENCODER, DECODER)

    def __init__(
        self,
        spec: Spec,
        model: Model,
        loss: Loss,
        penalties: dict[str, Penalty],
        augments: dict[str, Augment],
        precision: str,
        *,
        gamma: NonNegativeFloat = 1.0,
        beta: NonNegativeFloat = 1.0,
    ):
        check_generates("vae_gan", model, spec)
        self.spec: Spec = spec
        if spec["x"].noise:
            raise UserError(
                f"dataset: game=vae_gan reconstructs examples without noise, and {spec['x'].noun} of this data set "
                "need noise. Set game=gan, or game=vae game.likelihood=table."
            )
        packing = next((name for name, augment in augments.items() if augment.pack > 1), None)
        if packing is not None:
            raise UserError(
                f"augment=[{packing}]: game=vae_gan compares single examples in a layer of the discriminator, but "
                f"the discriminator would receive packs. Remove {packing} from augment=[...]."
            )
        self._gamma, self._beta, self._latent_dim = gamma, beta, model.latent_dim
        self._gan = GAN(spec, model, loss, penalties, augments, precision)
        classes = label_classes(model, spec)
        self._labelled = classes is not None
        build = build_encoder("vae_gan", model, spec["x"], 2 * model.latent_dim, classes)
        self._encoder = Network(build, precision)
        couples = self._encoder.couples_batch or GENERATOR in self._gan.coupled
        self.coupled = frozenset(self.players) if couples else self._gan.coupled
        self.tasks = autoencoder_tasks(spec["x"], model.latent_dim, classes, self._encode, self._decode)

    def with_eager_penalties(self) -> VAEGAN:
        """A copy of the game that applies every penalty at every step."""
        game = copy.copy(self)
        game._gan = self._gan.with_eager_penalties()
        return game

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: initial parameters and initial network state, as mappings from the name of each player."""
        params, net_state = self._gan.init(key)
        encoder, state = self._encoder.init(jax.random.fold_in(key, len(self.players)))
        params = {DISCRIMINATOR: params[DISCRIMINATOR], ENCODER: encoder, DECODER: params[GENERATOR]}
        states = {
            DISCRIMINATOR: net_state[DISCRIMINATOR],
            ENCODER: {"network": state},
            DECODER: net_state[GENERATOR],
        }
        return params, states

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with ``latents`` from the prior, and ``posterior_noise``, both ``[batch, latent_dim]``."""
        drawn = jax.random.normal(key, (2, len(batch["x"]), self._latent_dim))
        return batch | {"latents": devices.split(drawn[0]), "posterior_noise": devices.split(drawn[1])}

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
        """The terms of a player's loss.

        The metrics of the encoder are ``kl``, the mean KL divergence in nats, and ``distance``, half the squared
        distance between an example and its reconstruction in the layer of the discriminator.
        """
        encoder_key, decoder_key, key = jax.random.split(key, 3)
        label = batch["label"] if self._labelled else None
        x, mask = batch["x"], batch.get("mask")
        code, encoder_state = self._encoder(
            params[ENCODER], net_state[ENCODER]["network"], x, label, train=True, key=encoder_key
        )
        mean, log_variance = jnp.split(code, 2, axis=-1)
        posterior = mean + jnp.exp(log_variance / 2) * batch["posterior_noise"]
        # Rows 2 i and 2 i + 1 belong to example i: its reconstruction, and a sample from the prior.
        latents = _interleaved(posterior, batch["latents"])
        twice = {name: jnp.repeat(rows, 2, axis=0) for name, rows in batch.items() if name in self._gan_inputs}
        gan_params, gan_state = _of_gan(params), _of_gan(net_state)
        fakes, fake_state = self._gan.fake(gan_params, gan_state, twice | {"latents": latents}, decoder_key, step)
        terms: dict[str, Term] = {}
        if player != DISCRIMINATOR:
            distance = self._distance(gan_params, gan_state, x, fakes[::2], label, key)
            terms["reconstruction"] = Term(distance, self._gamma if player == DECODER else 1.0)
        if player == ENCODER:
            divergence = likelihoods.kl(mean, log_variance).sum(-1)
            terms["kl"] = Term(divergence, self._beta)
            metrics = {
                f"{ENCODER}/kl": masked_mean(divergence, mask),
                f"{ENCODER}/distance": masked_mean(distance, mask),
            }
            return LossTerms(terms, net_state | {ENCODER: {"network": encoder_state}}, metrics)
        of_gan = GENERATOR if player == DECODER else DISCRIMINATOR
        found = self._gan.loss(of_gan, gan_params, gan_state, twice, key, step, fakes)
        terms |= {name: term._replace(values=_halved(term.values)) for name, term in found.terms.items()}
        changed = fake_state[GENERATOR] if player == DECODER else found.net_state[DISCRIMINATOR]
        return LossTerms(terms, net_state | {player: changed}, found.metrics)

    @property
    def _gan_inputs(self) -> frozenset[str]:
        return frozenset({"x", "mask", *(["label"] if self._labelled else [])})

    def _distance(
        self,
        gan_params: ByPlayer,
        gan_state: ByPlayer,
        x: jax.Array,
        reconstructions: jax.Array,
        label: jax.Array | None,
        key: jax.Array,
    ) -> jax.Array:
        """-log N(features of x; features of the reconstruction, I) without its constant, ``[batch]``."""
        of_x, of_reconstruction = (
            self._gan.features(gan_params, gan_state, examples, label, key) for examples in (x, reconstructions)
        )
        return 0.5 * jnp.square(of_x - of_reconstruction).sum(-1)

    def augmented(self, x: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array) -> jax.Array:
        """Examples ``x`` ``[n, *shape]`` after the augmentations of the discriminator's input."""
        return self._gan.augmented(x, net_state, key, step)

    def network(self, player: str, params: ByPlayer, net_state: ByPlayer) -> Any:
        """A player's network with the given parameters and network state, as a callable Flax module."""
        if player == ENCODER:
            return self._encoder.module(params[player], net_state[player]["network"])
        of_gan = GENERATOR if player == DECODER else player
        return self._gan.network(of_gan, _of_gan(params), _of_gan(net_state))

    def _encode(self, params: ByPlayer, net_state: ByPlayer, x: jax.Array, label: jax.Array | None) -> jax.Array:
        own, state = params[ENCODER], net_state[ENCODER]["network"]
        code, _ = self._encoder(own, state, x, label, train=False, key=jax.random.key(0))
        mean: jax.Array = code[:, : self._latent_dim]
        return mean

    def _decode(
        self, params: ByPlayer, net_state: ByPlayer, latents: jax.Array, label: jax.Array | None
    ) -> jax.Array:
        return self._gan.decode(_of_gan(params), _of_gan(net_state), latents, label)


def _of_gan(by_player: ByPlayer) -> ByPlayer:
    """The parameters or the states of the discriminator and the decoder, by the names of a GAN's players."""
    return {DISCRIMINATOR: by_player[DISCRIMINATOR], GENERATOR: by_player[DECODER]}


def _interleaved(first: jax.Array, second: jax.Array) -> jax.Array:
    """Rows of two arrays ``[n, ...]`` in turn, ``[2 n, ...]``."""
    return jnp.stack([first, second], axis=1).reshape(-1, *first.shape[1:])


def _halved(values: jax.Array) -> jax.Array:
    """The means of rows 2 i and 2 i + 1, ``[n]`` for ``[2 n]``. Scalars are returned unchanged."""
    return values.reshape(-1, 2).mean(1) if values.ndim else values
