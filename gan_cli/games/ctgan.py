"""CTGAN: a GAN of rows of tables, conditioned on one category of each row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gan_cli.augment import Augment
from gan_cli.data.features import Raw, Vector
from gan_cli.data.tables.feature import Span, Table
from gan_cli.errors import UserError
from gan_cli.games.gan import DISCRIMINATOR, GAN, GENERATOR
from gan_cli.games.networks import Network, normal_prior
from gan_cli.losses import Loss
from gan_cli.models import Model
from gan_cli.penalties import Penalty
from gan_cli.types import Batch, ByPlayer, Condition, LossTerms, Spec, Task, Term, Tree


class Conditions:
    """The conditional vectors of a table: one-hot vectors of one category of one column.

    Xu et al. 2019, section 4.3.

    Args:
        table: the feature of a row.
        spans: the spans of the columns of categories to which a condition may refer.

    Attributes:
        by_column: mapping from the numbers of these columns to their spans.
        size: number of values of a conditional vector: one for each category of each of the columns.
    """

    def __init__(self, table: Table, spans: tuple[Span, ...]):
        self._table, self._spans = table, spans
        self.by_column = {span.column: span for span in spans}
        self.size = sum(span.width for span in spans)
        ends = np.cumsum([span.width for span in spans], dtype=int)
        self._starts = ends - [span.width for span in spans]

    def vector(self, span: Span, code: int) -> np.ndarray:
        """The conditional vector ``[size]`` of a category of a column."""
        found = np.zeros(self.size, np.float32)
        found[self._starts[self._spans.index(span)] + code] = 1
        return found

    def of_rows(self, x: jax.Array, key: jax.Array, log_frequency: bool) -> jax.Array:
        """A conditional vector ``[batch, size]`` that each real row meets.

        The column is drawn from its posterior distribution given the row. The sampler ``log_frequency`` chooses a
        column j evenly, a category v with probability p_j(v), and one of its n_j(v) rows. The posterior of j is
        then proportional to p_j(v_j) / n_j(v_j), for the categories v_j of the row. If all rows have equal
        probabilities, so have all columns.

        Args:
            x: real rows as networks see them, ``[batch, *shape]``.
            key: random key.
            log_frequency: whether the rows are drawn by ``sampler=log_frequency``.
        """
        if not self._spans:
            return jnp.zeros((len(x), 0))
        spans = [x[:, s.start : s.start + s.width] for s in self._spans]
        weights = [self._log_weights(s) if log_frequency else np.zeros(s.width, np.float32) for s in self._spans]
        logits = jnp.stack([one @ weight for one, weight in zip(spans, weights, strict=True)], axis=1)
        chosen = jax.nn.one_hot(jax.random.categorical(key, logits), len(spans))
        return jnp.concatenate([one * chosen[:, i : i + 1] for i, one in enumerate(spans)], axis=1)

    def _log_weights(self, span: Span) -> np.ndarray:
        """log (p(v) / n(v)) of each category v with n(v) rows, where p(v) is proportional to log(1 + n(v))."""
        counts = np.round(self._shares(span) * self._table.rows)
        total, present = np.log1p(counts).sum(), np.maximum(counts, 1)  # no row has a category of 0 rows
        weights: np.ndarray = np.log(np.log1p(present) / total / present)
        return weights.astype(np.float32)

    def _shares(self, span: Span) -> np.ndarray:
        """The share of the training rows with each category of a column."""
        shares: np.ndarray = np.array(self._table.columns[span.column].frequencies)
        return shares

    def draw(self, key: jax.Array) -> jax.Array:
        """A conditional vector ``[size]``: any column, and a category with its share of the training rows."""
        if not self._spans:
            return jnp.zeros(0)
        shares = np.concatenate([self._shares(span) for span in self._spans]) / len(self._spans)
        return jax.nn.one_hot(jax.random.categorical(key, jnp.log(jnp.asarray(shares, jnp.float32))), self.size)

    def cross_entropy(self, raw: jax.Array, condition: jax.Array) -> jax.Array:
        """Cross-entropy ``[batch]`` between the conditions and the raw output of the generator.

        Args:
            raw: raw output ``[batch, *shape]``, the logits of the categories.
            condition: conditional vectors ``[batch, size]``. The columns that they do not name contribute 0.
        """
        logits = [jax.nn.log_softmax(raw[:, s.start : s.start + s.width]) for s in self._spans]
        found: jax.Array = -(jnp.concatenate(logits, axis=1) * condition).sum(1)
        return found


class CTGAN(GAN):
    """CTGAN: a GAN of tables whose networks receive a category that the row must have.

    Xu et al. 2019. A condition names one category of one column. Generator and discriminator receive it as a
    vector, and the generator also minimises the cross-entropy between its logits and the category. With
    ``sampler=log_frequency``, rows with rare categories are frequent in training. Samples nevertheless have the
    distribution of the data, because their conditions have the frequencies of the data. ``experiment=ctgan``
    pins the networks, the loss, packing and the optimiser of the paper.

    Args:
        spec: the features of an example: ``x``, the row of a table.
        model: the two networks, with ``model.conditional=none``.
        loss: the adversarial loss of each player.
        penalties: mapping from the name of each penalty to the penalty, a term of the discriminator's loss.
        augments: mapping from the name of each augmentation to the augmentation of the discriminator's input, which
            is the row followed by the condition.
        precision: data type in which the networks compute, float32 or bfloat16. Parameters, logits, examples,
            losses and updates are float32 in both cases.
        condition: columns to which a condition may refer: all ``columns`` of categories, the ``label`` of the data
            set, or ``none``.
        log_frequency: whether the rows of training are drawn by ``sampler=log_frequency``. Needs
            ``condition=columns``. With false, the sampler must draw all rows with equal probability.

    Raises:
        UserError: the data are no table, or the networks, the penalties and the options are not compatible.
    """

    def __init__(
        self,
        spec: Spec,
        model: Model,
        loss: Loss,
        penalties: dict[str, Penalty],
        augments: dict[str, Augment],
        precision: str,
        *,
        condition: Condition = "columns",
        log_frequency: bool = True,
    ):
        table = spec.get("x")
        if not isinstance(table, Table):
            raise UserError(
                f"dataset: game=ctgan learns rows of tables, and this data set has "
                f"{table.noun if table else 'no rows'}. Choose a table, e.g. dataset=table dataset.path=FILE.csv, "
                "or set game=gan."
            )
        if model.conditional != "none":
            raise UserError(
                f"model.conditional={model.conditional}: the networks of game=ctgan receive the condition of "
                "game.condition. Set model.conditional=none, and game.condition=label for the label alone."
            )
        self._conditions = Conditions(table, _spans(table, condition))
        if log_frequency and condition != "columns":
            raise UserError(
                f"game.condition={condition}: sampler=log_frequency draws rows by all columns. Set "
                "game.log_frequency=false sampler=shuffled, or game.condition=columns."
            )
        self._log_frequency = log_frequency
        self.sampler = ("log_frequency", "game.log_frequency=false") if log_frequency else None
        self._code_dim = model.latent_dim
        super().__init__(spec, model, loss, penalties, augments, precision)

    def private(self) -> CTGAN:
        """A copy of a game without conditions for private training.

        Raises:
            UserError: the conditions of generated rows are categories of the real rows.
        """
        if self._conditions.size:
            raise UserError(
                "game.condition: the conditions of generated rows are categories of the real rows, which no noise "
                "protects. With estimator=private, set game.condition=none game.log_frequency=false, or game=gan."
            )
        return cast(CTGAN, super().private())

    def membership_scores(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array
    ) -> jax.Array | None:
        """The discriminator's logits ``[n]``. None with conditions, of which a row has one in each column."""
        return None if self._conditions.size else super().membership_scores(params, net_state, batch, key)

    def _inputs(self, model: Model) -> int:
        return super()._inputs(model) + self._conditions.size

    def _networks(self, model: Model, precision: str, classes: int | None) -> dict[str, Network]:
        inputs = model.latent_dim + self._conditions.size
        seen = self._x.widened((self._x.size + self._conditions.size) * self.pack)
        build: dict[str, Callable[[jax.Array], Any]] = {
            DISCRIMINATOR: lambda key: model.discriminator(seen, nnx.Rngs(key)),
            GENERATOR: lambda key: model.generator(Raw(self._x), inputs, nnx.Rngs(key)),
        }
        return {name: Network(one, precision) for name, one in build.items()}

    def _tasks(self) -> dict[str, Task]:
        drawn = self._latent_dim - self._conditions.size
        inputs: Spec = {"latents": Vector(drawn)}
        if self._conditions.size:
            inputs = {**inputs, "condition": Vector(self._conditions.size)}
        latents = normal_prior(drawn)

        def prior(key: jax.Array, truncation: float | None) -> Batch:
            condition = self._conditions.draw(jax.random.fold_in(key, 1))
            return latents(key, truncation) | ({"condition": condition} if self._conditions.size else {})

        return {"generate": Task(inputs, {"samples": self._x}, self._samples, prior, imitates="x")}

    @property
    def conditions(self) -> Conditions:
        """The conditional vectors that the networks receive."""
        return self._conditions

    def noise(self, batch: Batch, key: jax.Array) -> Batch:
        """The batch with ``latents`` ``[batch, n]``: the code, the condition and the noise of the head of each row.

        The real row and the generated row with the same index have the same condition.
        """
        batch = super().noise(batch, key)
        condition = self._conditions.of_rows(batch["x"], jax.random.fold_in(key, 2), self._log_frequency)
        first, last = self._code_dim, self._code_dim + self._conditions.size
        return batch | {"latents": batch["latents"].at[:, first:last].set(condition)}

    def _condition(self, batch: Batch) -> jax.Array:
        return batch["latents"][:, self._code_dim : self._code_dim + self._conditions.size]

    def _judged(self, x: jax.Array, batch: Batch) -> jax.Array:
        return jnp.concatenate([x, self._condition(batch)], axis=1)

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
        """The terms of a GAN and, for the generator, the cross-entropy of the conditions (``condition``)."""
        if fake is None:
            fake, generator_state = self.fake(params, net_state, batch, key, step)
            net_state = net_state | {GENERATOR: generator_state[GENERATOR]}
        rows, raw = fake
        found = super().loss(player, params, net_state, batch, key, step, rows)
        if player != GENERATOR or not self._conditions.size:
            return found
        missed = Term(self._conditions.cross_entropy(raw, self._condition(batch)))
        return found._replace(terms={**found.terms, "condition": missed})

    def fake(
        self, params: ByPlayer, net_state: ByPlayer, batch: Batch, key: jax.Array, step: jax.Array
    ) -> tuple[Tree, ByPlayer]:
        """A pair: the generated rows with the raw output of the generator, and the network state after the pass."""
        _, key = self._fake_keys(key)
        inputs, noise = self._split(batch["latents"])
        raw, state = self._apply(GENERATOR, params, net_state, inputs, None, True, key)
        return (self._x.head(raw, noise), raw), net_state | {GENERATOR: {"network": state}}

    def _samples(
        self, params: ByPlayer, net_state: ByPlayer, inputs: dict[str, jax.Array], keys: jax.Array
    ) -> dict[str, jax.Array]:
        latents = inputs["latents"]
        condition = inputs.get("condition", latents[:, :0])
        parts = latents[:, : self._code_dim], condition, latents[:, self._code_dim :]
        return {"samples": self.decode(params, net_state, jnp.concatenate(parts, axis=1), None)}


def _spans(table: Table, condition: Condition) -> tuple[Span, ...]:
    """The spans of the columns to which a condition may refer.

    Raises:
        UserError: ``condition`` is ``label``, and the table has no label.
    """
    if condition == "none":
        return ()
    if condition == "columns":
        return table.discrete
    if table.label is None:
        raise UserError(
            "game.condition=label: the data set has no label. Set dataset.label=COLUMN, or game.condition=columns."
        )
    return tuple(span for span in table.spans if span.column == table.label)
