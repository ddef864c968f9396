"""The privacy audit: the one-run bound, membership inference, and faults of private training that it finds."""

from __future__ import annotations

import functools
import json
import stat
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from gan_cli.config.build import experiment
from gan_cli.engine.state import init_state
from gan_cli.estimators import Estimator, private
from gan_cli.metrics import Scores, one_run
from gan_cli.metrics.privacy import likelihood_ratios
from gan_cli.privacy.accounting import Charge, noise_for
from gan_cli.strategies.alternating import alternating

DELTA = 1e-5
CANARIES, REAL, STEPS, NORM = 200, 56, 5, 0.2
EXPECTED = REAL + CANARIES // 2  # mean number of examples in a batch
REFERENCES, SEEDS = 4, 20
NETWORKS = [
    "dataset=mnist5k", "model=mlp", "model.conditional=acgan", "model.discriminator.width=16",
    "model.discriminator.dropout=0", "model.generator.width=1", "model.latent_dim=1", "optim=sgd", "optim.lr=0.3",
    "loss=nonsaturating", "estimator=private", "estimator.noise_multiplier=1", "sampler=poisson", "metric=none",
]  # fmt: skip


def unclipped(function, params, rows, mask, bound):
    return private.per_example_sum(function, params, rows, mask, 1e9)


def without_clipping_labels(estimator: Estimator) -> Estimator:
    """The estimator, which adds the gradient of the labels' term without clipping its examples."""

    def gradient(loss, params, batch, key):
        def rest(params, batch, key):
            found = loss(params, batch, key)
            return found._replace(terms={name: term for name, term in found.terms.items() if name != "classes"})

        def labels(params):
            rows = {name: x for name, x in batch.items() if name != "mask"}
            if "fake" in rows:
                rows["fake"] = rows["fake"][jnp.arange(len(rows["x"])) % len(rows["fake"])]
            terms = loss(params, rows, key).terms
            return jnp.sum(batch["mask"] * terms["classes"].values) / EXPECTED if "classes" in terms else 0.0

        found = estimator.gradient(rest, params, batch, key)
        return found._replace(gradient=jax.tree.map(jnp.add, found.gradient, jax.grad(labels)(params)))

    return estimator._replace(gradient=gradient)
