"""Networks: the module of each family defines a ``Generator``, a ``Discriminator`` and often an ``Encoder``.

A ``Model`` generates from latents, a ``TranslationModel`` translates images, and a ``TextModel`` writes texts.

The modules ``layers``, ``conv`` and ``translation`` define shared layers. The module ``conditional`` defines
wrappers that add class labels to the networks of any family.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from gan_cli.types import Conditional, Feature, PositiveInt

if TYPE_CHECKING:
    import jax

    from gan_cli.models.layers import Linear


class GeneratorNetwork(Protocol):
    """A generator: maps latents ``[batch, latent_dim]`` to examples ``[batch, *shape]``.

    Training and sampling use only ``__call__`` and ``couples_batch``. ``gan_cli.trained.inspection`` also uses
    ``entry`` and ``early``. A class whose generators read more latents than ``model.latent_dim``, e.g. for each
    frame of a clip, has a static method ``extra_latents(feature, **options)``, which returns their number.

    Attributes:
        couples_batch: whether an example depends on the other latents of its batch during training. A network
            without this attribute counts as coupled.
    """

    couples_batch: bool

    @property
    def entry(self) -> Linear:
        """The layer that receives the latents."""
        ...

    def early(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        """The output of the first non-linear layer, residual block or residual stage."""
        ...

    def __call__(self, z: jax.Array, *, train: bool, key: jax.Array) -> jax.Array: ...


class DiscriminatorNetwork(Protocol):
    """A discriminator: maps examples ``[batch, *shape]`` to logits ``[batch]``.

    A discriminator of several networks returns logits ``[batch, heads]``, and the loss is the sum of their losses.

    Attributes:
        couples_batch: whether the logit of an example depends on the other examples of its batch. A network without
            this attribute counts as coupled.
        out: the output layer, only of a discriminator of one network. With ``model.conditional=projection`` or
            ``model.conditional=acgan``, the program adds a second output layer with the same number of inputs.
    """

    couples_batch: bool
    out: Linear

    def features(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array:
        """The input ``[batch, f]`` of the output layer."""
        ...

    def maps(self, x: jax.Array, *, train: bool, key: jax.Array) -> list[jax.Array]:
        """The feature maps ``[batch, h, w, c]`` of a convolutional network: one array per layer, block or stage.

        Fully connected networks do not implement this method.
        """
        ...

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array: ...


class EncoderNetwork(Protocol):
    """An encoder: maps examples ``[batch, *shape]`` to ``[batch, outputs]``.

    Attributes:
        couples_batch: whether the output of an example depends on the other examples of its batch.
    """

    couples_batch: bool

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array: ...


class TranslatorNetwork(Protocol):
    """A generator of image translation: maps images ``[batch, h, w, c]`` to images ``[batch, h, w, c']``.

    The network is fully convolutional: height and width may differ from the size of the feature for which it was
    built, as long as both are multiples of ``multiple``.

    Attributes:
        couples_batch: whether an output depends on the other images of its batch during training.
        multiple: the number of which the height and the width of the images must be multiples.
        reach: the number of pixels beyond an aligned block of ``multiple`` pixels on which the outputs of the block
            depend, along each axis. Statistics of normalisation, which depend on the whole image, are left out.
    """

    couples_batch: bool
    multiple: int
    reach: int

    def maps(self, x: jax.Array, layers: tuple[int, ...], *, train: bool, key: jax.Array) -> list[jax.Array]:
        """The feature maps ``[batch, h', w', f]`` of the numbered layers of the encoder, for contrastive losses.

        Raises:
            UserError: the network has no layer of one of the numbers.
        """
        ...

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array: ...


class PatchDiscriminatorNetwork(Protocol):
    """A discriminator of patches: maps images ``[batch, h, w, c]`` to a logit for each patch, ``[batch, h', w']``.

    Attributes:
        couples_batch: whether a logit depends on the other images of the batch.
    """

    couples_batch: bool

    def __call__(self, x: jax.Array, *, train: bool, key: jax.Array) -> jax.Array: ...


@dataclass(frozen=True)
class TranslationModel:
    """The networks of image translation: a generator of images from images, and a discriminator of patches.

    A game of two directions builds both networks twice.

    Args:
        generator: class (``_target_``) and options of the generator. The program calls the class with
            ``(source, target, rngs)``, the features of its input and its output, to build a ``TranslatorNetwork``.
        discriminator: class (``_target_``) and options of the discriminator. The program calls the class with
            ``(feature, rngs)`` to build a ``PatchDiscriminatorNetwork``. For a conditional discriminator, the
            channels of ``feature`` are the channels of both domains.
    """

    generator: Callable[..., Any]
    discriminator: Callable[..., Any]


@dataclass(frozen=True)
class TextModel:
    """The networks of texts: a generator, and a discriminator for adversarial training.

    Args:
        generator: class (``_target_``) and options of the generator. The program calls the class with
            ``(feature, rngs)`` to build a module such as ``gan_cli.models.text.Generator``.
        discriminator: class (``_target_``) and options of the discriminator. The program calls the class with
            ``(feature, rngs)`` to build a module that maps texts to logits ``[batch]``, or ``[batch, length]`` for
            a logit per token. ``game=language_model`` does not use it.
    """

    generator: Callable[..., Any]
    discriminator: Callable[..., Any]


@dataclass(frozen=True)
class Model:
    """The networks of a game: a generator, a discriminator and, for autoencoders, an encoder.

    A GAN uses the generator and the discriminator. A variational autoencoder uses the encoder, and the generator as
    its decoder.

    Args:
        latent_dim: number of values in a latent vector, the input of the generator.
        generator: class (``_target_``) and options of the generator. The program calls the class
            with ``(feature, latent_dim, rngs)`` to build a ``GeneratorNetwork``.
        discriminator: class (``_target_``) and options of the discriminator. The program calls the
            class with ``(feature, rngs)`` to build a ``DiscriminatorNetwork``.
        encoder: class (``_target_``) and options of the encoder. The program calls the class with
            ``(feature, outputs, rngs)`` to build an ``EncoderNetwork``. With null, the model has no encoder.
        conditional: how the networks use class labels. With ``none``, the networks ignore labels. With all other
            values, the generator receives the latents concatenated with a one-hot vector of the class, and the
            encoder receives the class as an additional input. With ``concat``, the discriminator receives the class
            as an additional input (Mirza and Osindero 2014). With ``projection``, the discriminator adds the inner
            product of its features and a class embedding to the logit (Miyato and Koyama 2018). With ``acgan``, the
            discriminator also predicts the class (Odena et al. 2017). ``auto`` is ``concat`` for data with labels,
            and ``none`` for data without labels.
    """

    latent_dim: PositiveInt
    generator: Callable[..., Any]
    discriminator: Callable[..., Any]
    conditional: Conditional = "none"
    encoder: Callable[..., Any] | None = None

    def for_examples(self, x: Feature) -> Model:
        """The model for examples ``x``: ``latent_dim`` includes the further latents that its generator reads."""
        make: Any = self.generator
        extra = getattr(getattr(make, "func", make), "extra_latents", None)
        if extra is None:
            return self
        return replace(self, latent_dim=self.latent_dim + extra(x, **make.keywords))
