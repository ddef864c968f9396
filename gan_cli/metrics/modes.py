"""Mode coverage where the modes are known: how many the generator keeps, and how well it hits them."""

from __future__ import annotations

import numpy as np

from gan_cli.data.dataset import Modes
from gan_cli.metrics import HIGHER, LOWER, NEITHER, Direction, Metric


def coverage(samples: np.ndarray, modes: Modes) -> dict[str, float]:
    """Modes kept, and the share of high-quality samples.

    A sample is of high quality within 3 standard deviations of its nearest mode (Srivastava et al. 2017,
    section 4.1). A mode is kept when its high-quality samples are at least a quarter of its fair share of all
    samples: counting a mode on a single sample would call noise over the whole square a success.

    Args:
        samples: ``[n, features]``.

    Returns:
        ``modes`` kept, ``modes_total``; ``modes_hit``, those with a high-quality sample at all, which is what the
        papers count; ``quality``, a share between 0 and 1; and ``divergence``, the Jensen-Shannon divergence (nats)
        of the high-quality samples' modes to uniform (1 where there are none; ln 2 is the most otherwise).
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
    """``coverage`` of the samples, where the data's modes are known."""

    def figures(fake_points: np.ndarray, known_modes: Modes) -> dict[str, float]:
        return coverage(fake_points, known_modes)

    directions: dict[str, Direction] = {
        "modes": HIGHER,
        "modes_total": NEITHER,
        "modes_hit": HIGHER,
        "quality": HIGHER,
        "divergence": LOWER,
    }
    return Metric(figures, directions, minimum=1)


def jensen_shannon(p: np.ndarray, q: np.ndarray | float) -> float:
    """Of two distributions over the same modes, in nats; ``q`` may be one share for all."""
    q = np.broadcast_to(q, p.shape)
    middle = (p + q) / 2
    return sum(float((a[a > 0] * np.log(a[a > 0] / middle[a > 0])).sum()) for a in (p, q)) / 2
