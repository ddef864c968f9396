"""The language model: a generator of texts that maximises the likelihood of the data."""

from __future__ import annotations

from typing import Any

import jax

from gan_cli.games.text import GENERATOR, TextGame
from gan_cli.models import TextModel
from gan_cli.types import Batch, ByPlayer, LossTerms, Spec, Term


class LanguageModel(TextGame):
    """Language model: a generator of texts that maximises the likelihood of each token after those before it.

    Mikolov et al. 2010. The game has one player, ``generator``. The baseline of adversarial games of texts.

    Args:
        spec: the features of an example: ``x``, texts.
        model: the networks, of which the game uses the generator.
        precision: data type in which the networks compute. Only float32 is possible.

    Raises:
        UserError: the data are no texts, or the networks are not those of texts.
    """

    players = (GENERATOR,)

    def __init__(self, spec: Spec, model: TextModel, precision: str):
        super().__init__("language_model", spec, model, precision)
        if self.networks[GENERATOR].couples_batch:
            self.coupled = frozenset(self.players)

    def loss(
        self,
        player: str,
        params: ByPlayer,
        net_state: ByPlayer,
        batch: Batch,
        key: jax.Array,
        step: jax.Array,
        fake: Any = None,
    ) -> LossTerms:
        """The negative log-likelihood of each text in nats, divided by the length of the texts with padding."""
        tokens = batch["x"]
        values, state = self.log_likelihood(params, net_state, tokens, train=True, key=key)
        metrics = self._likelihood_metrics(values, tokens, batch.get("mask"))
        return LossTerms({"likelihood": Term(-values.mean(1))}, {GENERATOR: {"network": state}}, metrics)
