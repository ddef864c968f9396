"""Networks as pure functions, with and without class labels, and the tasks of autoencoders."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx

from gan_cli.data.features import Label, Vector, classes_of
from gan_cli.data.text.feature import Tokens
from gan_cli.errors import UserError
from gan_cli.models import Model, TextModel, TranslationModel, conditional
from gan_cli.penalties import Penalty
from gan_cli.types import Batch, ByPlayer, Feature, Game, Prior, Spec, Task, Tree

_Game = TypeVar("_Game", bound="PenalisedGame")


class Network:
    """A Flax module as a pure function of its parameters, its state and its inputs.

    Args:
        build: ``(key) -> module``, builds the module with initial parameters.
        precision: data type in which the module computes. Its outputs are float32 in any case.

    Attributes:
        couples_batch: whether the output of an example depends on the other examples of its batch. A module that
            does not declare it is assumed to couple them.
        multiple: the attribute of a ``TranslatorNetwork``. None if the module does not declare it.
        reach: the attribute of a ``TranslatorNetwork``. None if the module does not declare it.
    """

    def __init__(self, build: Callable[[jax.Array], Any], precision: str):
        self._build, self._dtype = build, jnp.dtype(precision)
        module = nnx.eval_shape(lambda: build(jax.random.key(0)))
        self._graph = nnx.split(module, nnx.Param, ...)[0]
        self.couples_batch = bool(getattr(module, "couples_batch", True))
        self.multiple: int | None = getattr(module, "multiple", None)
        self.reach: int | None = getattr(module, "reach", None)

    def init(self, key: jax.Array) -> tuple[Tree, Tree]:
        """A pair: the initial parameters and the initial state, e.g. running statistics."""
        _, *states = nnx.split(self._build(key), nnx.Param, ...)
        params, state = states
        return params, state

    def module(self, params: Tree, state: Tree) -> Any:
        """The Flax module with the given parameters and state. The return type depends on the model."""
        return nnx.merge(self._graph, params, state, copy=True)

    def __call__(
        self,
        params: Tree,
        state: Tree,
        x: Tree,
        *more: Any,
        train: bool,
        key: jax.Array,
        method: str = "__call__",
        **options: Any,
    ) -> tuple[Any, Tree]:
        """A pair: the output of the module or of one of its methods, a pytree of arrays, and the new state.

        Args:
            params: parameters of the module.
            state: state of the module.
            x: inputs ``[n, ...]``, an array or a pytree of arrays.
            more: further arguments of the method, e.g. labels ``[n]``. None is left out.
            train: whether normalisation uses the statistics of the batch and dropout is on.
            key: random key, e.g. of dropout.
            method: name of the method.
            options: further options of the method.
        """
        # A copy, because the module's variables must belong to the innermost JAX trace.
        module = self.module(params, state)
        x = _cast(x, self._dtype)
        y = getattr(module, method)(x, *(one for one in more if one is not None), train=train, key=key, **options)
        return _cast(y, jnp.float32), nnx.state(module, nnx.Not(nnx.Param))


def _cast(tree: Tree, dtype: Any) -> Tree:
    """The arrays of real numbers in ``dtype``. Integers, such as tokens, are unchanged."""
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


class PenalisedGame(Game):
    """A game whose discriminator has penalties.

    Attributes:
        penalties: mapping from the name of each penalty to the penalty.
    """

    penalties: dict[str, Penalty]

    def with_eager_penalties(self: _Game) -> _Game:
        """A copy of the game that applies every penalty at every step."""
        game = copy.copy(self)
        game.penalties = {name: penalty._replace(interval=1) for name, penalty in self.penalties.items()}
        return game


def check_generates(game: str, model: Model, spec: Spec) -> None:
    """Raise a UserError if a game that generates examples ``x`` from latents has another model or other data.

    Args:
        game: name of the game in the error message.
        model: the model of the run.
        spec: the features of an example.
    """
    if isinstance(spec.get("x"), Tokens):
        raise UserError(
            f"dataset: game={game} makes real numbers, and the examples of this data set are texts. Set "
            "model=text with game=language_model or game=text_gan."
        )
    if isinstance(model, TextModel):
        raise UserError(
            f"model: game={game} makes real numbers, and these networks write texts. Choose another model, e.g. "
            "model=mlp, or a game of texts with a data set of texts, e.g. game=language_model dataset=shakespeare."
        )
    if isinstance(model, TranslationModel):
        raise UserError(
            f"model: game={game} makes examples from latents, and this model translates images. Choose another "
            "model, e.g. model=mlp, or a game of translation, e.g. game=pix2pix."
        )
    if "x" not in spec:
        raise UserError(
            f"dataset: game={game} learns examples of one feature, and this data set has the features "
            f"{', '.join(spec)}. Choose another data set, e.g. dataset=mnist5k, or a game of translation, e.g. "
            "game=pix2pix for pairs and game=cyclegan for two domains."
        )


def label_classes(model: Model, spec: Spec) -> int | None:
    """The number of classes if the networks of ``model`` receive labels, else None.

    Raises:
        UserError: the networks receive labels, and the data set has none.
    """
    if model.conditional == "none":
        return None
    classes = classes_of(spec)
    if classes is None and model.conditional == "auto":
        return None
    if classes is None:
        raise UserError(
            f"model.conditional={model.conditional}: needs labels, but the data set has none. Set "
            "model.conditional=none, or choose a data set with labels, e.g. dataset=mnist5k."
        )
    return classes


def build_encoder(game: str, model: Model, x: Feature, outputs: int, classes: int | None) -> Callable[..., Any]:
    """A function ``(key) -> module`` that builds the encoder of ``model``, with class labels if they are used.

    Args:
        game: name of the game in the error message.

    Raises:
        UserError: the model has no encoder.
    """
    encoder = model.encoder
    if encoder is None:
        raise UserError(
            f"model.encoder=null: game={game} needs an encoder, and this model has none. Use model=mlp, "
            "model=dcgan or model=resnet."
        )
    if classes is None:
        return lambda key: encoder(x, outputs, nnx.Rngs(key))
    return lambda key: conditional.Encoder(model, x, outputs, classes, nnx.Rngs(key))


def build_discriminator(model: Model, x: Feature, classes: int | None) -> Callable[..., Any]:
    """A function ``(key) -> module`` that builds the discriminator of ``model``, with labels if they are used."""
    if classes is None:
        return lambda key: model.discriminator(x, nnx.Rngs(key))
    wrapper = conditional.DISCRIMINATORS[model.conditional]
    return lambda key: wrapper(model, x, classes, nnx.Rngs(key))


def build_generator(model: Model, x: Feature, classes: int | None) -> Callable[..., Any]:
    """A function ``(key) -> module`` that builds the generator of ``model``, with class labels if they are used."""
    if classes is None:
        return lambda key: model.generator(x, model.latent_dim, nnx.Rngs(key))
    return lambda key: conditional.Generator(model, x, classes, nnx.Rngs(key))


def normal_prior(latent_dim: int) -> Prior:
    """The prior N(0, I) of the input ``latents`` of a task, or a truncated normal distribution."""

    def prior(key: jax.Array, truncation: float | None) -> Batch:
        if truncation is None:
            return {"latents": jax.random.normal(key, (latent_dim,))}
        return {"latents": jax.random.truncated_normal(key, -truncation, truncation, (latent_dim,))}

    return prior


def prior_of(x: Feature, latent_dim: int, classes: int | None) -> Prior:
    """The prior of a task that makes examples ``x``: latents from N(0, I) and, for some features, the class.

    The class is drawn from ``x.class_shares``. If ``x`` has none, or ``classes`` is None, only latents are drawn.
    """
    latents, shares = normal_prior(latent_dim), x.class_shares
    if classes is None or shares is None:
        return latents

    def prior(key: jax.Array, truncation: float | None) -> Batch:
        label = jax.random.categorical(jax.random.fold_in(key, 1), jnp.log(jnp.asarray(shares)))
        return {**latents(key, truncation), "label": label.astype(jnp.int32)}

    return prior


_Apply = Callable[[ByPlayer, ByPlayer, jax.Array, "jax.Array | None"], jax.Array]


def autoencoder_tasks(
    x: Feature, latent_dim: int, classes: int | None, encode: _Apply, decode: _Apply
) -> dict[str, Task]:
    """The tasks ``generate``, ``reconstruct`` and ``encode`` of a game with an encoder and a decoder.

    Args:
        x: the feature of an example.
        latent_dim: number of values in a latent vector, whose prior is N(0, I).
        classes: number of classes of the labels that the networks receive, or None.
        encode: ``(params, net_state, x, label) -> codes``, the means of the posterior ``[n, latent_dim]``.
        decode: ``(params, net_state, latents, label) -> samples``, ``[n, *shape]``.
    """
    labels: dict[str, Feature] = {} if classes is None else {"label": Label(classes)}
    codes = Vector(latent_dim)

    def label(inputs: Batch) -> jax.Array | None:
        return inputs["label"] if labels else None

    def generate(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
        return {"samples": decode(params, net_state, inputs["latents"], label(inputs))}

    def encoded(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
        return {"codes": encode(params, net_state, inputs["x"], label(inputs))}

    def reconstruct(params: ByPlayer, net_state: ByPlayer, inputs: Batch, keys: jax.Array) -> Batch:
        latents = encode(params, net_state, inputs["x"], label(inputs))
        return {"samples": decode(params, net_state, latents, label(inputs))}

    return {
        "generate": Task(
            {"latents": codes, **labels}, {"samples": x}, generate, prior_of(x, latent_dim, classes), imitates="x"
        ),
        "reconstruct": Task({"x": x, **labels}, {"samples": x}, reconstruct, pictured=("x", "samples")),
        "encode": Task({"x": x, **labels}, {"codes": codes}, encoded),
    }
