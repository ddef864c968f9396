"""Central types: annotations of options, the specification of the data, games and strategies.

The keyword-only parameters of a configurable function are the user's options. ``gan_cli.config`` checks a composed
configuration against the annotations of these parameters, so the type and range of an option are defined in one
place: the signature of the function that uses the option. This module does not import JAX at run time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar

if TYPE_CHECKING:
    import jax
    import numpy as np

    from gan_cli.engine.state import TrainState
    from gan_cli.optim import Optimiser


@dataclass(frozen=True)
class Range:
    """Bounds of a number: ``ge`` and ``le`` are inclusive, ``gt`` and ``lt`` are exclusive."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def problem(self, value: float) -> str | None:
        """The requirement that ``value`` violates, as text for an error message. None if ``value`` is valid."""
        if self.ge is not None and not value >= self.ge:
            return f"must be at least {self.ge:g}"
        if self.gt is not None and not value > self.gt:
            return f"must be greater than {self.gt:g}"
        if self.le is not None and not value <= self.le:
            return f"must be at most {self.le:g}"
        if self.lt is not None and not value < self.lt:
            return f"must be less than {self.lt:g}"
        return None


PositiveInt = Annotated[int, Range(ge=1)]
NonNegativeInt = Annotated[int, Range(ge=0)]
Seed = Annotated[int, Range(ge=0, lt=2**32)]
PackSize = Annotated[int, Range(ge=2)]
PositiveFloat = Annotated[float, Range(gt=0)]
NonNegativeFloat = Annotated[float, Range(ge=0)]
UnitFloat = Annotated[float, Range(ge=0, le=1)]
PositiveShare = Annotated[float, Range(gt=0, le=1)]
Share = Annotated[float, Range(ge=0, lt=1)]  # share of the examples that is held out
OpenUnitFloat = Annotated[float, Range(gt=0, lt=1)]
Smoothing = Annotated[float, Range(ge=0, lt=0.5)]
Decay = Annotated[float, Range(ge=0, lt=1)]  # decay rate of a moving average, or dropout rate
Momentum = Annotated[float, Range(gt=-1, lt=1)]
Norm = Literal["none", "batch", "layer", "spectral"]
TranslationNorm = Literal["none", "batch", "instance"]
Initialiser = Literal["normal", "xavier"]  # the distribution of the initial weights of a network of translation
Conditional = Literal["none", "concat", "projection", "acgan", "auto"]
MinibatchKind = Literal["none", "std", "discrimination"]
Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "tanh"]
Divergence = Literal["kl", "reverse_kl", "pearson", "squared_hellinger", "jensen_shannon"]
Digits = Literal["mnist5k", "mnist"]
OnError = Literal["skip", "refuse"]
Duplicates = Literal["warn", "drop", "keep"]
Layout = Literal["classes", "flat", "splits", "earlier"]
Resolution = PositiveInt | tuple[PositiveInt, PositiveInt]  # the side of a square, or height and width
Channels = PositiveInt  # 1 grey, 3 RGB, 4 RGB with transparency (RGBA); other numbers have no colours
ClipChannels = Literal[1, 3]  # grey or RGB
Bits = Literal[8, 16]  # bits per value of a stored image
FileKind = Literal["pictures", "dicom", "nifti", "arrays"]  # the kinds of image files in a folder
Axis = Literal[0, 1, 2]  # of a volume: left to right, posterior to anterior, inferior to superior
Window = tuple[float, PositiveFloat]  # centre and width of the range of values from black to white
Slices = tuple[NonNegativeInt, PositiveInt]  # the first slice, and the slice after the last
HeldOutSplit = Literal["test", "val"]  # the split of MedMNIST whose images are held out
TranslationDirection = Literal["a_to_b", "b_to_a"]  # the translation that a game with one generator learns
Motion = Literal["codes", "transform"]  # how the motion codes of a generator of clips act
Normalisation = Literal["quantile", "modes", "standard", "range"]  # of the numbers in a table
Simulated = Literal["grid", "ring", "turned", "cells"]  # the mixtures of dataset=simulated
Schedule = Literal["constant", "linear", "constant_linear", "cosine"]
Condition = Literal["none", "label", "columns"]  # columns to which a condition of CTGAN may refer
Precision = Literal["float32", "bfloat16"]
Likelihood = Literal["bernoulli", "gaussian", "table"]
Binarisation = Literal["threshold", "fixed", "dynamic"]
Variance = PositiveFloat | Literal["learnt"]
SeriesValues = Literal["levels", "returns"]
SeriesSplit = Literal["time", "timegan"]
SeriesScaling = Literal["standard", "minmax"]
SineLaw = Literal["code", "paper"]
TextUnit = Literal["character", "word"]
TextExamples = Literal["windows", "lines"]
TextGradient = Literal["score", "gumbel"]  # estimators of the gradient of a generator of discrete tokens


ArrayT = TypeVar("ArrayT", "np.ndarray", "jax.Array")


class Feature:
    """One named part of an example, e.g. an image or a label: how it is stored, and how networks see it.

    ``gan_cli.data.features`` defines the kinds of features as frozen dataclasses. This base class declares their
    attributes and methods. Its defaults describe a feature that is stored as networks see it.

    Attributes:
        shape: shape of one example as networks see it, without the batch axis.
        stored_shape: shape of one example in files and in memory.
        dtype: NumPy dtype of the stored examples. Networks see float32, or int32 for labels and tokens.
        bounds: smallest and largest value that networks see, or None if the values are unbounded.
        noun: the plural of the kind in messages, e.g. "images".
        values_name: the plural of one value in messages, e.g. "pixels".
        extractor: the choice of the group ``features`` with which metrics compare such examples by default.
        noise: number of standard normal values that ``head`` reads for each example, e.g. to draw categories.
        public: whether the feature holds no statistics of the examples, e.g. no means, ranges or frequencies.
        class_shares: the share of the training examples in each class, for a feature that contains the class of an
            example. Samples without a requested class are drawn from it. None for all other features.
    """

    shape: tuple[int, ...]
    dtype: Any = "float32"
    bounds: tuple[float, float] | None = None
    noun: str = "examples"
    values_name: str = "values"
    extractor: str = "pixels"
    noise: int = 0
    public: bool = False
    class_shares: tuple[float, ...] | None = None

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of one example in files and in memory."""
        return self.shape

    @property
    def size(self) -> int:
        """Number of values in one example, as networks see it."""
        return math.prod(self.shape)

    def encode(self, stored: ArrayT) -> ArrayT:
        """Stored examples ``[..., *stored_shape]`` as networks see them, ``[..., *shape]``."""
        return stored

    def decode(self, x: jax.Array) -> jax.Array:
        """The inverse of ``encode``, with rounding: ``[..., *shape]`` to ``[..., *stored_shape]``."""
        return x

    def head(self, x: jax.Array, noise: jax.Array | None = None) -> jax.Array:
        """The output activation of a network that makes this feature, applied to ``[batch, *shape]``.

        Args:
            x: raw output of the network.
            noise: standard normal values ``[batch, noise]``, for a feature with ``noise`` > 0.
        """
        return x

    def with_label(self, x: jax.Array, labels: jax.Array) -> jax.Array:
        """Examples ``x`` with the classes ``labels``, for a feature that contains the class of an example."""
        return x

    def category_codes(self, stored: np.ndarray) -> np.ndarray | None:
        """The codes int32 ``[n, columns]`` of the columns of categories of stored rows of a table, else None."""
        return None

    def values(self, x: np.ndarray) -> np.ndarray | dict[str, np.ndarray]:
        """Samples as ``Run.sample`` returns them: an array ``[n, *shape]``, or a mapping from columns to arrays."""
        return x

    def widened(self, channels: int) -> Feature:
        """The same kind of feature with another last axis of ``shape``, as a network's input."""
        raise NotImplementedError


Spec: TypeAlias = Mapping[str, Feature]  # the features of an example by name, e.g. "x" and "label"
# The data of one update, a mapping from names to arrays ``[batch, ...]`` as networks see them: the features of the
# Spec, ``mask`` if the sampler pads, and the random inputs that ``Game.noise`` adds.
Batch: TypeAlias = "dict[str, jax.Array]"
Tree = Any  # a pytree of arrays; Any, because a pytree has no static type
ByPlayer = dict[str, Tree]  # mapping from the name of each player to a pytree
Metrics: TypeAlias = "dict[str, jax.Array]"  # mapping from names of metrics, e.g. "<player>/loss", to scalars


class Term(NamedTuple):
    """One term of a loss: ``weight`` times the mean of ``values``.

    Attributes:
        values: ``[batch]``, one value for each example. A scalar is a shared term, which reads no example.
        weight: factor of the term.
        reads_data: whether the values depend on examples of the data. False e.g. for a term of generated examples.
            Private training clips and noises only the gradients of terms that do.
    """

    values: jax.Array
    weight: float | jax.Array = 1.0
    reads_data: bool = True


class LossTerms(NamedTuple):
    """A player's loss on a batch, the sum of its terms, before any mean over the batch is taken.

    Attributes:
        terms: mapping from the name of each term to the term, in the order in which they are added.
        net_state: network state by player after the evaluation of the loss.
        metrics: mapping from names of metrics to scalars.
    """

    terms: Mapping[str, Term]
    net_state: ByPlayer
    metrics: Metrics


# A prior ``(key, truncation) -> inputs of one row``: draws inputs of a task. ``truncation`` limits the absolute
# value of Gaussian inputs, or is None.
Prior: TypeAlias = "Callable[[jax.Array, float | None], Batch]"


class Task(NamedTuple):
    """An ability of a trained game, e.g. ``generate`` or ``reconstruct``, with named inputs and outputs.

    Attributes:
        inputs: features of the inputs by name.
        outputs: features of the outputs by name. Files contain arrays of these names.
        apply: ``(params, net_state, inputs, keys) -> outputs``. ``params`` and ``net_state`` are by player,
            ``inputs`` and ``outputs`` are mappings by name to arrays ``[n, *shape]`` as networks see them, and
            ``keys`` ``[n]`` has a random key for each row. Row i of an output depends only on row i of the inputs.
        prior: draws the inputs that users do not provide, or None. It is the default: the program may draw the
            same inputs from another prior, e.g. one that is fitted to codes of the data. An input of kind ``Label``
            that the prior does not draw has the class i modulo the number of classes in row i. Users provide all
            other inputs.
        pictured: the name of an input, followed by the names of outputs of the same kind and size. Training and
            ``gan-sample`` draw each input above its outputs. None if the task has no such outputs.
        distribution: the distribution of the inputs that ``prior`` draws, as text for people.
        imitates: name of the feature of the data set that the main output, the first one, imitates. Metrics compare
            the two. None if the output imitates no feature, e.g. for codes and reconstructions.
        multiple: if the task accepts images of any size, the number of which both sides must be multiples. None if
            all inputs must have the shapes of the features.
        reach: if the task accepts images of any size, the number of pixels beyond an aligned block of ``multiple``
            pixels on which the outputs of the block depend, apart from normalisation statistics. None if unknown.
    """

    inputs: Spec
    outputs: Spec
    apply: Callable[[ByPlayer, ByPlayer, Batch, jax.Array], Batch]
    prior: Prior | None = None
    pictured: tuple[str, ...] | None = None
    distribution: str = "N(0, I)"
    imitates: str | None = None
    multiple: int | None = None
    reach: int | None = None


class Game:
    """A game: several players, each of which minimises its loss.

    Every game implements ``init`` and ``loss``. The attributes below declare which of the other methods the game
    implements. The engine, the strategies and the views read these attributes and do not depend on the game's
    class.

    Attributes:
        players: names of the players. A strategy that updates the players in turn follows the order of this tuple.
        averaged: names of the players for which an exponential moving average of the parameters is maintained.
        spec: the features of an example by name. None for a game without data.
        tasks: mapping from names to the tasks of the trained game. ``generate`` draws samples.
        coupled: names of the players for which the terms of one example, or the new network state, depend on other
            examples of the batch, e.g. through batch normalisation.
        pack: number of examples that form one input of the discriminator. ``train.batch_size`` must be a multiple
            of ``pack``.
        shares_fakes: whether the game implements ``fake``, a generated batch that the losses of all players share.
        has_equilibrium: whether the game implements ``distance``, the distance to a known equilibrium.
        sampler: a pair: the choice of the group ``sampler`` whose batches the losses assume, and the option with
            which they assume another choice. None if the losses assume no particular sampler.
        paired: whether the losses compare the features of an example, e.g. an image and its partner, so that all
            features must belong to one domain.
        reads_data: names of the players whose losses read the data in private training. None for all players.
    """

    players: tuple[str, ...]
    averaged: tuple[str, ...] = ()
    spec: Spec | None = None
    tasks: Mapping[str, Task] = MappingProxyType({})
    coupled: frozenset[str] = frozenset()
    pack: int = 1
    shares_fakes: bool = False
    has_equilibrium: bool = False
    paired: bool = False
    sampler: tuple[str, str] | None = None
    reads_data: frozenset[str] | None = None

    def init(self, key: jax.Array) -> tuple[ByPlayer, ByPlayer]:
        """A pair: the initial parameters and the initial network state, each as a mapping from player names.

        The network state contains the running statistics of batch normalisation and the vectors of spectral
        normalisation.
        """
        raise NotImplementedError

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with the random inputs of the losses, e.g. latents, one row for each example.

        Strategies draw them once for the whole batch. A gradient estimator may then divide the batch into examples.
        """
        return batch

    def loss(
        self,
        player: str,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        fake: Tree = None,
    ) -> LossTerms:
        """The terms of a player's loss on a batch that ``noise`` has returned.

        ``fake`` is the batch that ``self.fake`` generates from the same arguments, or None. Games without
        ``shares_fakes`` ignore it.
        """
        raise NotImplementedError

    def fake(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[Tree, ByPlayer]:
        """A pair: a generated batch, a pytree of arrays, and the network state after the generator's forward pass.

        Only games with ``shares_fakes`` implement this method.
        """
        raise NotImplementedError

    def augmented(self, x: jax.Array, net_state: ByPlayer, key: jax.Array, step: int | jax.Array) -> jax.Array:
        """Examples ``x`` ``[n, *shape]`` after the augmentations of the discriminator's input."""
        return x

    def membership_scores(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array
    ) -> jax.Array | None:
        """How well the networks that read the data know each example of a batch ``[n]``, or None.

        A larger score says that the example is more likely to be a training example: its log-likelihood or, in a
        game without likelihoods, the discriminator's logit. The score of an example does not depend on the others.
        None if the game has no such score.

        Args:
            params: parameters by player.
            net_state: network state by player.
            batch: the features of the examples by name, as networks see them.
            key: random key, for scores that are estimates.
        """
        return None

    def distance(self, params: ByPlayer) -> Metrics:
        """Mapping with the players' coordinates ``x`` and ``y``, and the ``distance`` to the equilibrium.

        The distance is the Euclidean distance from the point (x, y) to the equilibrium.

        Only games with ``has_equilibrium`` implement this method.
        """
        raise NotImplementedError

    def with_eager_penalties(self) -> Game:
        """A version of the game that applies every penalty at every step.

        At fixed parameters, the loss of the returned game equals the mean of the original game's loss over the
        steps of a penalty's interval.
        """
        return self

    def private(self) -> Game:
        """A version of the game for private training, in which the loss of one player alone reads the data.

        The losses of the other players read only the random inputs that ``noise`` draws, and ``noise`` reads no
        data. The terms of the loss that reads the data declare whether they do (``Term.reads_data``).

        Raises:
            UserError: the game has no such version.
        """
        return self


class Strategy(NamedTuple):
    """A strategy: the rule that combines the players' updates into a step.

    Attributes:
        batches: number of batches that one step uses.
        updates: mapping from the name of each player to the number of calls of the player's optimiser in one step.
        init: ``params -> strategy_state``, returns the initial state of the strategy (e.g. slow weights) for a
            mapping from the name of each player to the parameters.
        step: ``(optimisers, state, batches, key) -> (state, metrics)``, a pure function. The state is a
            ``TrainState``. The argument ``batches`` is a list whose length is the attribute ``batches``. The
            function leaves the step count and the moving averages unchanged, because the engine updates them.
        check: ``(optimisers) -> None``, raises a UserError if the strategy does not support one of the optimisers.
    """

    batches: int
    updates: dict[str, int]
    init: Callable[[ByPlayer], Tree]
    step: Callable[[dict[str, Optimiser], TrainState, list[Batch], jax.Array], tuple[TrainState, Metrics]]
    check: Callable[[dict[str, Optimiser]], None] = lambda optimisers: None
