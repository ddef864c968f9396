"""U-Net generator of image translation (Isola et al. 2017, appendix 6.1)."""

from __future__ import annotations

from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.errors import UserError
from gan_cli.models import translation
from gan_cli.models.translation import Conv, Dropout, Layer, LeakyRelu, Relu, initialiser, normalisation
from gan_cli.types import Decay, Feature, Initialiser, PositiveInt, TranslationNorm

_DEEPEST = 8
_DROPPED = 3  # number of decoder blocks with dropout


class Generator(nnx.Module):
    """U-Net: convolutions that halve the resolution, then transposed ones, joined by skip connections.

    Maps images ``[batch, h, w, c]`` to images ``[batch, h, w, c']`` in [-1, 1]. Height and width must be multiples
    of 2^depth. All kernels are 4x4 and have stride 2. With the defaults, the network is the U-Net for images of
    256x256 pixels: C64-C128-C256-C512-C512-C512-C512-C512, then CD512-CD512-CD512-C512-C256-C128-C64. As in the
    PyTorch code of Isola et al., the first and the innermost convolution are not normalised, and the convolutions
    have no biases with batch normalisation, except for the output layer.

    Layer 0 of ``maps`` is the input. Layer i is the output of the i-th convolution, normalised, before its
    activation.

    Args:
        width: number of channels after the first convolution. Each convolution doubles the number up to 8 * width.
        depth: number of halvings: 8 for images of 256x256 pixels, 7 for 128x128, 2 for 28x28. If null, the depth is
            as large as the image allows, and at most 8.
        norm: kind of normalisation. ``batch`` normalises each channel over the batch, as published for pix2pix.
            ``instance`` normalises each channel of each image. ``none`` disables normalisation.
        dropout: dropout rate of the three innermost decoder blocks, or of all of them if there are fewer. It is the
            noise of pix2pix (Isola et al. 2017, section 3.2.1). Their PyTorch code skips the innermost block.
        init: distribution of the initial kernels: ``normal`` is N(0, 0.02^2), ``xavier`` is Glorot's normal
            distribution with gain 0.02.
    """

    def __init__(
        self,
        source: Feature,
        target: Feature,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 64,
        depth: PositiveInt | None = _DEEPEST,
        norm: TranslationNorm = "batch",
        dropout: Decay = 0.5,
        init: Initialiser = "normal",
    ):
        translation.check_images("unet", source, target)
        depth = _depth(source, depth)
        kernels, bias = initialiser(init), norm != "batch"
        channels = [source.shape[-1]] + [width * min(2**i, 8) for i in range(depth)]
        self.downs = nnx.List(
            Conv(a, b, rngs, kernel=4, stride=2, pad=1, bias=bias, init=kernels) for a, b in pairwise(channels)
        )
        self.norms = nnx.List(
            normalisation(norm if 0 < i < depth - 1 else "none", b, rngs) for i, b in enumerate(channels[1:])
        )
        # The decoder from the innermost block outwards. The input of every block except the innermost is joined
        # with the encoder's output of the same resolution.
        joined = [channels[depth]] + [2 * b for b in reversed(channels[1:depth])]
        made = [*reversed(channels[1:depth]), target.shape[-1]]
        self.ups = nnx.List(
            Conv(a, b, rngs, kernel=4, stride=2, pad=1, bias=bias or last, transposed=True, init=kernels)
            for a, b, last in zip(joined, made, [*[False] * (depth - 1), True], strict=True)
        )
        self.finishes = nnx.List(
            _Finish(b, rngs, norm=norm, dropout=dropout if i < _DROPPED else 0.0) for i, b in enumerate(made[:-1])
        )
        self.target = target
        self.couples_batch = norm == "batch"
        self.multiple = 2**depth
        self.reach = translation.reach([*self.downs, *self.ups], self.multiple)

    def _encode(self, x: jax.Array, count: int, *, train: bool, key: jax.Array) -> list[jax.Array]:
        """The outputs of the first ``count`` convolutions, normalised, before their activations."""
        outputs: list[jax.Array] = []
        activation = LeakyRelu()
        for down, norm in list(zip(self.downs, self.norms, strict=True))[:count]:
            if outputs:
                x = activation(outputs[-1], train=train, key=key)
            outputs.append(norm(down(x, train=train, key=key), train=train, key=key))
        return outputs

    def maps(self, x: jax.Array, layers: tuple[int, ...], *, train: bool, key: jax.Array) -> list[jax.Array]:
        translation.check_numbers(layers, len(self.downs) + 1, f"U-Net generator of depth {len(self.downs)}")
        outputs = [x, *self._encode(x, max(layers, default=0), train=train, key=key)]
        return [outputs[number] for number in layers]

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        *skips, y = self._encode(x, len(self.downs), train=train, key=key)
        activation = Relu()
        for i, (up, finish, skip) in enumerate(zip(self.ups, self.finishes, reversed(skips), strict=False)):
            y = up(activation(y, train=train, key=key), train=train, key=key)
            y = finish(y, train=train, key=jax.random.fold_in(key, i))
            y = jnp.concatenate([skip, y], -1)
        return self.target.head(self.ups[-1](activation(y, train=train, key=key), train=train, key=key))


class _Finish(Layer):
    """Normalisation, then dropout."""

    def __init__(self, features: int, rngs: nnx.Rngs, *, norm: TranslationNorm, dropout: float):
        self.norm = normalisation(norm, features, rngs)
        self.dropout = Dropout(dropout)

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.dropout(self.norm(x, train=train, key=key), train=train, key=key)


def _depth(source: Feature, depth: int | None) -> int:
    """The number of halvings of an image.

    Raises:
        UserError: the height and the width cannot be halved as often as required.
    """
    height, width = source.shape[:2]
    most = 0
    while most < _DEEPEST and (height | width) % 2 ** (most + 1) == 0:
        most += 1
    if depth is None and most:
        return most
    if depth is None or (height | width) % 2**depth:
        option, unit = ("null", 2) if depth is None else (depth, 2**depth)
        cause = "" if depth is None else f" {depth} times"
        size = translation.fitting_resolution(height, width, unit)
        remedy = f"Set model.generator.depth={most} (null is the largest possible), or" if most else "Set"
        raise UserError(
            f"model.generator.depth={option}: a U-Net cannot halve images of {height} x {width} pixels{cause}: "
            f"both sides must be multiples of {unit}. {remedy} dataset.resolution={size} if the data set has this "
            "option."
        )
    return depth
