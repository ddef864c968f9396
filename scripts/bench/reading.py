"""Measures how fast images are read from a folder: JPEG files of 128x128, in gan_cli and in PyTorch.

Both sides decode the same files in batches of 64 in random order, with the same number of workers: threads in
gan_cli, and processes in PyTorch's DataLoader. gan_cli gives uint8, which the compiled step converts. PyTorch gives
float32, as in its tutorials. The sides are processes of their own, which are measured in turn. The time to the
first step is that of ``gan-train dataset=folder`` with the MLP.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import children
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

SIDE, BATCH = 128, 64
_LIMIT = 3600.0  # seconds of one answer


def make_files(folder: Path, count: int) -> None:
    """Write ``count`` JPEG files of smooth noise into ``folder``, in 100 sub-folders."""

    def write(part: int) -> None:
        rng = np.random.default_rng(part)
        place = folder / f"{part:03}"
        place.mkdir(parents=True)
        for i in range(part, count, 100):
            rough = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8))
            rough.resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(place / f"{i:06}.jpg", quality=90)

    with ThreadPoolExecutor() as pool:
        list(pool.map(write, range(min(100, count))))


def measure(count: int, repeats: int, workers: int) -> list[dict[str, Any]]:
    """Measure both sides ``repeats`` times on ``count`` files, and return the rows of the table."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "images"
        make_files(folder, count)
        for stream in ("true", "false"):
            seconds = [_first_step(Path(temporary), folder, stream) for _ in range(2)]
            rows.append(
                {"what": f"seconds to the first step, dataset.stream={stream}", "ours": round(seconds[1], 2)}
            )
        sides = {
            side: children.Process(
                [__file__, side, str(folder), str(workers)], dict(os.environ), Path(temporary, side)
            )
            for side in ("ours", "theirs")
        }
        try:
            for process in sides.values():
                process.answer(_LIMIT)
            images = min(max(count // BATCH, 1), 32) * BATCH
            rates: dict[str, list[float]] = {side: [] for side in sides}
            for _ in range(repeats):
                for side, process in sides.items():
                    rates[side].append(process.ask({"images": images}, _LIMIT)["rate"])
        finally:
            for process in sides.values():
                process.close()
    pairs = zip(rates["ours"], rates["theirs"], strict=True)
    row: dict[str, Any] = {side: round(statistics.median(found), 1) for side, found in rates.items()}
    ratio = round(statistics.median(a / b for a, b in pairs), 3)
    return [*rows, {"what": f"images per second, {count} files, {workers} workers", **row, "ratio": ratio}]


def _first_step(place: Path, folder: Path, stream: str) -> float:
    """Seconds from the start of ``gan-train`` to the end of the first step. The second call has a warm cache."""
    name, began = f"{stream}-{time.monotonic_ns()}", time.time()
    every = [f"train.{what}=1" for what in ("steps_per_call", "log_every")]
    command = [
        sys.executable, "-m", "gan_cli.cli.train", f"name={name}", "model=mlp", "dataset=folder", "logger=none",
        f"dataset.path={folder}", f"dataset.resolution={SIDE}", f"dataset.stream={stream}", "train.steps=2", *every,
        "train.sample_every=0", "train.checkpoint_every=0", f"train.batch_size={BATCH}", "dataset.layout=flat",
    ]  # fmt: skip
    subprocess.run(command, cwd=place, check=True, stdout=subprocess.DEVNULL)
    first = json.loads((place / "outputs" / name / "metrics.jsonl").read_text().splitlines()[0])
    return float(first["time"]) - began


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows as a table."""
    table = Table("what", "ours", "PyTorch", "ratio")
    for row in rows:
        table.add_row(
            row["what"],
            f"{row['ours']:,}",
            *(f"{row[key]:,}" if key in row else "-" for key in ("theirs", "ratio")),
        )
    Console(width=110).print(table)


# ------------------------------------------------------------------------------------------ the measured processes


def _ours(folder: Path, workers: int) -> None:
    from gan_cli.data.folder import folder as dataset

    data = dataset(path=str(folder), resolution=SIDE, stream=True, duplicates="keep", layout="flat")
    rng, pool = np.random.default_rng(0), ThreadPoolExecutor(workers)

    def read(images: int) -> None:
        # As in training, one call reads the batches of several steps.
        order = rng.permutation(data.size)[:images].reshape(-1, 1, BATCH)
        data.take(order, pool)

    _serve(read)


def _theirs(folder: Path, workers: int) -> None:
    import torch

    files = sorted(folder.glob("*/*.jpg"))

    class Images(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, i: int) -> Any:
            with Image.open(files[i]) as image:
                pixels = np.array(image.convert("RGB"))
            return torch.from_numpy(pixels).permute(2, 0, 1).float().div(127.5).sub(1)

    torch.set_num_threads(1)  # in the workers, as DataLoader sets it
    loader = torch.utils.data.DataLoader(
        Images(), BATCH, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=True
    )

    def batches() -> Iterator[Any]:
        while True:
            yield from loader

    source = batches()

    def read(images: int) -> None:
        for _ in range(images // BATCH):
            next(source)

    # Between two measurements, the workers have filled their queues: two batches for each.
    _serve(read, lambda: read(2 * workers * BATCH))


def _serve(read: Callable[[int], None], prepare: Callable[[], None] = lambda: None) -> None:
    """Answer each request with the images per second of ``read``. ``prepare`` is called before, and not timed."""
    read(BATCH)
    children.answer({"ready": True})
    for request in children.requests():
        prepare()
        began = time.perf_counter()
        read(request["images"])
        children.answer({"rate": request["images"] / (time.perf_counter() - began)})


if __name__ == "__main__":
    {"ours": _ours, "theirs": _theirs}[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
