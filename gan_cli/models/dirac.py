"""The two networks of the Dirac-GAN, one number each (Mescheder et al. 2018, definition 2.1)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.errors import UserError
from gan_cli.types import Spec


class Generator(nnx.Module):
    """``[batch, latent_dim]`` -> ``[batch, 1]``: the same point for every latent."""

    def __init__(self, spec: Spec, latent_dim: int, rngs: nnx.Rngs, *, start: float = 1.0):
        if spec.shape != (1,):
            raise UserError("model=dirac: makes single numbers: dataset=point.")
        self.value = nnx.Param(jnp.float32(start))

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return jnp.broadcast_to(self.value[...].astype(z.dtype), (len(z), 1))


class Discriminator(nnx.Module):
    """``[batch, features]`` -> logits ``[batch]``: a slope times the features' mean."""

    def __init__(self, spec: Spec, rngs: nnx.Rngs, *, start: float = 1.0):
        self.value = nnx.Param(jnp.float32(start))
        self.couples_batch = False

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return x.mean(1) * self.value[...].astype(x.dtype)
