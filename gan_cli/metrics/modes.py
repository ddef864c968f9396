"""Mode coverage where the modes are known: how many the generator keeps, and how well it hits them."""

from __future__ import annotations

import numpy as np

from gan_cli.data.source import Modes


def coverage(samples: np.ndarray, modes: Modes) -> dict[str, float]:
    """Modes kept, and the share of high-quality samples.

    A sample is of high quality within 3 standard deviations of its nearest mode (Srivastava et al. 2017,
    section 4.1). A mode is kept when its high-quality samples are at least a quarter of its fair share of all
    samples: counting a mode on a single sample would call noise over the whole square a success.

    Args:
        samples: ``[n, features]``.

    Returns:
        ``modes`` kept, ``modes_total``, and ``quality``, a share between 0 and 1.
    """
    distances = np.linalg.norm(samples[:, None, :] - modes.centres[None], axis=-1)
    nearest = distances.argmin(1)
    good = distances.min(1) <= 3 * modes.std
    counts = np.bincount(nearest[good], minlength=len(modes.centres))
    fair = len(samples) / len(modes.centres)
    return {
        "modes": float((counts >= fair / 4).sum()),
        "modes_total": float(len(modes.centres)),
        "quality": float(good.mean()),
    }
