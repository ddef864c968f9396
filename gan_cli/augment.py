"""What is done to examples, real and generated alike, before the discriminator sees them.

Each option is one ``Augment``; several act in the order in which they are chosen, packing last. All are
differentiable in the examples: the generator learns through them. The penalties see what the discriminator sees:
R1 is of the gradient by the augmented examples, as in Zhao et al.'s code for CIFAR; Karras et al. (2020) take it by
the images before.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gan_cli import transforms
from gan_cli.errors import UserError
from gan_cli.types import NonNegativeFloat, PackSize, PositiveInt, Tree, UnitFloat

Array = jax.Array


class Augment(NamedTuple):
    """One change of what the discriminator is shown.

    Attributes:
        apply: ``(x [batch, ...], key, step, state) -> x``.
        start: the state before the first step; () where nothing adapts.
        adapt: ``(state, real_logits) -> state``, after each of the discriminator's evaluations, with a logit for
            each real example, be it that of its pack, counted from where the loss draws its boundary.
        pack: how many examples the discriminator sees at once.
    """

    apply: Callable[[Array, Array, Any, Tree], Array]
    start: Tree = ()
    adapt: Callable[[Tree, Array], Tree] = lambda state, real_logits: state
    pack: int = 1


def noise(*, std: NonNegativeFloat = 0.1, anneal_steps: PositiveInt | None = None) -> Augment:
    """Instance noise: x + s N(0, I), so that the two distributions overlap (Sonderby et al. 2017, section 3.2;
    Arjovsky and Bottou 2017, section 3).

    Args:
        std: s at the start.
        anneal_steps: steps in which s falls linearly to zero; None keeps it.
    """

    def apply(x: Array, key: Array, step: Any, state: Tree) -> Array:
        left = 1.0 if anneal_steps is None else jnp.maximum(0.0, 1.0 - step / anneal_steps)
        return x + std * left * jax.random.normal(key, x.shape)

    return Augment(apply)


def diffaugment(*, color: bool = True, translation: bool = True, cutout: bool = True) -> Augment:
    """Differentiable augmentation of images (Zhao et al. 2020, section 3.2, with the ranges of their code).

    Args:
        color: brightness by up to 0.5, saturation by a factor of 0 to 2, contrast by one of 0.5 to 1.5.
        translation: shifts by up to an eighth of each side, zeros coming in.
        cutout: a square of half of each side set to zero.
    """

    def apply(x: Array, key: Array, step: Any, state: Tree) -> Array:
        _needs_images("diffaugment", x)
        keys = jax.random.split(key, 5)
        if color:
            x = transforms.brightness(x, jax.random.uniform(keys[0], (len(x),), minval=-0.5, maxval=0.5))
            x = transforms.saturation(x, jax.random.uniform(keys[1], (len(x),), maxval=2.0))
            x = transforms.contrast(x, jax.random.uniform(keys[2], (len(x),), minval=0.5, maxval=1.5))
        if translation:
            x = transforms.shift(x, keys[3], 1 / 8)
        if cutout:
            x = transforms.cut_out(x, keys[4], 0.5)
        return x

    return Augment(apply)


def adaptive(*, target: UnitFloat = 0.6, examples: PositiveInt = 500_000) -> Augment:
    """Adaptive discriminator augmentation of images: each of a chain of changes is made with probability p, and p
    follows how sure the discriminator is of the real ones (Karras et al. 2020, ADA, section 3).

    p grows while E sign D(x) is above ``target`` and falls while it is below, from 0, within [0, 1]. The chain is
    that part of theirs which needs no interpolation: flips, quarter turns, whole-pixel shifts by up to an eighth,
    brightness, contrast and saturation, with the strengths of their table of transformations.

    Args:
        target: of their r_t.
        examples: real examples in which p can rise from 0 to 1.
    """

    def apply(x: Array, key: Array, step: Any, state: Tree) -> Array:
        _needs_images("adaptive", x)
        n = len(x)
        for i, change in enumerate(_ADAPTIVE):
            chosen, own = jax.random.split(jax.random.fold_in(key, i))
            made = jax.random.bernoulli(chosen, state["p"], (n, 1, 1, 1))
            x = jnp.where(made, change(x, own), x)
        return x

    def adapt(state: Tree, real_logits: Array) -> Tree:
        sure = jnp.sign(real_logits).mean()
        p = state["p"] + jnp.sign(sure - target) * len(real_logits) / examples
        return {"p": jnp.clip(p, 0.0, 1.0)}

    return Augment(apply, {"p": jnp.zeros(())}, adapt)


_ADAPTIVE: list[Callable[[Array, Array], Array]] = [
    transforms.flip,
    transforms.quarter_turns,
    lambda x, key: transforms.shift(x, key, 1 / 8, "reflect"),
    lambda x, key: transforms.brightness(x, 0.2 * jax.random.normal(key, (len(x),))),
    lambda x, key: transforms.scale(x, 2 ** (0.5 * jax.random.normal(key, (len(x),)))),
    lambda x, key: transforms.saturation(x, 2 ** jax.random.normal(key, (len(x),))),
]


def packing(*, size: PackSize = 2) -> Augment:
    """PacGAN: the discriminator sees ``size`` examples at once, side by side in its channels (Lin et al. 2018).

    A batch of ``train.batch_size`` examples is ``train.batch_size / size`` packed ones.
    """

    def apply(x: Array, key: Array, step: Any, state: Tree) -> Array:
        packed = x.reshape(len(x) // size, size, *x.shape[1:])
        packed = jnp.moveaxis(packed, 1, -2)
        return packed.reshape(*packed.shape[:-2], -1)

    return Augment(apply, pack=size)


def _needs_images(name: str, x: Array) -> None:
    if x.ndim != 4:
        raise UserError(f"augment={name}: changes images, and the data's examples are points. Use augment=[noise].")
