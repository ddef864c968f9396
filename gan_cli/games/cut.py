"""CUT: translation in one direction between two domains, learnt without pairs by contrasting patches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from gan_cli.augment import Augment
from gan_cli.engine import devices
from gan_cli.games.gan import GENERATOR
from gan_cli.games.networks import Network
from gan_cli.games.translation import Direction, Images, Translation, check_equal_channels, direction_of
from gan_cli.losses import Loss
from gan_cli.models import TranslationModel
from gan_cli.models.projection import PatchProjection
from gan_cli.penalties import Penalty
from gan_cli.types import (
    Batch,
    ByPlayer,
    Initialiser,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Spec,
    Term,
    TranslationDirection,
)

PROJECTION = "projection"


class CUT(Translation):
    """CUT: a generator whose encoder recognises each patch of an image in the translation of the image.

    Park et al. 2020, eq. 1 to 5. For each of several layers of the generator's encoder, features of patches are
    projected to unit vectors. The contrastive loss is the cross-entropy of recognising, among all drawn patches of
    the image, the patch at the same place as a patch of the translation. FastCUT is ``nce=10 identity=false
    flip_equivariance=true``.

    Args:
        spec: the features of an example: the images ``a`` and ``b``, which need not be pairs.
        model: the two networks. The generator needs the layers ``layers``.
        loss: the adversarial loss of each player.
        penalties: mapping from the name of each penalty to the penalty, a term of the discriminator's loss.
        augments: mapping from the name of each augmentation to the augmentation of the discriminator's input.
        precision: data type in which the networks compute, float32 or bfloat16. Parameters, logits, examples,
            losses and updates are float32 in both cases.
        direction: the translation: ``a_to_b``, or ``b_to_a`` (``direction`` in the authors' code).
        nce: factor of the contrastive loss (``lambda_NCE`` in the authors' code).
        identity: whether the contrastive loss is the mean over translations of the source and of images of the
            target, which the generator should not change (``nce_idt`` in the authors' code).
        temperature: temperature tau of the cross-entropy (``nce_T`` in the authors' code).
        patches: number of patches that are drawn in each layer (``num_patches`` in the authors' code). Maps with
            fewer patches use all of them.
        layers: numbers of the layers of the encoder (``nce_layers`` in the authors' code). 0 is the input of the
            generator.
        flip_equivariance: whether the generator receives mirrored images with probability 1/2, whose translations
            are mirrored back before patches are compared (``flip_equivariance`` in the authors' code).
        adversarial: factor of the adversarial loss of the generator (``lambda_GAN`` in the authors' code). With 0,
            the discriminator is not trained.
        init: distribution of the initial kernels of the projections (``init_type`` in the authors' code):
            ``normal`` is N(0, 0.02^2), ``xavier`` is Glorot's normal distribution with gain 0.02.

    Raises:
        UserError: the data, the networks, the penalties and the augmentations are not compatible with each other.
    """

    def __init__(
        self,
        spec: Spec,
        model: TranslationModel,
        loss: Loss,
        penalties: dict[str, Penalty],
        augments: dict[str, Augment],
        precision: str,
        *,
        direction: TranslationDirection = "a_to_b",
        nce: NonNegativeFloat = 1.0,
        identity: bool = True,
        temperature: PositiveFloat = 0.07,
        patches: PositiveInt = 256,
        layers: tuple[NonNegativeInt, ...] = (0, 4, 8, 12, 16),
        flip_equivariance: bool = False,
        adversarial: NonNegativeFloat = 1.0,
        init: Initialiser = "xavier",
    ):
        self._nce, self._identity, self._temperature = nce, identity, temperature
        self._patches, self._layers, self._mirrors = patches, tuple(layers), flip_equivariance
        super().__init__(
            "cut", spec, model, loss, penalties, augments, precision,
            directions=[direction_of(direction)], adversarial=adversarial,
        )  # fmt: skip
        if identity:
            check_equal_channels("game.identity=true", spec, "Set game.identity=false.")
        channels = self._channels()
        self.networks[GENERATOR][PROJECTION] = Network(
            lambda key: PatchProjection(channels, nnx.Rngs(key), init=init), precision
        )

    @property
    def _direction(self) -> Direction:
        (direction,) = self.directions
        return direction

    def _channels(self) -> list[int]:
        """The number of features of each layer that is compared."""

        def maps(key: jax.Array) -> list[jax.Array]:
            params, net_state = self.init(key)
            x = jnp.zeros((1, *self._images[self._direction.source].shape))
            return self._maps(params, net_state, x, key)

        return [found.shape[-1] for found in jax.eval_shape(maps, jax.random.key(0))]

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with booleans ``mirrored`` ``[batch]``, if the generator receives mirrored images."""
        if not self._mirrors:
            return batch
        return batch | {"mirrored": devices.split(jax.random.bernoulli(key, 0.5, (len(batch["a"]),)))}

    def _generator_input(self, direction: Direction, inputs: Batch) -> jax.Array:
        return _mirrored(inputs[direction.source], inputs.get("mirrored"))

    def _reconstruction_terms(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, fake: Images, key: jax.Array
    ) -> dict[str, Term]:
        one, mirrored = self._direction, batch.get("mirrored")
        key, translation_key = jax.random.split(key)
        x, made = batch[one.source], fake[one.target]
        if not self._identity:
            return {"nce": Term(self._contrast(params, net_state, x, made, mirrored, key), self._nce)}
        target = batch[one.target]
        same, _ = self._translate(one, params, net_state, _mirrored(target, mirrored), translation_key)
        # One pass over both domains. The rows of an example are adjacent, so that they stay on one device.
        x, made = (jnp.stack(two, axis=1).reshape(-1, *two[0].shape[1:]) for two in ((x, target), (made, same)))
        twice = None if mirrored is None else jnp.repeat(mirrored, 2)
        values = self._contrast(params, net_state, x, made, twice, key).reshape(-1, 2)
        return {"nce": Term(values[:, 0], 0.5 * self._nce), "nce_identity": Term(values[:, 1], 0.5 * self._nce)}

    def _contrast(
        self,
        params: ByPlayer,
        net_state: ByPlayer,
        x: jax.Array,
        made: jax.Array,
        mirrored: jax.Array | None,
        key: jax.Array,
    ) -> jax.Array:
        """The contrastive loss ``[batch]`` of images ``x`` and their translations, the mean over the layers."""
        made_key, key = jax.random.split(key)
        of_made = [_mirrored(found, mirrored) for found in self._maps(params, net_state, made, made_key)]
        of_x = self._maps(params, net_state, x, key)
        places = [
            jax.random.permutation(jax.random.fold_in(key, i), math.prod(found.shape[1:3]))[: self._patches]
            for i, found in enumerate(of_x)
        ]
        queries, keys = (
            self.networks[GENERATOR][PROJECTION](
                params[GENERATOR][PROJECTION],
                net_state[GENERATOR]["networks"][PROJECTION],
                [found.reshape(len(x), -1, found.shape[-1])[:, at] for found, at in zip(maps, places, strict=True)],
                train=True,
                key=key,
            )[0]
            for maps in (of_made, of_x)
        )
        losses = [patch_nce(q, k, self._temperature) for q, k in zip(queries, keys, strict=True)]
        return jnp.stack(losses).mean(0)

    def _maps(self, params: ByPlayer, net_state: ByPlayer, x: jax.Array, key: jax.Array) -> list[jax.Array]:
        """The feature maps ``[batch, h', w', f]`` of the compared layers of the generator's encoder."""
        name = self._direction.name
        own, state = params[GENERATOR][name], net_state[GENERATOR]["networks"][name]
        network = self.networks[GENERATOR][name]
        maps: list[jax.Array] = network(own, state, x, self._layers, train=True, key=key, method="maps")[0]
        return maps


def patch_nce(queries: jax.Array, keys: jax.Array, temperature: float | jax.Array) -> jax.Array:
    """The patchwise contrastive loss of an image, ``[batch]`` (Park et al. 2020, eq. 2 and 4).

    The positive of query i is key i, and its negatives are the other keys of the same image. The keys are constant.

    Args:
        queries: unit vectors ``[batch, patches, f]`` of patches of translations.
        keys: unit vectors ``[batch, patches, f]`` of the patches of the sources at the same places.
        temperature: temperature of the cross-entropy.
    """
    logits = jnp.einsum("bqf,bkf->bqk", queries, jax.lax.stop_gradient(keys)) / temperature
    positives = jnp.broadcast_to(jnp.arange(logits.shape[-1]), logits.shape[:2])
    losses: jax.Array = optax.softmax_cross_entropy_with_integer_labels(logits, positives)
    return losses.mean(1)


def _mirrored(x: jax.Array, mirrored: jax.Array | None) -> jax.Array:
    """``x`` ``[batch, h, w, c]``, mirrored left to right in the rows where ``mirrored`` ``[batch]`` is true."""
    return x if mirrored is None else jnp.where(mirrored[:, None, None, None], x[:, :, ::-1], x)
