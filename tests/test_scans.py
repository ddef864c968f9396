"""Files of doctors: DICOM, NIfTI, MedMNIST, pictures of 16 bits and of any number of channels."""

from __future__ import annotations

import copy
import importlib.util
import io
import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY

import gan_cli
from gan_cli.cli.sample import main as gan_sample
from gan_cli.config.build import experiment
from gan_cli.data import dicom, nifti, scans
from gan_cli.data.folder import folder
from gan_cli.data.images import BadImage, decode
from gan_cli.data.medmnist import medmnist
from gan_cli.data.paired import paired
from gan_cli.data.unpaired import unpaired
from gan_cli.errors import UserError

pydicom = pytest.importorskip("pydicom")
nibabel = pytest.importorskip("nibabel")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def sample_of(name: str) -> Path:
    """A test file of pydicom."""
    return Path(pydicom.__file__).parent / "data/test_files" / name


@pytest.fixture(scope="module")
def ct():
    """The CT image of pydicom: 128x128, 16 bits, rescale intercept -1024, no window."""
    return pydicom.dcmread(sample_of("CT_small.dcm"))


def write(source, path: str, patient: str = "", **fields) -> bytes:
    """Write a copy of a DICOM file with other fields, and return its content."""
    made = copy.deepcopy(source)
    made.PatientID, made.PatientName = patient, f"DOE^{patient}"
    for name, value in fields.items():
        setattr(made, name, value)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return Path(path).read_bytes()


# --- DICOM -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_grey_levels_equal_those_of_pydicom(ct, function, photometric):
    """Rescale and window against pydicom's: Hounsfield units, then the window of the file."""
    fields = {"WindowCenter": [40, 300], "WindowWidth": [400, 1500], "VOILUTFunction": function}
    content = write(ct, "x.dcm", PhotometricInterpretation=photometric, **fields)
    data = pydicom.dcmread(io.BytesIO(content))
    shown = pydicom.pixels.apply_windowing(pydicom.pixels.apply_rescale(data.pixel_array, data), data)
    # pydicom maps the window to all 16-bit values after the rescale.
    low, high = -(2**15) - 1024, 2**15 - 1 - 1024
    expected = (shown - low) / (high - low)
    expected = 1 - expected if photometric == "MONOCHROME1" else expected
    np.testing.assert_allclose(dicom.Frames(content)[0][..., 0], expected, atol=1e-6)
    if function == "LINEAR":
        plain = write(ct, "y.dcm", PhotometricInterpretation=photometric)
        np.testing.assert_allclose(dicom.Frames(plain, (40, 400))[0][..., 0], expected, atol=1e-6)


def test_a_window_of_width_1_is_a_threshold():
    """PS3.3, C.11.2.1.2.1: for w = 1, values above c - 0.5 are white, and all others black."""
    values = np.array([38.5, 39.5, 39.6, 40, 41])
    assert dicom.windowed(values, 40, 1).tolist() == [0, 0, 1, 1, 1]


def test_a_file_without_a_window_shows_the_range_of_its_values_without_padding(ct):
    stored = ct.pixel_array.copy()
    stored[0] = -2000  # the padding value of the file
    content = write(ct, "x.dcm", PixelData=stored.tobytes())
    found, kept = dicom.Frames(content)[0][..., 0], stored[1:]
    np.testing.assert_allclose(found[1:], (kept - kept.min()) / np.ptp(kept), atol=1e-6)
    assert (found[0] == 0).all()


def test_frames_colours_tables_and_files_without_a_preamble():
    ultrasound = dicom.Frames(sample_of("examples_ybr_color.dcm").read_bytes())  # 30 frames, JPEG, YBR
    assert ultrasound.count == 30 and ultrasound[29].shape == (240, 320, 3)
    palette = pydicom.dcmread(sample_of("examples_palette.dcm"))
    coloured = pydicom.pixels.apply_color_lut(palette.pixel_array, palette)
    np.testing.assert_allclose(
        dicom.Frames(sample_of("examples_palette.dcm").read_bytes())[0], coloured / 65535, atol=1e-6
    )
    assert dicom.header(io.BytesIO(sample_of("rtplan.dcm").read_bytes())) is None
    for name in ("MR_small_RLE.dcm", "MR_small_bigendian.dcm", "MR_small_implicit.dcm"):
        plain = dicom.Frames(sample_of("MR_small.dcm").read_bytes())[0]
        np.testing.assert_array_equal(dicom.Frames(sample_of(name).read_bytes())[0], plain)
    dose = dicom.Frames(sample_of("rtdose.dcm").read_bytes())  # 15 frames of 32 bits share one range
    frames = np.stack([dose[i] for i in range(dose.count)])
    assert (frames.min(), frames.max()) == (0, 1) and any(frame.min() > 0 for frame in frames)


def test_an_unreadable_compression_is_skipped_or_refused_by_name(caplog):
    for name in ("MR_small.dcm", "MR_small_jpeg_ls_lossless.dcm", "MR_truncated.dcm", "rtplan.dcm"):
        Path("data").mkdir(exist_ok=True)
        Path("data", name).write_bytes(sample_of(name).read_bytes())
    Path("data/damaged.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"damaged")
    data = folder(path="data", resolution=8, channels=1)
    assert data.size == 1 and data.passed_over == {
        "DICOM files without an image": 1,
        "images that cannot be decoded": 3,
    }
    for words in (
        r"jpeg_ls_lossless\.dcm.*JPEG-LS Lossless Image Compression \(1\.2\.840\.10008\.1\.2\.4\.80\)",
        r"MR_truncated\.dcm: .* damaged or incomplete",
        r"damaged\.dcm: .*not a DICOM file",
    ):
        assert re.search(words, caplog.text)
    for name in ("damaged.dcm", "MR_truncated.dcm", "MR_small_jpeg_ls_lossless.dcm"):
        with pytest.raises(UserError, match=r"cannot be decoded \("):
            folder(path="data", resolution=8, channels=1, on_error="refuse")
        Path("data", name).unlink()
    assert folder(path="data", resolution=8, channels=1, on_error="refuse").size == 1


@pytest.mark.parametrize("stream", [False, True])
def test_no_patient_is_on_both_sides_and_files_need_no_suffix(ct, stream):
    for i in range(24):
        write(ct, f"data/IM{i:04}", f"P{i % 6}", WindowCenter=i, WindowWidth=400)
    Path("data/DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    data = folder(path="data", resolution=8, channels=1, hold_out=0.34, stream=stream)
    assert data.size == 16 and "2 of 6 patients held out" in data.notes
    images = [decode(Path(f"data/IM{i:04}").read_bytes(), 8, 1) for i in range(24)]

    def patients(part: np.ndarray) -> set[int]:
        return {i % 6 for i, image in enumerate(images) if (part == image).all((1, 2, 3)).any()}

    training = patients(data.take(np.arange(16))["x"])
    assert len(training) == 4
    if not stream:
        assert patients(data.held_out["x"]) == {*range(6)} - training
        assert data.passed_over == {"files without a suffix": 1}
    with pytest.raises(UserError, match=r"dataset\.hold_out=0\.5: needs images of at least two patients"):
        Path("one").mkdir()
        Path("one/x.dcm").write_bytes(Path("data/IM0000").read_bytes())
        folder(path="one", resolution=8, hold_out=0.5)


def test_a_zip_of_dicom_files_is_read_like_the_folder(ct):
    for i in range(3):
        write(ct, f"data/{i}", f"P{i}", WindowCenter=i, WindowWidth=400)
    with zipfile.ZipFile("data.zip", "w") as archive:
        for i in range(3):
            archive.write(f"data/{i}", f"scans/{i}")
    for stream in (False, True):
        data, zipped = (folder(path=one, resolution=8, channels=1, stream=stream) for one in ("data", "data.zip"))
        rows = np.arange(3)
        np.testing.assert_array_equal(zipped.take(rows)["x"], data.take(rows)["x"])


SECRETS = {"PatientBirthDate": "19330317", "AccessionNumber": "QZ445566", "OtherPatientIDs": "XK8872211"}


def named_after_patients(source) -> None:
    """Folders and files with the names of patients, and a damaged file."""
    for i in range(12):
        write(
            source,
            f"data/ZYZZYVA{i % 3}/series/IM{i}",
            f"ZYZZYVA{i % 3}",
            WindowCenter=i,
            WindowWidth=400,
            **SECRETS,
        )
    Path("data/ZYZZYVA0/series/QZ445566.dcm").write_bytes(sample_of("MR_truncated.dcm").read_bytes())


def reveals(text: str) -> bool:
    return bool(re.search(rf"ZYZZYVA|DOE\^|CompressedSamples|{'|'.join(SECRETS.values())}", text, re.IGNORECASE))


@pytest.mark.parametrize("stream", [False, True])
def test_folders_of_patients_are_no_classes_and_messages_do_not_name_patients(ct, stream, caplog):
    named_after_patients(ct)
    for layout in (None, "classes"):
        data = folder(path="data", resolution=8, channels=1, layout=layout, stream=stream)
        data.take(np.arange(data.size))
        assert data.class_names == (("0", "1", "2") if layout else ())
        assert not reveals(json.dumps(data.contents()) + "".join(data.lines()) + caplog.text)
    assert re.search(r"file \d+ of 13 in the order of their names: the image cannot be decoded", caplog.text)
    with pytest.raises(UserError, match="file 5 of 13") as refused:
        folder(path="data", resolution=8, on_error="refuse")
    assert not reveals(str(refused.value))


@pytest.mark.slow
def test_no_file_of_a_run_names_a_patient(ct):
    named_after_patients(ct)
    run = ["dataset=folder", "dataset.path=data", "dataset.resolution=8", "dataset.channels=1", "dataset.bits=16"]
    gan_cli.train([*TINY, *run, "name=x", "train.sample_every=4", "metric=[]"])
    files = [path for path in Path("outputs/x").rglob("*") if path.is_file()]
    assert not any(reveals(str(path) + path.read_bytes().decode("latin-1")) for path in files)
    assert gan_sample(["outputs/x", "--num=2", "--out=x.npz"]) == 0
    made = np.load("x.npz")["samples"]
    assert made.dtype == np.uint16 and made.max() > 255


def test_a_header_with_an_absurd_number_of_frames_is_a_damaged_image(ct):
    write(ct, "data/0.dcm")
    write(ct, "data/1.dcm", NumberOfFrames="2000000000")
    with pytest.raises(UserError, match=r"1\.dcm: .*2,000,000,000 slices exceed the limit"):
        folder(path="data", resolution=8, on_error="refuse")
    assert folder(path="data", resolution=8).size == 1


def test_pairs_of_dicom_files(ct):
    for i in range(4):
        for domain in "AB":
            write(ct, f"pairs/{'train' if i < 3 else 'test'}{domain}/{i}.dcm", WindowCenter=i, WindowWidth=400)
    data = paired(path="pairs", resolution=8)
    assert data.spec["a"].bits == 16 and data.held_out_size == 1
    expected = [decode(Path(f"pairs/trainA/{i}.dcm").read_bytes(), 8, 1, 16) for i in range(3)]
    np.testing.assert_array_equal(data.arrays["a"], expected)


def test_the_pairs_of_a_patient_are_on_one_side_and_messages_do_not_name_patients(ct):
    for i in range(12):
        for domain in "AB":
            write(ct, f"pairs/{domain}/ZYZZYVA{i // 2}/{i}.dcm", f"ZYZZYVA{i // 2}", PatientName="DOE^ZYZZYVA")
    for read in (paired, unpaired):
        data = read(path="pairs", resolution=8, hold_out=0.34, labelled=True)
        for name in "ab":
            patients = [one.split("/")[0] for one in data.held_out_names[name]]
            assert len(patients) == 4 and sorted(map(patients.count, patients)) == [2, 2, 2, 2]
        assert data.held_out_names["a"] == data.held_out_names["b"]
        assert data.class_names == tuple("012345") and not reveals("".join(data.lines()))
    Path("pairs/A/ZYZZYVA0/0.dcm").unlink()
    with pytest.raises(UserError, match="have no partner of the same name") as refused:
        paired(path="pairs", resolution=8)
    assert not reveals(str(refused.value)) and "file 12 of 23" in str(refused.value)


def test_classes_and_splits_of_dicom_files(ct):
    for i in range(4):
        write(ct, f"a/{'train' if i < 3 else 'test'}/{('normal', 'sick')[i % 2]}/{i}.dcm", f"P{i % 3}")
    data = folder(path="a", resolution=8, channels=1)
    assert data.class_names == ("normal", "sick") and (data.size, data.held_out_size) == (3, 1)
    assert "images of 1 patients are both in training and held out" in data.notes
    with pytest.raises(UserError, match=r"dataset\.hold_out=0\.2: the folders already hold out images"):
        folder(path="a", resolution=8, hold_out=0.2)
    write(ct, "b/x.dcm", BurnedInAnnotation="YES")
    assert any("burned into their pixels" in note for note in folder(path="b", resolution=8).notes)


# --- NIfTI -----------------------------------------------------------------------------------------------------


def volume(path: str, values: np.ndarray, codes: str = "RAS", **fields) -> np.ndarray:
    """Write a volume whose axes have the given orientation, and return it in the canonical orientation."""
    end = nibabel.orientations.axcodes2ornt(codes)
    affine = nibabel.orientations.inv_ornt_aff(end, values.shape[:3])
    image = nibabel.Nifti1Image(values, affine)
    for name, value in fields.items():
        image.header[name] = value
    nibabel.save(image, path)
    return np.asanyarray(nibabel.as_closest_canonical(nibabel.load(path)).dataobj)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_slices_have_the_orientation_of_the_patient(codes, suffix):
    """Against nibabel's canonical orientation: anterior or superior at the top, left at the left."""
    canonical = volume(f"x{suffix}", RNG.integers(0, 100, (4, 5, 6), np.int16), codes)
    canonical = (canonical - canonical.min()) / np.ptp(canonical)
    content = Path(f"x{suffix}").read_bytes()
    for axis in range(3):
        found = nifti.Slices(content, axis)
        assert nifti.slices(io.BytesIO(content), axis) == (found.count, 1, *found[0].shape[:2])
        for i in range(found.count):
            expected = np.take(canonical, i, axis).T[::-1]
            np.testing.assert_allclose(found[i][..., 0], expected, atol=1e-6)


def test_times_scaling_colours_and_values_that_are_not_finite():
    values = RNG.random((4, 5, 6, 2)).astype(np.float32)
    values[0, 0, 0, 0] = np.nan
    volume("x.nii", values, cal_min=0.25, cal_max=0.75)
    found = nifti.Slices(Path("x.nii").read_bytes(), 2)
    expected = np.clip((values[..., 3, 1].T[::-1] - 0.25) / 0.5, 0, 1)
    np.testing.assert_allclose(found[6 + 3][..., 0], expected, atol=1e-6)
    assert found.count == 12 and found[0][-1, 0, 0] == 0
    windowed = nifti.Slices(Path("x.nii").read_bytes(), 2, (0.6, 0.2))[9][..., 0]
    np.testing.assert_allclose(windowed, np.clip((values[..., 3, 1].T[::-1] - 0.5) / 0.2, 0, 1), atol=1e-5)
    colours = RNG.integers(0, 256, (3, 3, 2, 3), np.uint8)
    structured = colours.view([("R", "u1"), ("G", "u1"), ("B", "u1")])[..., 0]
    nibabel.save(nibabel.Nifti1Image(structured, np.eye(4)), "y.nii")
    found = nifti.Slices(Path("y.nii").read_bytes(), 2)
    np.testing.assert_allclose(found[1], colours[:, :, 1].swapaxes(0, 1)[::-1] / 255, atol=1e-6)


def test_a_folder_of_volumes():
    Path("data").mkdir()
    for i in range(3):
        volume(f"data/sub-0{i}_T1w.nii.gz", RNG.integers(0, 99, (6, 7, 8 + i), np.int16))
    data = folder(path="data", resolution=8, channels=1, slices=[2, 12], hold_out=0.3)
    assert data.held_out_size in (6, 7, 8) and data.size == 6 + 7 + 8 - data.held_out_size
    assert "1 of 3 subjects held out" in data.notes
    streamed = folder(path="data", resolution=8, channels=1, slices=[2, 12], hold_out=0.3, stream=True)
    rows = np.arange(data.size)
    np.testing.assert_array_equal(streamed.take(rows)["x"], data.take(rows)["x"])
    other = folder(path="data", resolution=8, channels=1, slices=[2, 12], hold_out=0.3, stream=True, axis=1)
    assert streamed.fingerprint() != other.fingerprint()
    Path("data/flat.nii").write_bytes(nibabel.Nifti1Image(np.ones((5, 5), np.int16), np.eye(4)).to_bytes())
    Path("data/damaged.nii.gz").write_bytes(b"\x1f\x8bdamaged")
    skipping = folder(path="data", resolution=8, axis=0, on_error="skip")
    assert skipping.size == 18 and "2 skipped" in skipping.name
    for name, words in (
        ("damaged.nii.gz", "compression is damaged"),
        ("flat.nii", r"no axis 0: its shape is \[5, 5\]"),
    ):
        with pytest.raises(UserError, match=f"{name}: .*{words}"):
            folder(path="data", resolution=8, axis=0, on_error="refuse")
        Path("data", name).unlink()


def test_damaged_and_hostile_volumes_are_refused():
    whole = nibabel.Nifti1Image(np.ones((5, 5, 5), np.int16), np.eye(4)).to_bytes()
    head = nibabel.Nifti1Header.from_fileobj(io.BytesIO(whole))
    head.set_data_shape((30_000, 30_000, 30_000))
    bomb = io.BytesIO()
    head.write_to(bomb)
    for content, words in (
        (whole[:400], "incomplete"),
        (b"nothing" * 99, "not a NIfTI file"),
        (bomb.getvalue() + bytes(99), "larger than 2 GiB"),
    ):
        with pytest.raises(BadImage, match=words):
            nifti.Slices(content, 2)


# --- Options and kinds of files --------------------------------------------------------------------------------


def test_pictures_come_before_other_files_and_an_option_chooses(ct):
    write(ct, "data/0.dcm")
    np.save("data/labels.npy", np.arange(3))
    np.save("data/x.npy", RNG.integers(0, 65536, (9, 9, 5), np.uint16))
    arrays = folder(path="data", resolution=9, channels=5, bits=16, files="arrays")
    np.testing.assert_array_equal(arrays.arrays["x"][0], np.load("data/x.npy"))
    assert folder(path="data", resolution=8).passed_over == {".npy files": 2}
    from PIL import Image

    Image.new("L", (9, 9)).save("data/a.png")
    assert folder(path="data", resolution=8).passed_over == {".npy files": 2, ".dcm files": 1}
    assert folder(path="data", resolution=8, files="dicom").passed_over == {".npy files": 2, ".png files": 1}
    with pytest.raises(UserError, match=r"there are no NIfTI images .*: \.nii, \.nii\.gz"):
        folder(path="data", files="nifti")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["dataset.axis=3"], r"dataset\.axis=3: must be one of 0, 1, 2"),
        (["dataset.window=[40,0]"], r"dataset\.window=\[40, 0\]: must be greater than 0"),
        (["dataset.window=40"], r"dataset\.window=40: must be a list of 2 values"),
        (["dataset.slices=[5,5]"], r"dataset\.slices=\[5, 5\]: contains no slice"),
        (["dataset.slices=[90,95]"], r"dataset\.slices=\[90, 95\]: no file has these slices"),
        (["dataset.files=arrays"], "there are no arrays"),
        (["dataset.files=pictures"], "there are no pictures"),
        (["dataset.bits=12"], r"dataset\.bits=12: must be one of 8, 16"),
        (["dataset.hold_out=1"], r"dataset\.hold_out=1: must be less than 1"),
        (
            ["dataset.channels=2"],
            r"none of the 2 image files can be decoded \(the first: it has 1 channel, not 2\)",
        ),
    ],
)
def test_wrong_options_are_one_line(ct, options, words):
    write(ct, "data/0.dcm")
    write(ct, "data/1.dcm")
    with pytest.raises(UserError, match=words):
        experiment(["dataset=folder", "dataset.path=data", *options])


def test_options_of_scans_need_scans_and_a_missing_package_is_one_line(ct, monkeypatch):
    from PIL import Image

    Path("data").mkdir()
    Image.new("L", (9, 9)).save("data/a.png")
    for options in ({"window": [40, 400]}, {"slices": [0, 1]}):
        with pytest.raises(
            UserError, match=r"an option of DICOM and NIfTI files, but the images of data are pictures"
        ):
            folder(path="data", **options)
    write(ct, "scans/0.dcm")
    with pytest.raises(
        UserError, match=r"dataset\.axis=0: an option of NIfTI volumes, but the images of scans are dicom"
    ):
        folder(path="scans", axis=0)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        scans.importlib.util, "find_spec", lambda name, *rest: None if name == "pydicom" else found(name, *rest)
    )
    with pytest.raises(UserError, match=r"^dataset\.path=scans: .* needs the package pydicom.*gan_cli\[medical\]"):
        folder(path="scans")


# --- MedMNIST --------------------------------------------------------------------------------------------------


def medical(path: str = "bloodmnist_64.npz", shape: tuple[int, ...] = (12, 12, 3), **changes) -> str:
    """Write a file like those of MedMNIST, with 9, 5 and 4 images of three classes."""
    arrays = {}
    for split, count in (("train", 9), ("val", 5), ("test", 4)):
        arrays[f"{split}_images"] = RNG.integers(0, 256, (count, *shape), np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count, dtype=np.uint8) % 3)[:, None]
    np.savez(path, **{name: value for name, value in (arrays | changes).items() if value is not None})
    return path


def test_medmnist_has_its_official_splits_and_the_names_of_its_classes():
    path = medical()
    data, stored = medmnist(path=path), np.load(path)
    np.testing.assert_array_equal(data.arrays["x"], stored["train_images"])
    np.testing.assert_array_equal(data.held_out["x"], stored["test_images"])
    assert data.classes == 8 and data.class_names[6] == "neutrophil" and data.feature.shape == (12, 12, 3)
    other = medmnist(path=path, held_out="val")
    np.testing.assert_array_equal(other.held_out["label"], stored["val_labels"][:, 0])
    assert other.fingerprint() == data.fingerprint()
    grey = medmnist(path=medical("x.npz", (8, 8)))
    assert grey.feature.shape == (8, 8, 1) and grey.classes == 3 and grey.class_names == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train_labels": RNG.integers(0, 2, (9, 14))}, "14 labels for each image"),
        ({"test_images": None}, "no array test_images"),
        ({"shape": (8, 8, 8)}, "holds volumes"),
        ({"val_images": np.zeros((5, 9, 9), np.uint8)}, r"of the shapes \[9, 9\], \[12, 12, 3\]"),
        (
            {"val_labels": np.zeros(3, np.uint8)},
            r"val_labels must hold one class number .* uint8 \[3\] for 5 images",
        ),
    ],
)
def test_other_files_are_refused_by_medmnist(changes, words):
    with pytest.raises(UserError, match=rf"^dataset\.path=x\.npz: .*{words}"):
        medmnist(path=medical("x.npz", **changes))
    for path in ("missing.npz", "text.npz"):
        Path("text.npz").write_text("no archive")
        with pytest.raises(UserError, match=rf"^dataset\.path={path}: .* Choose a file of MedMNIST"):
            medmnist(path=path)


def test_pneumoniamnist():
    path = Path(os.environ.get("GAN_CLI_DATA", "none"), "pneumoniamnist.npz")
    if not path.exists():
        pytest.skip("GAN_CLI_DATA names no folder with pneumoniamnist.npz")
    data = medmnist(path=str(path))
    assert (data.size, data.held_out_size, data.class_names) == (4708, 624, ("normal", "pneumonia"))
    assert data.contents()["examples_per_class"] == [1214, 3494]
