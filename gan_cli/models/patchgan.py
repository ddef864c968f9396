"""Discriminators of image translation, which judge patches (Isola et al. 2017, section 3.2.2)."""

from __future__ import annotations

from itertools import pairwise

import jax
from flax import nnx

from gan_cli.errors import UserError
from gan_cli.models import translation
from gan_cli.models.translation import BlurredHalving, Conv, Layer, LeakyRelu, initialiser, normalisation
from gan_cli.types import Feature, Initialiser, NonNegativeInt, PositiveInt, TranslationNorm


class PatchGAN(nnx.Module):
    """PatchGAN: convolutions that halve the resolution ``layers`` times. Each logit judges a patch.

    Maps images ``[batch, h, w, c]`` to logits ``[batch, h', w']``. With ``layers`` > 0, all kernels are 4x4, two
    convolutions of stride 1 follow, h' is h // 2^layers - 2, and the patches overlap. As in the PyTorch code of
    Isola et al., the first and the last convolution are not normalised, and the others have no biases with batch
    normalisation.

    With ``layers=0``, the network is the PixelGAN of Isola et al.: three 1x1 convolutions, the second of which is
    normalised. It judges the colour of each pixel, but no structure, and h' is h.

    Args:
        width: number of channels of the first convolution. Each convolution doubles the number up to 8 * width.
        layers: number of halvings. A patch has 1x1 pixel with 0, 16x16 pixels with 1, 34x34 with 2, 70x70 with 3,
            142x142 with 4 and 286x286 with 5.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch, as published for pix2pix.
            ``instance`` normalises each channel of each image, as published for CycleGAN. ``none`` disables it.
        antialias: whether fixed filters halve the resolution (Zhang 2019), as in Park et al. (2020). If false,
            convolutions of stride 2 halve it.
        init: distribution of the initial kernels: ``normal`` is N(0, 0.02^2), ``xavier`` is Glorot's normal
            distribution with gain 0.02.
    """

    def __init__(
        self,
        feature: Feature,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        layers: NonNegativeInt = 3,
        norm: TranslationNorm = "instance",
        antialias: bool = False,
        init: Initialiser = "normal",
    ):
        translation.check_images("patchgan", feature)
        _check_size(feature, layers)
        kernels, bias = initialiser(init), norm != "batch"
        side, pad = (4, 1) if layers else (1, 0)
        channels = [feature.shape[-1]] + [width * min(2**i, 8) for i in range((layers or 1) + 1)]
        stack: list[Layer] = []
        for i, (a, b) in enumerate(pairwise(channels)):
            stride = 2 if i < layers and not antialias else 1
            stack.append(Conv(a, b, rngs, kernel=side, stride=stride, pad=pad, bias=bias or i == 0, init=kernels))
            if i > 0:
                stack.append(normalisation(norm, b, rngs))
            stack.append(LeakyRelu())
            if i < layers and antialias:
                stack.append(BlurredHalving())
        # The PixelGAN of the PyTorch code has no bias in its last layer either.
        last = bias or layers > 0
        stack.append(Conv(channels[-1], 1, rngs, kernel=side, pad=pad, bias=last, init=kernels))
        self.stack = nnx.List(stack)
        self.couples_batch = norm == "batch"

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return translation.run(self.stack, x, train=train, key=key)[-1][..., 0]


def _check_size(feature: Feature, layers: int) -> None:
    height, width = feature.shape[:2]
    shorter, least = min(height, width), 3 * 2**layers if layers else 1
    if shorter < least:  # the two convolutions without halving remove one row and one column each
        most = max((shorter // 3).bit_length() - 1, 0)
        raise UserError(
            f"model.discriminator.layers={layers}: images of {height} x {width} pixels are too small for {layers} "
            f"halvings, which need at least {least} x {least} pixels. Set model.discriminator.layers={most}."
        )
