"""The generator of CTGAN, for rows of tables. Its discriminator is that of ``mlp``."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.models.layers import Block, Linear, dense
from gan_cli.types import Feature, PositiveInt

_INIT = nnx.initializers.lecun_normal()


class Generator(nnx.Module):
    """Fully connected generator whose layers receive the outputs of all earlier layers.

    Xu et al. 2019, section 4.4. Maps latents ``[batch, latent_dim]`` to examples ``[batch, *shape]``. A hidden
    layer is a linear map, batch normalisation and ReLU. Its outputs are concatenated with its inputs.

    Args:
        width: number of units in each hidden layer.
        depth: number of hidden layers.
    """

    couples_batch = True

    def __init__(
        self,
        feature: Feature,
        latent_dim: int,
        rngs: nnx.Rngs,
        *,
        width: PositiveInt = 256,
        depth: PositiveInt = 2,
    ):
        self.blocks = nnx.List(
            Block(
                dense, latent_dim + i * width, width, rngs, norm="batch", activation="relu", dropout=0.0, init=_INIT
            )
            for i in range(depth)
        )
        self.out = dense(latent_dim + depth * width, feature.size, rngs, init=_INIT)
        self.feature = feature

    @property
    def entry(self) -> Linear:
        return self.blocks[0].linear

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.blocks[0](z, train=train, key=key)

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        x = z
        for block in self.blocks:
            x = jnp.concatenate([block(x, train=train, key=key), x], axis=1)
        return self.feature.head(self.out(x, train=train).reshape(z.shape[0], *self.feature.shape))
