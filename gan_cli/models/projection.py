"""Projection of patches for contrastive losses: a small network for each layer of an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.models.layers import dense
from gan_cli.models.translation import initialiser
from gan_cli.types import Initialiser


class PatchProjection(nnx.Module):
    """For each layer, a perceptron with one hidden layer that maps features of patches to unit vectors.

    Park et al. 2020, section 3.2: the networks H_l.

    Args:
        channels: number of features of each layer.
        width: number of hidden units and of outputs.
        init: distribution of the initial kernels: ``normal`` is N(0, 0.02^2), ``xavier`` is Glorot's normal
            distribution with gain 0.02.
    """

    couples_batch = False

    def __init__(self, channels: Sequence[int], rngs: nnx.Rngs, *, width: int = 256, init: Initialiser = "xavier"):
        kernels = initialiser(init)
        self.hidden = nnx.List([dense(inputs, width, rngs, init=kernels) for inputs in channels])
        self.out = nnx.List([dense(width, width, rngs, init=kernels) for _ in channels])

    def __call__(self, patches: Sequence[jax.Array], *, train: bool, key: jax.Array) -> list[jax.Array]:
        """Unit vectors ``[batch, patches, width]`` for the features ``[batch, patches, f]`` of each layer."""
        projected = []
        for x, hidden, out in zip(patches, self.hidden, self.out, strict=True):
            y = out(jax.nn.relu(hidden(x, train=train)), train=train).astype(jnp.float32)
            # Differentiable at zero, where all patches of a constant image are at first.
            projected.append(y * jax.lax.rsqrt(jnp.square(y).sum(-1, keepdims=True) + 1e-14))
        return projected
