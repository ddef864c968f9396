"""The secret key of a private run: the noise of its gradients and the examples of its batches derive from it.

The key is drawn from the entropy of the operating system and kept in ``private/noise.key``, which only its owner
can read. Training alone reads the file. Whoever knows the key can subtract the noise, so a copy of a run that
leaves the organisation leaves the folder ``private/`` out. Such a copy can sample, but not resume.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Collection
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from gan_cli.errors import UserError
from gan_cli.storage import files

_WORDS = 2  # 32-bit words of a threefry key


def path(run: Path) -> Path:
    """The file of the key in the directory of a run."""
    return run / "private" / "noise.key"


def words_of(run: Path, data: Collection[str], begun: bool) -> list[int]:
    """The two 32-bit words of the key of a run. The first start of a run draws them and writes the file.

    The file also names the data. With one key on two data sets, the same noise would be added to both, and the
    difference of the two runs would be free of noise. A key that is left over from another run in the same
    directory is replaced for the same reason.

    Args:
        run: directory of the run.
        data: the fingerprint of the data, followed by those that earlier versions computed for the same data.
        begun: whether an earlier process has started the run, i.e. ``run.json`` exists.

    Raises:
        UserError: the run has begun and its key is missing, or the key was drawn for other data.
    """
    file = path(run)
    now, *_ = data
    if begun and not file.exists():
        raise UserError(
            f"{file}: this copy of the run has no noise key, so it can sample but not resume: other noise would be "
            "another release of the same data. Restore the file, or continue in a new run with "
            f"init_from={run}, which adds its own epsilon."
        )
    if not begun:
        words = [secrets.randbits(32) for _ in range(_WORDS)]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.parent.chmod(0o700)
        files.write_bytes(file, json.dumps({"key": words, "data": now}).encode(), mode=0o600)
        return words
    try:
        stated = json.loads(file.read_text())
        words, drawn_for = [int(word) for word in stated["key"]], stated["data"]
        if len(words) != _WORDS:
            raise ValueError(f"the key has {len(words)} words")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{file}: the noise key cannot be read ({error}). Restore the file from a copy, or start a new run."
        ) from error
    if drawn_for not in data:
        raise UserError(
            f"{file}: the noise key was drawn for other data, and the same noise on two data sets cancels. "
            "Resume the run with the data of its first start, or start a new run under another name."
        )
    return words


def words_of_seed(seed: int, options: str, data: str) -> list[int]:
    """The words of a key that derives from the seed. The guarantee then holds only if the seed is secret.

    Runs with other options or other data have other keys, because the difference of two runs with the same noise
    would be free of noise.

    Args:
        seed: the seed of the run.
        options: the fingerprint of the options that a resumed run may not change.
        data: the fingerprint of the data.
    """
    digest = hashlib.sha256(f"{seed} {options} {data}".encode()).digest()
    return [int.from_bytes(digest[4 * i : 4 * i + 4], "little") for i in range(_WORDS)]


def key_of(words: Collection[int]) -> jax.Array:
    """The random key of two 32-bit words."""
    key: jax.Array = jax.random.wrap_key_data(jnp.array([*words], jnp.uint32), impl="threefry2x32")
    return key


def sealed(fingerprint: str, words: Collection[int]) -> str:
    """The HMAC-SHA-256 of the fingerprint of the data, with which checkpoints name the data.

    A plain hash would confirm a guess of one example to whoever knows all others.
    """
    secret = np.array([*words], np.uint32).tobytes()
    return hmac.new(secret, fingerprint.encode(), hashlib.sha256).hexdigest()
