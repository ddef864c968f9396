"""Class-conditional networks: wrappers that add class labels to the networks of any family.

The option ``model.conditional`` selects the wrapper of the discriminator: ``concat``, ``projection`` or ``acgan``.
The wrappers of the generator and the encoder are the same in all three cases. With ``none``, the networks have no
wrapper.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.errors import UserError
from gan_cli.models import DiscriminatorNetwork, EncoderNetwork, GeneratorNetwork, Model
from gan_cli.models.layers import Linear, dense
from gan_cli.types import Feature

_INIT = nnx.initializers.glorot_uniform()


class Generator(nnx.Module):
    """Conditional generator: receives the latents concatenated with a one-hot vector of the class.

    Maps latents ``[batch, latent_dim]`` and labels ``[batch]`` to examples ``[batch, *shape]`` (Mirza and
    Osindero 2014, section 3.2). ``entry`` and ``early`` are documented in ``GeneratorNetwork``.
    """

    def __init__(self, model: Model, feature: Feature, classes: int, rngs: nnx.Rngs):
        self.classes = classes
        self.network: GeneratorNetwork = model.generator(feature, model.latent_dim + self.classes, rngs)
        self.couples_batch = getattr(self.network, "couples_batch", True)

    @property
    def entry(self) -> Linear:
        return self.network.entry

    def early(self, z: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network.early(self._beside(z, labels), train=train, key=key)

    def __call__(self, z: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network(self._beside(z, labels), train=train, key=key)

    def _beside(self, z: jax.Array, labels: jax.Array) -> jax.Array:
        return jnp.concatenate([z, jax.nn.one_hot(labels, self.classes, dtype=z.dtype)], axis=1)


class _Labelled(nnx.Module):
    """Appends the class to examples ``[batch, *shape]``.

    For examples with spatial axes, the additional input is one channel, whose values are learnt separately for each
    class. For vectors, the additional input is a one-hot vector of the class.

    Attributes:
        widened: the feature with the additional input.
    """

    def __init__(self, feature: Feature, classes: int, rngs: nnx.Rngs):
        self.classes = classes
        *sides, channels = feature.shape
        shape = (classes, *sides, 1)
        self.planes = nnx.Param(jax.random.normal(rngs.params(), shape)) if sides else None
        self.widened = feature.widened(channels + (1 if sides else classes))

    def beside(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """Examples with the additional input."""
        if self.planes is None:
            classes = jax.nn.one_hot(labels, self.classes, dtype=x.dtype)
        else:
            classes = self.planes[...][labels].astype(x.dtype)
        return jnp.concatenate([x, classes], axis=-1)


class Concat(_Labelled):
    """Discriminator with the class as an additional input (Mirza and Osindero 2014).

    Maps examples ``[batch, *shape]`` and labels ``[batch]`` to logits ``[batch]``. For examples with
    spatial axes, the additional input is one channel, whose values are learnt separately for each class. For
    vectors, the additional input is a one-hot vector of the class.
    """

    def __init__(self, model: Model, feature: Feature, classes: int, rngs: nnx.Rngs):
        super().__init__(feature, classes, rngs)
        self.network: DiscriminatorNetwork = model.discriminator(self.widened, rngs)
        self.couples_batch = getattr(self.network, "couples_batch", True)

    def maps(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        return self.network.maps(self.beside(x, labels), train=train, key=key)

    def features(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network.features(self.beside(x, labels), train=train, key=key)

    def __call__(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network(self.beside(x, labels), train=train, key=key)


class Encoder(_Labelled):
    """Conditional encoder: receives the class as an additional input, like the discriminator ``Concat``.

    Maps examples ``[batch, *shape]`` and labels ``[batch]`` to ``[batch, outputs]`` (Sohn et al. 2015).
    """

    def __init__(self, model: Model, feature: Feature, outputs: int, classes: int, rngs: nnx.Rngs):
        super().__init__(feature, classes, rngs)
        assert model.encoder is not None
        self.network: EncoderNetwork = model.encoder(self.widened, outputs, rngs)
        self.couples_batch = getattr(self.network, "couples_batch", True)

    def __call__(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network(self.beside(x, labels), train=train, key=key)


class _Headed(nnx.Module):
    """A discriminator with a second output layer, called the head, which computes one value per class."""

    def __init__(self, model: Model, feature: Feature, classes: int, rngs: nnx.Rngs):
        self.network: DiscriminatorNetwork = model.discriminator(feature, rngs)
        if not hasattr(self.network, "out"):
            raise UserError(
                f"model.conditional={model.conditional}: needs a discriminator with one output layer. "
                "Set model.conditional=concat."
            )
        features, _ = self.network.out.kernel.shape
        spectral = self.network.out.u is not None
        self.head = dense(features, classes, rngs, init=_INIT, spectral=spectral, bias=False)
        self.couples_batch = getattr(self.network, "couples_batch", True)

    def maps(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        return self.network.maps(x, train=train, key=key)

    def features(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        return self.network.features(x, train=train, key=key)

    def both(self, x: jax.Array, *, train: bool, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        """A pair: the logits ``[batch]`` and the output ``[batch, classes]`` of the head."""
        features = self.network.features(x, train=train, key=key)
        return self.network.out(features, train=train)[:, 0], self.head(features, train=train)


class Projection(_Headed):
    """Projection discriminator (Miyato and Koyama 2018, eq. 8).

    Maps examples ``[batch, *shape]`` and labels ``[batch]`` to logits ``[batch]``. The logit is the sum of the
    unconditional logit and the inner product of the features with the embedding of the class.
    """

    def __call__(self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        logits, products = self.both(x, train=train, key=key)
        return logits + jnp.take_along_axis(products, labels[:, None], axis=1)[:, 0]


class Classifying(_Headed):
    """Discriminator with an auxiliary classifier (AC-GAN, Odena et al. 2017).

    Maps examples ``[batch, *shape]`` to a pair: logits ``[batch]`` and class logits ``[batch, classes]``. The
    loss of each player includes the cross-entropy of the class logits. ``__call__`` ignores the argument
    ``labels``, which exists because the program calls all conditional discriminators with the same arguments.
    """

    def __call__(
        self, x: jax.Array, labels: jax.Array, *, train: bool, key: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return self.both(x, train=train, key=key)


DISCRIMINATORS = {"concat": Concat, "projection": Projection, "acgan": Classifying, "auto": Concat}
