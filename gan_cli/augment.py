"""Augmentations of real and generated examples before they enter the discriminator.

Each public function of this module returns an ``Augment``. The game applies augmentations in the order of the
user's list, except packing, which the game always applies last. Every augmentation is differentiable with respect
to the examples, so that gradients reach the generator. The frames of a clip are changed alike. Penalties also
receive augmented examples. The penalty R1, for example, differentiates with respect to the augmented example, as in
the code of Zhao et al. (2020) for CIFAR. In contrast, Karras et al. (2020) differentiate with respect to the image
before the augmentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gan_cli import transforms
from gan_cli.errors import UserError
from gan_cli.types import NonNegativeFloat, PackSize, PositiveInt, Tree, UnitFloat

Array = jax.Array
Step = int | jax.Array


class Augment(NamedTuple):
    """An augmentation of the discriminator's input.

    Attributes:
        apply: ``(x [batch, ...], key, step, state) -> x``, returns the augmented examples.
        start: initial state of an adaptive augmentation. For all other augmentations, the state is the empty tuple.
        adapt: ``(state, real_logits [batch]) -> state``, returns the new state. The game calls the function at each
            evaluation of the discriminator's loss. Before the call, the game subtracts the boundary of the loss
            from the logits (see ``Loss.above_boundary``). With packing, the game also repeats the logit of a pack
            for each example of the pack.
        pack: number of examples that form one input of the discriminator.
        alike: whether the source and the output of a translation receive the same random numbers, so that a
            transformation keeps the relation of the two images.
    """

    apply: Callable[[Array, Array, Step, Tree], Array]
    start: Tree = ()
    adapt: Callable[[Tree, Array], Tree] = lambda state, real_logits: state
    pack: int = 1
    alike: bool = True


def noise(*, std: NonNegativeFloat = 0.1, anneal_steps: PositiveInt | None = None) -> Augment:
    """Instance noise: adds s N(0, I) to x, so that the real and generated distributions overlap.

    Sonderby et al. 2017, section 3.2; Arjovsky and Bottou 2017, section 3.

    Args:
        std: initial standard deviation s of the noise, on the scale of the examples (-1 to 1 for images).
        anneal_steps: number of steps in which s decreases linearly to zero. If null, s is constant.
    """

    def apply(x: Array, key: Array, step: Step, state: Tree) -> Array:
        left = 1.0 if anneal_steps is None else jnp.maximum(0.0, 1.0 - step / anneal_steps)
        return x + std * left * jax.random.normal(key, x.shape)

    # Equal noise would cancel out in the difference of two images.
    return Augment(apply, alike=False)


def diffaugment(*, color: bool = True, translation: bool = True, cutout: bool = True) -> Augment:
    """DiffAugment: random colour changes, shifts and cutouts of images, at every step.

    Zhao et al. 2020, section 3.2, with the parameter ranges of the authors' code.

    Args:
        color: whether to change brightness by an amount from -0.5 to 0.5, saturation by a factor from 0 to 2, and
            contrast by a factor from 0.5 to 1.5. The opacity of RGBA images is not changed.
        translation: whether to shift the image by up to one eighth of its height and width. Uncovered pixels become
            zero.
        cutout: whether to set a randomly placed rectangle to zero. The rectangle has half the height and half the
            width of the image.
    """

    def changed(x: Array, key: Array) -> Array:
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

    def apply(x: Array, key: Array, step: Step, state: Tree) -> Array:
        _needs_images("diffaugment", x)
        return transforms.each_frame(lambda frames: changed(frames, key), x)

    return Augment(apply)


def adaptive(*, target: UnitFloat = 0.6, examples: PositiveInt = 500_000) -> Augment:
    """Adaptive discriminator augmentation (ADA): image transformations with an adaptive probability p.

    Karras et al. 2020, ADA, section 3. The statistic r_t = E sign D(x), computed on real examples, measures the
    discriminator's overfitting. The probability p starts at 0, increases while r_t is above ``target``, decreases
    while r_t is below ``target``, and stays within [0, 1]. Each image passes through a chain of transformations,
    each of which is applied with probability p. The chain contains the transformations of the paper that require
    no interpolation: flips, rotations by multiples of 90 degrees, shifts by whole pixels, and changes of
    brightness, contrast and saturation. A shift is at most one eighth of the height or width. The strengths
    of the transformations are taken from the paper. Images that are not square are rotated by 180 degrees only, and
    changes of colour leave the opacity of RGBA images unchanged.

    Args:
        target: target value of r_t.
        examples: number of real examples after which p has increased from 0 to 1, if r_t stays above ``target``.
    """

    def changed(x: Array, key: Array, p: Array) -> Array:
        n = len(x)
        for i, change in enumerate(_ADAPTIVE):
            chosen, own = jax.random.split(jax.random.fold_in(key, i))
            made = jax.random.bernoulli(chosen, p, (n, 1, 1, 1))
            x = jnp.where(made, change(x, own), x)
        return x

    def apply(x: Array, key: Array, step: Step, state: Tree) -> Array:
        _needs_images("adaptive", x)
        return transforms.each_frame(lambda frames: changed(frames, key, state["p"]), x)

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
    """PacGAN: each input of the discriminator is a pack of several examples.

    Lin et al. 2018. The examples of a pack are concatenated along the channels of images, or along the features of
    points. A batch of ``train.batch_size`` examples becomes ``train.batch_size / size`` packs.

    Args:
        size: number of examples in one pack. ``train.batch_size`` must be a multiple of size.
    """

    def apply(x: Array, key: Array, step: Step, state: Tree) -> Array:
        packed = x.reshape(len(x) // size, size, *x.shape[1:])
        packed = jnp.moveaxis(packed, 1, -2)
        return packed.reshape(*packed.shape[:-2], -1)

    return Augment(apply, pack=size)


def _needs_images(name: str, x: Array) -> None:
    if x.ndim not in (4, 5):
        raise UserError(
            f"augment={name}: the augmentation changes images and clips, but the examples of the data set are "
            "neither. Use an augmentation for all kinds of examples, e.g. augment=[noise], or augment=none."
        )
