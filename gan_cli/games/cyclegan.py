"""CycleGAN: translation in both directions between two domains, learnt without pairs."""

from __future__ import annotations

import jax

from gan_cli.augment import Augment
from gan_cli.games.translation import (
    A_TO_B,
    B_TO_A,
    Direction,
    Images,
    Translation,
    check_equal_channels,
    l1,
)
from gan_cli.losses import Loss
from gan_cli.models import TranslationModel
from gan_cli.penalties import Penalty
from gan_cli.types import Batch, ByPlayer, NonNegativeFloat, NonNegativeInt, Spec, Task, Term


class CycleGAN(Translation):
    """CycleGAN: two generators, whose translations there and back again return the image.

    Zhu et al. 2017, eq. 3 and section 5.2 (identity loss). All differences are mean absolute differences, on the
    scale of the networks from -1 to 1. G translates a to b, and F translates b to a.

    Args:
        spec: the features of an example: the images ``a`` and ``b``, which need not be pairs.
        model: the networks. Each direction has a generator and a discriminator.
        loss: the adversarial loss of each player.
        penalties: mapping from the name of each penalty to the penalty, a term of the discriminator's loss.
        augments: mapping from the name of each augmentation to the augmentation of the discriminator's input.
        precision: data type in which the networks compute, float32 or bfloat16. Parameters, logits, examples,
            losses and updates are float32 in both cases.
        lambda_a: factor of the difference between a and F(G(a)) (``lambda_A`` in the authors' code).
        lambda_b: factor of the difference between b and G(F(b)) (``lambda_B`` in the authors' code).
        identity: factor, relative to ``lambda_a`` and ``lambda_b``, of the differences between a and F(a) and
            between b and G(b) (``lambda_identity`` in the authors' code). The terms keep colours. 0 disables them.
        pool: number of translations in the image pool of each discriminator. A discriminator judges a translation
            from its pool with probability 1/2 (``pool_size`` in the authors' code). 0 disables the pools.
        adversarial: factor of the adversarial losses of the generators. With 0, the discriminators are not trained.

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
        lambda_a: NonNegativeFloat = 10.0,
        lambda_b: NonNegativeFloat = 10.0,
        identity: NonNegativeFloat = 0.5,
        pool: NonNegativeInt = 50,
        adversarial: NonNegativeFloat = 1.0,
    ):
        self._lambda = {"a": lambda_a, "b": lambda_b}
        self._identity = identity
        self._has_identity = bool(identity != 0)
        super().__init__(
            "cyclegan", spec, model, loss, penalties, augments, precision,
            directions=[A_TO_B, B_TO_A], adversarial=adversarial, pool=pool,
        )  # fmt: skip
        if self._has_identity:
            check_equal_channels(f"game.identity={identity}", spec, "Set game.identity=0.")
        self.tasks = dict(self.tasks) | {f"cycle_{one.source}": self._cycle_task(one) for one in self.directions}

    def _reconstruction_terms(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, fake: Images, key: jax.Array
    ) -> dict[str, Term]:
        terms = {}
        for i, one in enumerate(self.directions):
            domain, weight = one.source, self._lambda[one.source]
            cycle_key, identity_key = jax.random.split(jax.random.fold_in(key, i))
            back = _back(one)
            cycle, _ = self._translate(back, params, net_state, fake[one.target], cycle_key)
            terms[f"cycle_{domain}"] = Term(l1(cycle, batch[domain]), weight)
            if self._has_identity:
                same, _ = self._translate(back, params, net_state, batch[domain], identity_key)
                terms[f"identity_{domain}"] = Term(l1(same, batch[domain]), weight * self._identity)
        return terms

    def _task(self, direction: Direction) -> Task:
        return super()._task(direction)._replace(pictured=None)  # the cycle shows the same pictures

    def _cycle_task(self, direction: Direction) -> Task:
        """The task that translates images of a domain, and the translations back again."""

        def cycle(params: ByPlayer, net_state: ByPlayer, inputs: Batch, key: jax.Array) -> Batch:
            made, _ = self._translate(direction, params, net_state, inputs[direction.source], key)
            back_key = jax.random.fold_in(key, 1)
            back, _ = self._translate(_back(direction), params, net_state, made, back_key)
            return {direction.target: made, "cycle": back}

        outputs = (direction.target, "cycle")
        return self._image_task(direction, outputs, cycle, pictured=(direction.source, *outputs))


def _back(direction: Direction) -> Direction:
    return B_TO_A if direction == A_TO_B else A_TO_B
