"""The networks of the Dirac-GAN, with one parameter each (Mescheder et al. 2018, definition 2.1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.errors import UserError
from gan_cli.types import Feature


class Generator(nnx.Module):
    """Dirac-GAN generator: returns its only parameter for every latent vector.

    Maps latents ``[batch, latent_dim]`` to examples ``[batch, 1]``.

    Args:
        start: initial value of the parameter.

    Raises:
        UserError: the examples of the data set are not single numbers.
    """

    def __init__(self, feature: Feature, latent_dim: int, rngs: nnx.Rngs, *, start: float = 1.0):
        if feature.shape != (1,):
            raise UserError(
                "model=dirac: generates single numbers, but the examples of the data set have the shape "
                f"{feature.shape}. Use dataset=point, or another model, e.g. model=mlp."
            )
        self.value = nnx.Param(jnp.float32(start))
        self.couples_batch = False

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return jnp.broadcast_to(self.value[...].astype(z.dtype), (len(z), 1))


class Discriminator(nnx.Module):
    """Dirac-GAN discriminator: the mean of the values of an example, multiplied by the only parameter.

    Maps examples ``[batch, features]`` to logits ``[batch]``.

    Args:
        start: initial value of the parameter.
    """

    def __init__(self, feature: Feature, rngs: nnx.Rngs, *, start: float = 1.0):
        self.value = nnx.Param(jnp.float32(start))
        self.couples_batch = False

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return x.mean(1) * self.value[...].astype(x.dtype)
