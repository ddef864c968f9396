"""Networks: one file a family, each with a Generator and a Discriminator built from the data's Spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flax import nnx

from gan_cli.types import PositiveInt


@dataclass(frozen=True)
class Model:
    """The two networks of a GAN, not yet built.

    Attributes:
        latent_dim: size of the generator's input.
        generator: ``(spec, latent_dim, rngs) -> module``; the module maps ``[batch, latent_dim]`` to
            ``[batch, *spec.shape]``.
        discriminator: ``(spec, rngs) -> module``; the module maps ``[batch, *spec.shape]`` to logits ``[batch]``
            and says in ``couples_batch`` whether an example's logit depends on the rest of its batch.
    """

    latent_dim: PositiveInt
    generator: Callable[..., nnx.Module]
    discriminator: Callable[..., nnx.Module]
