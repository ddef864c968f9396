"""A mixture of Gaussians as the prior of the latents, fitted to the codes of the training data."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.errors import UserError
from gan_cli.types import Prior

COMPONENTS = 10  # as in Ghosh et al. 2020


def fit(codes: np.ndarray) -> Prior:
    """A prior that draws the input ``latents`` from a mixture of 10 Gaussians with full covariance matrices.

    The mixture is fitted to codes, e.g. the posterior means of the training data, by expectation maximisation. Its
    samples follow the codes even if their distribution is not N(0, I) (Ghosh et al. 2020, section 4).
    ``truncation`` limits each standard normal number from which a latent vector is made.

    Args:
        codes: ``[n, latent_dim]``.

    Raises:
        UserError: scikit-learn is not installed, or there are fewer codes than components.
    """
    try:
        from sklearn.mixture import GaussianMixture
    except ImportError:
        raise UserError(
            "--prior gmm: needs scikit-learn, which is not installed. Install it: pip install 'gan_cli[vae]'."
        ) from None
    if len(codes) < COMPONENTS:
        raise UserError(
            f"--prior gmm: fits a mixture of {COMPONENTS} Gaussians to the codes of the training data, which has "
            f"only {len(codes)} examples. Leave out --prior."
        )
    found = GaussianMixture(COMPONENTS, random_state=0).fit(codes.astype(np.float64))
    logits = jnp.log(jnp.asarray(found.weights_, jnp.float32))
    means = jnp.asarray(found.means_, jnp.float32)
    factors = jnp.asarray(np.linalg.cholesky(found.covariances_), jnp.float32)

    def prior(key: jax.Array, truncation: float | None) -> dict[str, jax.Array]:
        component_key, key = jax.random.split(key)
        component = jax.random.categorical(component_key, logits)
        shape = (codes.shape[1],)
        if truncation is None:
            noise = jax.random.normal(key, shape)
        else:
            noise = jax.random.truncated_normal(key, -truncation, truncation, shape)
        return {"latents": means[component] + factors[component] @ noise}

    return prior
