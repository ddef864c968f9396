"""pix2pix: translation that is learnt from pairs of images."""

from __future__ import annotations

import jax

from gan_cli.augment import Augment
from gan_cli.data.features import Vector
from gan_cli.engine import devices
from gan_cli.games.networks import normal_prior
from gan_cli.games.translation import Direction, Images, Translation, direction_of, l1
from gan_cli.losses import Loss
from gan_cli.models import TranslationModel
from gan_cli.penalties import Penalty
from gan_cli.types import (
    Batch,
    ByPlayer,
    NonNegativeFloat,
    NonNegativeInt,
    Spec,
    Task,
    Term,
    TranslationDirection,
)


class Pix2Pix(Translation):
    """pix2pix: a generator that imitates the partner of an image, and a discriminator that sees both.

    Isola et al. 2017, eq. 4. The discriminator judges the source and the translation, concatenated along the
    channels. The generator minimises the adversarial loss plus ``l1`` times the mean absolute difference from the
    partner, on the scale of the networks from -1 to 1. Dropout in the generator is the noise of the paper. It is on
    when a trained generator translates too, so that each seed gives another translation.

    Args:
        spec: the features of an example: the images ``a`` and ``b`` of a pair.
        model: the two networks.
        loss: the adversarial loss of each player.
        penalties: mapping from the name of each penalty to the penalty, a term of the discriminator's loss.
        augments: mapping from the name of each augmentation to the augmentation of the discriminator's input. The
            source and the translation are transformed alike.
        precision: data type in which the networks compute, float32 or bfloat16. Parameters, logits, examples,
            losses and updates are float32 in both cases.
        direction: the translation: ``a_to_b``, or ``b_to_a`` (``direction`` in the authors' code).
        l1: factor of the mean absolute difference (``lambda_L1`` in the authors' code).
        adversarial: factor of the adversarial loss of the generator. With 0, the generator minimises the absolute
            difference alone, and the discriminator is not trained.
        latents: number of channels of noise that are appended to the input of the generator. The noise is drawn
            from N(0, I) for each image and is equal at all pixels. The paper uses dropout instead.

    Raises:
        UserError: the data, the networks, the penalties and the augmentations are not compatible with each other.
    """

    paired = True

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
        l1: NonNegativeFloat = 100.0,
        adversarial: NonNegativeFloat = 1.0,
        latents: NonNegativeInt = 0,
    ):
        self._l1 = l1
        super().__init__(
            "pix2pix", spec, model, loss, penalties, augments, precision,
            directions=[direction_of(direction)], adversarial=adversarial, conditional=True, latents=latents,
        )  # fmt: skip

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with ``latents`` ``[batch, latents]``, if the generator receives noise."""
        if not self._latents:
            return batch
        drawn = jax.random.normal(key, (len(batch["a"]), self._latents))
        return batch | {"latents": devices.split(drawn)}

    def _reconstruction_terms(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, fake: Images, key: jax.Array
    ) -> dict[str, Term]:
        (target,) = fake
        return {"l1": Term(l1(fake[target], batch[target]), self._l1)}

    def _task(self, direction: Direction) -> Task:
        task = super()._task(direction)
        if not self._latents:
            return task
        return task._replace(
            inputs={**task.inputs, "latents": Vector(self._latents)}, prior=normal_prior(self._latents)
        )
