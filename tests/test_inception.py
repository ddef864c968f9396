"""The Inception network and the reader of its weights, beside PyTorch's."""

from __future__ import annotations

import os
import pickle
import zipfile

import fidelity
import jax
import numpy as np
import pytest

from gan_cli.errors import UserError
from gan_cli.metrics import inception, torchfile


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """torch-fidelity's network and our parameters of the same random weights."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    theirs = fidelity.network(path)
    return theirs, inception.fold(torchfile.read(path))


@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 48, 3)], ids=str)
def test_is_the_network_of_the_fid(both, shape):
    """Features and logits of the same images and weights, to 1e-4 of their size."""
    import torch

    theirs, params = both
    images = fidelity.images(2, shape)
    coloured = np.broadcast_to(images, (*images.shape[:3], 3)).transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = [part.numpy() for part in theirs(torch.from_numpy(coloured.copy()))]
    for ours, reference in zip(jax.jit(inception.apply)(params, images), expected, strict=True):
        assert ours.shape == reference.shape
        np.testing.assert_allclose(ours, reference, atol=1e-4 * np.abs(reference).max())


def test_reads_what_torch_saves(tmp_path):
    torch = pytest.importorskip("torch", exc_type=ImportError)
    base = torch.arange(24, dtype=torch.float32)
    state = {"a": base.reshape(4, 6).T, "b": base[5:9], "c": torch.tensor(3), "d": torch.zeros(0, 2).double()}
    for new in (False, True):
        torch.save(state, tmp_path / "w.pth", _use_new_zipfile_serialization=new)
        found = torchfile.read(tmp_path / "w.pth")
        assert found.keys() == state.keys()
        for name, expected in state.items():
            np.testing.assert_array_equal(found[name], expected.numpy())
            assert found[name].dtype == expected.numpy().dtype
        content = (tmp_path / "w.pth").read_bytes()
        (tmp_path / "cut.pth").write_bytes(content[: len(content) - 60])
        with pytest.raises((ValueError, zipfile.BadZipFile)):
            torchfile.read(tmp_path / "cut.pth")


def test_executes_nothing(tmp_path):
    """A pickle that names anything but tensors is refused before that is called."""

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "boom"),)

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Bomb()))
    with zipfile.ZipFile(tmp_path / "z.pth", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"a": Bomb()}))
    for name in ("w.pth", "z.pth"):
        with pytest.raises(ValueError, match="mkdir"):
            torchfile.read(tmp_path / name)
    assert not (tmp_path / "boom").exists()


def test_only_the_weights_that_are_known(tmp_path):
    with pytest.raises(UserError, match=r"No such file.*torch-fidelity"):
        inception.load(tmp_path / "none.pth")
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(UserError, match=f"SHA-256 is d9298a10d1b0.*{inception.SHA256}"):
        inception.load(tmp_path / "other.pth")
