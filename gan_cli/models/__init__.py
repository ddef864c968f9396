"""Networks: one file a family, each with a Generator and a Discriminator built from the data's Spec."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gan_cli.types import Conditional, PositiveInt


@dataclass(frozen=True)
class Model:
    """The two networks of a GAN, not yet built.

    Attributes:
        latent_dim: size of the generator's input.
        generator: ``(spec, latent_dim, rngs) -> module``; the module maps ``[batch, latent_dim]`` to
            ``[batch, *spec.shape]``. For looking inside, its ``entry`` is the layer that the latents go into, and
            ``early(z)`` what its first non-linear layer makes of them.
        discriminator: ``(spec, rngs) -> module``; the module maps ``[batch, *spec.shape]`` to logits ``[batch]``
            and says in ``couples_batch`` whether an example's logit depends on the rest of its batch. What its
            last layer ``out`` sees is ``features(x)`` ``[batch, f]``. A convolutional one has ``maps(x)``, what
            each of its stages makes, ``[batch, h, w, c]``.
        conditional: how the class of an example is minded, see ``gan_cli.models.conditional``.
    """

    latent_dim: PositiveInt
    generator: Callable[..., Any]
    discriminator: Callable[..., Any]
    conditional: Conditional = "none"
