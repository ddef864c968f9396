"""Provenance marks: read back by other programs, and compared with the content of the file."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from gan_cli.cli.eval import main as gan_eval
from gan_cli.storage import marks
from gan_cli.views import pictures

ORIGIN = marks.Origin("digits", "ab12", 500, 7)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 5, 6, 3), np.uint8)


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    """The chunks of a PNG file, by the PNG specification (ISO/IEC 15948, section 5)."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        body = content[at + 8 : at + 8 + length]
        (crc,) = struct.unpack(">I", content[at + 8 + length : at + 12 + length])
        assert crc == zlib.crc32(kind + body)
        found.append((kind, body))
        at += length + 12
    return found


def of_pixels(image: Image.Image) -> str:
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.convert("RGBA").tobytes()).hexdigest()


def test_the_mark_of_a_png_file():
    """Pillow and a plain reader find the mark, and the hash is that of the documented definition."""
    path = Path("a.png")
    pictures.write(path, Image.fromarray(PIXELS[0]), ORIGIN)
    (text,) = (body for kind, body in chunks(path.read_bytes()) if kind == b"tEXt")
    mark = json.loads(text.removeprefix(b"Comment\0"))
    with Image.open(path) as image:
        assert json.loads(image.info["Comment"]) == mark
        assert mark["sha256"] == of_pixels(image)
    assert {name: mark[name] for name in ("run", "fingerprint", "step", "seed")} == {
        "run": "digits", "fingerprint": "ab12", "step": 500, "seed": 7,
    }  # fmt: skip
    (xmp,) = (body for kind, body in chunks(path.read_bytes()) if kind == b"iTXt")
    assert xmp.startswith(b"XML:com.adobe.xmp\0") and b"digitalsourcetype/trainedAlgorithmicMedia" in xmp
    assert marks.verify(path) == (mark, True)


def test_a_changed_pixel_is_noticed_and_a_lossless_copy_fits():
    path = Path("a.png")
    pictures.write(path, Image.fromarray(PIXELS[0]), ORIGIN)
    with Image.open(path) as image:
        text, kept = PngInfo(), image.convert("RGBA")
        text.add_text("Comment", image.info["Comment"])
    kept.save("copy.png", pnginfo=text, compress_level=0)
    assert marks.verify(Path("copy.png")).fits
    kept.putpixel((2, 3), (*kept.getpixel((2, 3))[:2], 255 - kept.getpixel((2, 3))[2], 255))
    kept.save("changed.png", pnginfo=text)
    verdict = marks.verify(Path("changed.png"))
    assert verdict.mark is not None and not verdict.fits
    kept.save("stripped.png")
    assert marks.verify(Path("stripped.png")) == (None, False)


def test_the_case_of_a_suffix_does_not_matter():
    pictures.write(Path("a.png"), Image.fromarray(PIXELS[0]), ORIGIN)
    Path("a.png").rename("a.PNG")
    assert marks.verify(Path("a.PNG")).fits


def test_all_bits_of_a_16_bit_picture_count():
    """Pillow reads 8 of the 16 bits of colours. A change of the lowest bit is noticed nevertheless."""
    image = PIXELS[0].astype(np.uint16) * 257
    suffix, content = pictures.file_of(image)
    marks.write(Path("a.png"), content, ORIGIN)
    image[1, 1, 1] ^= 1
    changed = [*chunks(pictures.file_of(image)[1])]
    marked = [changed[0], *(one for one in chunks(Path("a.png").read_bytes()) if one[0] == b"tEXt"), *changed[1:]]
    parts = [struct.pack(">I", len(b)) + k + b + struct.pack(">I", zlib.crc32(k + b)) for k, b in marked]
    Path("b.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    assert suffix == ".png" and marks.verify(Path("a.png")).fits and not marks.verify(Path("b.png")).fits


def test_the_mark_of_a_gif_file():
    path = Path("a.gif")
    frames = [Image.fromarray(one) for one in PIXELS]
    marks.write(path, pictures.animate(frames), ORIGIN)
    with Image.open(path) as image:
        mark, expected = json.loads(image.info["comment"]), hashlib.sha256()
        assert image.n_frames == 3
        for frame in range(3):
            image.seek(frame)
            expected.update(f"{image.width}x{image.height}\n".encode() + image.convert("RGBA").tobytes())
    assert mark["sha256"] == expected.hexdigest() and marks.verify(path).fits
    with Image.open(io.BytesIO(pictures.animate(frames[::-1]))) as other:
        other.save("b.gif", save_all=True, comment=json.dumps(mark))
    assert not marks.verify(Path("b.gif")).fits


def test_arrays():
    """NumPy reads the arrays. A changed value or name is noticed, and a compressed copy of the archive fits."""
    arrays = {"samples": PIXELS, "file": np.arange(3.0)}
    marks.write_arrays(Path("a.npz"), arrays, ORIGIN)
    with np.load("a.npz") as found:
        assert all(np.array_equal(found[name], x) for name, x in arrays.items())
    assert marks.verify(Path("a.npz")).fits
    with zipfile.ZipFile("a.npz") as archive:
        comment, members = archive.comment, {name: archive.read(name) for name in archive.namelist()}

    def verdict(**members: bytes) -> bool:
        with zipfile.ZipFile("b.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.comment = comment
            for name, content in members.items():
                archive.writestr(name, content)
        return marks.verify(Path("b.npz")).fits

    first, second = members.values()
    assert json.loads(comment)["content"] == "arrays" and verdict(**members)
    assert not verdict(**{"samples.npy": first, "other.npy": second})
    assert not verdict(**{"samples.npy": first[:-1] + bytes([first[-1] ^ 1]), "file.npy": second})

    file = io.BytesIO()
    np.save(file, PIXELS[0])
    marks.write(Path("a.npy"), file.getvalue() + b"gan-sample", ORIGIN)
    assert np.array_equal(np.load("a.npy"), PIXELS[0]) and marks.verify(Path("a.npy")).fits
    content = Path("a.npy").read_bytes()
    assert content.endswith(b"gan-sample")
    at = len(file.getvalue()) - 1
    Path("a.npy").write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
    assert not marks.verify(Path("a.npy")).fits


def test_rows_of_a_parquet_file_do_not_depend_on_their_groups():
    table = pa.table({"age": pa.array([30, None, 41]), "city": ['Bonn "B"', "", None], "height": [1.5, 1e-9, 1e20]})
    digest = marks.RowDigest()
    digest.update(table)
    with pa.parquet.ParquetWriter("a.parquet", table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(marks.parquet_metadata(digest, ORIGIN))
    assert marks.verify(Path("a.parquet")).fits

    def verdict(changed: pa.Table) -> bool:
        metadata = pa.parquet.read_metadata("a.parquet").metadata
        changed = changed.replace_schema_metadata({marks.KEY: metadata[marks.KEY]})
        pa.parquet.write_table(changed, "b.parquet", row_group_size=1, compression="zstd")
        return marks.verify(Path("b.parquet")).fits

    assert verdict(table)
    assert not verdict(table.take([0, 2, 1]))
    assert not verdict(table.slice(0, 2))
    assert not verdict(table.rename_columns(["age", "town", "height"]))
    assert not verdict(table.set_column(1, "city", pa.array(['Bonn "B"', None, None])))


def test_files_that_do_not_verify(capsys):
    Path("damaged.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Path("plain.csv").write_text("a,b\n")
    assert gan_eval(["--verify", "damaged.png", "plain.csv"]) == 1
    printed = capsys.readouterr().out
    assert "damaged.png: cannot be read" in printed and "plain.csv: no mark.\n1 unreadable, 1 without" in printed
    assert gan_eval(["--verify", "missing.png"]) == 2
    assert gan_eval(["--verify", "plain.csv", "--num=5"]) == 2
    assert "--verify: evaluates nothing. Leave out --num." in capsys.readouterr().err
