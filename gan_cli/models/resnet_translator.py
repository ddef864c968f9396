"""Residual generator of image translation (Johnson et al. 2016; Zhu et al. 2017, appendix 7.2)."""

from __future__ import annotations

import jax
from flax import nnx

from gan_cli.errors import UserError
from gan_cli.models import translation
from gan_cli.models.translation import (
    BlurredDoubling,
    BlurredHalving,
    Conv,
    Dropout,
    Layer,
    ReflectionPad,
    Relu,
    initialiser,
    normalisation,
)
from gan_cli.types import Decay, Feature, Initialiser, NonNegativeInt, PositiveInt, TranslationNorm

_HALVINGS = 2


class Generator(nnx.Module):
    """ResNet: a 7x7 convolution, two halvings, residual blocks, two doublings and a 7x7 convolution.

    Maps images ``[batch, h, w, c]`` to images ``[batch, h, w, c']`` in [-1, 1]. Height and width must be multiples
    of 4. As in the PyTorch code of Zhu et al., the 7x7 convolutions and the residual blocks use reflection padding,
    and the convolutions have no biases with batch normalisation, except for the output layer.

    ``maps`` numbers the layers as the code of Park et al. (2020) does, where paddings, convolutions, normalisations
    and activations count alike. With ``antialias``, 0 is the padded input, 4 and 8 are the convolutions of the two
    halvings, and residual block i (from 1) is 11 + i, so that 12 and 16 are the blocks 1 and 5. Without
    ``antialias``, 4 and 7 are the convolutions that halve, and residual block i is 9 + i.

    Args:
        width: number of channels of the first convolution. The residual blocks have four times as many.
        blocks: number of residual blocks: 9 for images of 256x256 pixels and larger, 6 for smaller images.
        norm: kind of normalisation. ``instance`` normalises each channel of each image, as published. ``batch``
            normalises each channel over the batch. ``none`` disables normalisation.
        dropout: dropout rate inside the residual blocks. 0 disables dropout.
        antialias: whether fixed filters halve and double the resolution (Zhang 2019), as in Park et al. (2020). If
            false, convolutions of stride 2 halve and double.
        init: distribution of the initial kernels: ``normal`` is N(0, 0.02^2), as in Zhu et al. (2017). ``xavier``
            is Glorot's normal distribution with gain 0.02, as in the code of Park et al. (2020).
    """

    def __init__(
        self,
        source: Feature,
        target: Feature,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        blocks: NonNegativeInt = 9,
        norm: TranslationNorm = "instance",
        dropout: Decay = 0.0,
        antialias: bool = False,
        init: Initialiser = "normal",
    ):
        translation.check_images("resnet_translator", source, target)
        self.multiple = 2**_HALVINGS
        _check_size(source, self.multiple)
        kernels, bias = initialiser(init), norm != "batch"

        def finish(features: int) -> list[Layer]:
            return [normalisation(norm, features, rngs), Relu()]

        def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, pad: int = 0) -> Conv:
            return Conv(inputs, outputs, rngs, kernel=kernel, stride=stride, pad=pad, bias=bias, init=kernels)

        stack: list[Layer] = [ReflectionPad(3), conv(source.shape[-1], width, 7), *finish(width)]
        for i in range(_HALVINGS):
            inner = width * 2 ** (i + 1)
            if antialias:
                stack += [conv(inner // 2, inner, 3, pad=1), *finish(inner), BlurredHalving()]
            else:
                stack += [conv(inner // 2, inner, 3, stride=2, pad=1), *finish(inner)]
        inner = width * self.multiple
        stack += [
            ResidualBlock(inner, rngs, norm=norm, dropout=dropout, bias=bias, init=init) for _ in range(blocks)
        ]
        for i in reversed(range(_HALVINGS)):
            outer = width * 2**i
            if antialias:
                stack += [BlurredDoubling(), conv(2 * outer, outer, 3, pad=1), *finish(outer)]
            else:
                up = Conv(
                    2 * outer, outer, rngs, kernel=3, stride=2, pad=1, bias=bias, transposed=True, init=kernels
                )
                stack += [up, *finish(outer)]
        stack += [ReflectionPad(3), Conv(width, target.shape[-1], rngs, kernel=7, init=kernels)]
        self.stack = nnx.List(stack)
        self.target = target
        self.couples_batch = norm == "batch"
        self.reach = translation.reach(stack, self.multiple)

    def maps(self, x: jax.Array, layers: tuple[int, ...], *, train: bool, key: jax.Array) -> list[jax.Array]:
        translation.check_numbers(layers, len(self.stack), "ResNet generator")
        outputs = translation.run(self.stack[: max(layers, default=-1) + 1], x, train=train, key=key)
        return [outputs[number] for number in layers]

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.target.head(translation.run(self.stack, x, train=train, key=key)[-1])


class ResidualBlock(Layer):
    """x + norm(conv(dropout(relu(norm(conv(x)))))) with 3x3 convolutions and reflection padding."""

    def __init__(
        self,
        width: int,
        rngs: nnx.Rngs,
        *,
        norm: TranslationNorm,
        dropout: float,
        bias: bool,
        init: Initialiser,
    ):
        def conv() -> list[Layer]:
            kernel = Conv(width, width, rngs, kernel=3, bias=bias, init=initialiser(init))
            return [ReflectionPad(1), kernel, normalisation(norm, width, rngs)]

        self.stack = nnx.List([*conv(), Relu(), Dropout(dropout), *conv()])

    def reads(self, span: translation.Span) -> translation.Span:
        for layer in reversed(list(self.stack)):
            span = layer.reads(span)
        return span

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return x + translation.run(self.stack, x, train=train, key=key)[-1]


def _check_size(source: Feature, multiple: int) -> None:
    height, width = source.shape[:2]
    if (height | width) % multiple or min(height, width) < 2 * multiple:
        size = translation.fitting_resolution(height, width, multiple, least=2)
        raise UserError(
            f"model=resnet_translator: cannot halve images of {height} x {width} pixels twice. Both sides must be "
            f"multiples of {multiple} and at least {2 * multiple}. If the data set has the option "
            f"dataset.resolution, set it, e.g. dataset.resolution={size}."
        )
