"""The Inception network against the reference, and its weights file against invalid files."""

from __future__ import annotations

import hashlib
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from conftest import import_reference

from gan_cli.errors import UserError
from gan_cli.metrics import inception, torch_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of random weights for the Inception network."""
    fidelity = import_reference("fidelity")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    fidelity.torch.save(fidelity.random_weights(), path)
    return path


@pytest.fixture(scope="module")
def sides(weights):
    """Our network and torch-fidelity's, both with the random weights, as functions images -> (features, logits)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "SHA256", hashlib.sha256(weights.read_bytes()).hexdigest())
        params = inception.load(weights).params
    fidelity = import_reference("fidelity")
    return lambda images: inception.apply(params, images), fidelity.extractor(weights)


@pytest.mark.comparison
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3), (64, 48, 3)])
def test_network_equals_the_reference(sides, shape):
    ours, theirs = sides
    images = np.random.default_rng(0).integers(0, 256, (2, *shape), np.uint8)
    for found, expected in zip(ours(images), theirs(images), strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * expected.std())


# -------------------------------------------------------------------------------------------- files of weights


def zipped(path, described):
    """Write a pickle as the contents of PyTorch's zip format."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", described)


def chained(path, described):
    """Write a pickle as the contents of PyTorch's legacy format, a sequence of pickles."""
    before = [pickle.dumps(x) for x in (torch_weights._MAGIC, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(before) + described + pickle.dumps([]))


class Malicious:
    """An object that calls ``function`` when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("written", [zipped, chained])
@pytest.mark.parametrize("where", [lambda evil: evil, lambda evil: OrderedDict(weight=evil)])
def test_a_malicious_file_is_refused_and_runs_nothing(tmp_path, written, where):
    for evil in (Malicious(os.mkdir, str(tmp_path / "ran")), Malicious(eval, "open('ran', 'w')"), zipped):
        written(tmp_path / "weights.pth", pickle.dumps(where(evil)))
        with pytest.raises(ValueError, match=r"it would call \w+\.\w+.*: refused"):
            torch_weights.read(tmp_path / "weights.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("found", [{"weight": 1.0}, [1, 2], {"weight": OrderedDict()}])
def test_a_file_of_other_objects_is_refused(tmp_path, found):
    for written in (zipped, chained):
        written(tmp_path / "weights.pth", pickle.dumps(found))
        with pytest.raises(ValueError, match="something else than a dictionary of tensors"):
            torch_weights.read(tmp_path / "weights.pth")


@pytest.mark.comparison
def test_both_formats_are_read_and_truncated_files_are_refused(tmp_path):
    torch = import_reference("torch")
    base = torch.arange(24, dtype=torch.float32)
    saved = OrderedDict(
        plain=base.reshape(2, 3, 4),
        transposed=base.reshape(4, 6).T,  # shares the storage
        part=base[3:9],
        parameter=torch.nn.Parameter(torch.ones(2)),
        half=torch.tensor([1.5, -2], dtype=torch.float16),
        long=torch.tensor(7),
        flag=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
    )
    for new in (True, False):
        path = tmp_path / f"{new}.pth"
        torch.save(saved, path, _use_new_zipfile_serialization=new)
        read = torch_weights.read(path)
        assert list(read) == list(saved)
        for name, expected in saved.items():
            expected = expected.detach().numpy()
            assert read[name].dtype == expected.dtype
            np.testing.assert_array_equal(read[name], expected)
        whole = path.read_bytes()
        for length in (0, 1, 100, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:length])
            with pytest.raises(ValueError, match=r"."):
                torch_weights.read(path)
        torch.save({"wide": torch.zeros(1).expand(10**12)}, path, _use_new_zipfile_serialization=new)
        with pytest.raises(ValueError, match="wide reaches beyond its storage"):
            torch_weights.read(path)


def test_load_errors_name_the_fault_and_the_source_of_the_file(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    with pytest.raises(UserError, match=r"No such file or directory.*fid_weights.*pytorch-fid"):
        inception.load(path)
    with pytest.raises(UserError, match="Is a directory"):
        inception.load(tmp_path)
    path.write_bytes(b"PK something")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.raises(UserError, match=f"its SHA-256 is {found}, not {inception.SHA256}.*torch-fidelity"):
        inception.load(path)
    monkeypatch.setattr(inception, "SHA256", found)
    with pytest.raises(UserError, match=r"weights\.pth: .*pytorch-fid") as raised:
        inception.load(path)
    assert "\n" not in str(raised.value)
