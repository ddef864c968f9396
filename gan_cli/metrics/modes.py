"""Mode coverage for data with known modes: the number of covered modes and the quality of samples."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Modes
from gan_cli.metrics import HIGHER, LOWER, NEITHER, Direction, Metric


def coverage(samples: np.ndarray, modes: Modes) -> dict[str, float]:
    """Mode coverage of samples: a dictionary from the names in ``known_modes`` to metric values.

    Args:
        samples: ``[n, features]``.
        modes: the modes of the data.
    """
    distances = np.linalg.norm(samples[:, None, :] - modes.centres[None], axis=-1)
    nearest = distances.argmin(1)
    good = distances.min(1) <= 3 * modes.std
    counts = np.bincount(nearest[good], minlength=len(modes.centres))
    fair = len(samples) / len(modes.centres)
    divergence = jensen_shannon(counts / counts.sum(), 1 / len(counts)) if counts.any() else 1.0
    return {
        "modes": float((counts >= fair / 4).sum()),
        "modes_total": float(len(modes.centres)),
        "modes_hit": float((counts > 0).sum()),
        "quality": float(good.mean()),
        "divergence": float(divergence),
    }


def known_modes() -> Metric:
    """Mode coverage: number of covered modes and share of high-quality samples, for data with known modes.

    A sample has high quality if it lies within 3 standard deviations of its nearest mode (Srivastava et al. 2017,
    section 4.1). A mode is covered if it has at least n / 4 high-quality samples, where n is the number of samples
    divided by the number of modes. A single sample is not sufficient, because uniform noise would then cover all
    modes.

    Values:
    - modes: number of covered modes; higher is better.
    - modes_total: number of modes of the data; neither higher nor lower is better.
    - modes_hit: number of modes with at least one high-quality sample, as counted in papers; higher is better.
    - quality: share of high-quality samples, from 0 to 1; higher is better.
    - divergence: Jensen-Shannon divergence (nats) between the distribution of the high-quality samples over the
      modes and the uniform distribution; lower is better. The value is at most ln 2 if a sample has high
      quality, and 1 otherwise.
    """

    def figures(fake_examples: np.ndarray, known_modes: Modes) -> dict[str, float]:
        return coverage(fake_examples, known_modes)

    directions: dict[str, Direction] = {
        "modes": HIGHER,
        "modes_total": NEITHER,
        "modes_hit": HIGHER,
        "quality": HIGHER,
        "divergence": LOWER,
    }
    return Metric(figures, directions, minimum=1)


def jensen_shannon(p: np.ndarray, q: np.ndarray | float) -> float:
    """Jensen-Shannon divergence (nats) between two discrete distributions with n outcomes.

    Args:
        p: probabilities ``[n]`` of the first distribution.
        q: probabilities ``[n]`` of the second distribution. For the uniform distribution, the number 1 / n.
    """
    q = np.broadcast_to(q, p.shape)
    middle = (p + q) / 2
    return sum(float((a[a > 0] * np.log(a[a > 0] / middle[a > 0])).sum()) for a in (p, q)) / 2
