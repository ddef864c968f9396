"""Likelihood fitness for data with a known density: a mixture of Gaussians."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Modes
from gan_cli.metrics import HIGHER, NEITHER, Metric
from gan_cli.metrics.tables import require_sklearn

_TEST = 10_000  # rows of the known mixture on which the fitted mixtures are tested, as in SDGym
_FITS = 3  # the fitted mixture varies with its seed


def log_density() -> Metric:
    """Likelihood fitness: log density of samples under the known mixture, and of new rows under theirs.

    The protocol of Xu et al. 2019, section 5.1, for data whose density is a known mixture of Gaussians. They fit a
    mixture in place of the known density; this metric computes the density by its closed form. Samples of the right
    distribution have both values near ``log_density_optimum``.

    Values:
    - log_density: mean log density (nats) of the samples under the known mixture (L_syn); neither higher nor lower
      is better, because a generator whose modes are too narrow exceeds the optimum.
    - log_density_test: mean log density of 10,000 new rows of the known mixture under a mixture of as many
      Gaussians, with diagonal covariances, fitted to the samples (L_test), averaged over three fits; higher is
      better.
    - log_density_optimum: mean log density of the new rows under the known mixture: minus the entropy of the data;
      neither higher nor lower is better.
    """

    def figures(fake_examples: np.ndarray, known_modes: Modes, seed: int) -> dict[str, float]:
        rows = drawn(known_modes, _TEST, seed)
        return {
            "log_density": float(density(fake_examples, known_modes).mean()),
            "log_density_test": float(np.mean([fitted(fake_examples, rows, known_modes, i) for i in range(_FITS)])),
            "log_density_optimum": float(density(rows, known_modes).mean()),
        }

    directions = {"log_density": NEITHER, "log_density_test": HIGHER, "log_density_optimum": NEITHER}
    return Metric(figures, directions, minimum=100)


def density(points: np.ndarray, modes: Modes) -> np.ndarray:
    """Log density ``[n]`` of points ``[n, features]`` under a mixture of equally frequent, isotropic Gaussians."""
    centres, variance = np.asarray(modes.centres, np.float64), modes.std**2
    squares = ((np.asarray(points, np.float64)[:, None] - centres) ** 2).sum(-1)
    constant = np.log(len(centres)) + centres.shape[1] / 2 * np.log(2 * np.pi * variance)
    found: np.ndarray = np.logaddexp.reduce(-squares / (2 * variance), axis=1) - constant
    return found


def drawn(modes: Modes, n: int, seed: int) -> np.ndarray:
    """``n`` points of the mixture, ``[n, features]``."""
    rng = np.random.default_rng([seed, 1])  # not the numbers from which dataset=simulated draws its rows
    centres = np.asarray(modes.centres, np.float64)
    return centres[rng.integers(len(centres), size=n)] + modes.std * rng.standard_normal((n, centres.shape[1]))


def fitted(samples: np.ndarray, rows: np.ndarray, modes: Modes, seed: int) -> float:
    """Mean log density of ``rows`` under a mixture of Gaussians, with diagonal covariances, fitted to samples."""
    require_sklearn("log_density")
    from sklearn.mixture import GaussianMixture

    mixture = GaussianMixture(len(modes.centres), covariance_type="diag", random_state=seed)
    return float(mixture.fit(np.asarray(samples, np.float64)).score(rows))
