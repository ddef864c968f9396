"""Every README.md: its commands run, its files exist, and the options in commands that need a cluster exist.

A page is a folder: its commands run there in order, so that a command may use the run of an earlier one. A fenced
block ``sh`` holds commands. The word ``needs=...`` after ``sh`` marks commands that need a cluster, a network, a
GPU or hours: the test only checks that their options exist. A block with ``file=NAME`` is written to that file
first.
"""

from __future__ import annotations

import logging
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import HERE, environment
from PIL import Image

from gan_cli.cli import eval as gan_eval
from gan_cli.cli import report, sample, train
from gan_cli.config import check, compose, quoting

ROOT = HERE.parent
PROGRAMS = {"gan-train": train, "gan-eval": gan_eval, "gan-sample": sample, "gan-report": report}
PAGES = sorted(
    str(path.relative_to(ROOT))
    for path in (
        *ROOT.glob("*.md"),
        *(ROOT / ".github").glob("*.md"),
        *(path for room in ("gan_cli", "configs", "scripts", "tests") for path in (ROOT / room).rglob("README.md")),
    )
)
# Appended to every gan-train command, where its configuration has the option.
SMALL = {
    "train.steps": 20,
    "train.steps_per_call": 10,
    "train.log_every": 10,
    "train.sample_every": 20,
    "train.checkpoint_every": 20,
    "train.eval_every": 20,
    "train.eval_samples": 500,
    "metric.train_on_synthetic.epochs": 1,
    "model.generator.width": 8,
    "model.discriminator.width": 8,
}
# Number of samples that gan-eval draws, where a page does not give one.
EVALUATED = 1000
# This page runs in the fast tests: it shows every option. The others run in the slow tests.
FAST = {"configs/README.md"}
QUESTIONS = {"--help", "--version", "--cfg", "--info", "--hydra-help", "--shell-completion"}
SWEEPS = {"--multirun", "-m"}


class Block(NamedTuple):
    """A fenced block: its language, the ``key=value`` words after it, and its text."""

    language: str
    words: dict[str, str]
    text: str


def blocks(page: str) -> list[Block]:
    found = re.findall(r"^```(\w+)([^\n]*)\n(.*?)^```$", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
    return [
        Block(language, dict(word.split("=", 1) for word in words.split() if "=" in word), text)
        for language, words, text in found
    ]


def commands(block: Block) -> list[list[str]]:
    """The commands of a block as words, without comments; a variable's assignment is a word of its own."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def smaller(arguments: list[str]) -> list[str]:
    """``arguments`` of gan-train with a short run and narrow networks."""
    if QUESTIONS & {argument.split("=")[0] for argument in arguments}:
        return arguments
    resumes = any(argument.startswith("resume=") and argument != "resume=auto" for argument in arguments)
    own, flags = split(arguments)
    with compose.session() as hydra:
        overrides = [*own, *compose.search_path(flags.get("--config-dir"))]
        overrides = [override for override in overrides if not override.startswith("resume=")]
        first = [override for override in overrides if not re.search(r"=[^\[{']*,", override)]  # without sweeps
        config = compose.ours(compose.compose(hydra, quoting.as_typed(first)))
    more = []
    for key, value in SMALL.items():
        *path, last = key.split(".")
        node = config
        for part in path:
            node = node.get(part) or {}
        if last in node and not (resumes and key.startswith("model.")):
            more.append(f"{key}={40 if resumes and key == 'train.steps' else value}")
    kept = [a for a in arguments if a.split("=")[0] not in {m.split("=")[0] for m in more}]
    return [*kept, *more]


def split(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """The overrides among ``arguments``, and the flags that take a value."""
    overrides, flags, rest = [], {}, list(arguments)
    while rest:
        argument = rest.pop(0)
        if argument in ("--config-dir", "--cfg", "--package", "--info", "-cd"):
            flags[argument] = rest.pop(0)
        elif not argument.startswith("-"):
            overrides.append(argument)
    return overrides, flags


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the images, series and samples that pages mention as the user's."""
    # Hydra's log configuration closes all log handlers, and absl's handler then closes the stream that pytest
    # captures.
    monkeypatch.setattr("hydra.core.utils.configure_log", lambda *arguments, **options: None)
    # Hydra adds a handler for the captured stream to the root logger when it answers --info and the like.
    monkeypatch.setattr(logging.root, "handlers", list(logging.root.handlers))
    monkeypatch.setattr(logging.root, "level", logging.root.level)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "photos").mkdir()
    for i in range(80):
        noise = np.random.default_rng(i).integers(0, 256, (40, 32, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / "photos" / f"{i}.png")
        for domain in "AB":
            folder = tmp_path / "scenes" / f"{'test' if i % 10 == 0 else 'train'}{domain}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise[:32] if domain == "A" else 255 - noise[:32]).save(folder / f"{i}.png")
    (tmp_path / "videos").mkdir()
    for i in range(70):
        frames = [Image.fromarray(noise[j : j + 16, :16]) for j in range(16)]
        frames[0].save(tmp_path / "videos" / f"{i}.gif", save_all=True, append_images=frames[1:])
    # A table of customers: an id, missing values, dates, groups, and visits that are at most as many as clicks.
    days = np.datetime64("2023-01-01") + np.random.default_rng(0).integers(0, 700, 600)
    lines = [
        f"{i},{20 + i % 60},{('Köln', 'Bonn', '')[i % 3]},{day},{i % 50},{i % 90},{i % 90 + i % 7},{i % 5 > 0}\n"
        for i, day in enumerate(days)
    ]
    header = "id,age,city,joined,branch,visits,clicks,churn\n"
    (tmp_path / "customers.csv").write_text(header + "".join(lines))
    # A public schema of the same columns.
    (tmp_path / "customers.yaml").write_text(
        "columns:\n  id: {kind: id}\n  age: {kind: integer, low: 0, high: 120}\n"
        "  city: {kind: categorical, categories: [Bonn, Köln], missing: true}\n"
        '  joined: {kind: date, low: "2020-01-01", high: "2030-12-31"}\n'
        "  branch: {kind: integer, low: 0, high: 100}\n  visits: {kind: integer, low: 0, high: 1000}\n"
        '  clicks: {kind: integer, low: 0, high: 1000}\n  churn: {kind: boolean, categories: ["False", "True"]}\n',
        encoding="utf-8",
    )
    (tmp_path / "mine.txt").write_text("It is a truth universally acknowledged. " * 200)
    (tmp_path / "captions.txt").write_text("a cat on a mat .\na dog .\n" * 60)
    (tmp_path / "prompt.txt").write_text("ROMEO\n")
    levels = np.exp(np.random.default_rng(0).standard_normal((240, 4)) / 50)
    for name, header in (
        ("prices", "a,b,c,d"),
        ("sensors", "sensor,hour,load,heat"),
        ("past", "AAPL,GOOG,IBM,MSFT"),
    ):
        rows = [
            [i // 120, i % 120, *row[2:]] if name == "sensors" else row for i, row in enumerate(levels.tolist())
        ]
        lines = [header, *(",".join(map(str, row)) for row in rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    digits = np.random.default_rng(0).integers(0, 256, (600, 28, 28, 1), np.uint8)
    np.savez(tmp_path / "samples.npz", samples=digits)
    return tmp_path


def run(words: list[str]) -> int:
    """The exit status of one command of a page."""
    if words[:3] == ["python", "-m", "gan_cli"]:
        words = ["gan-train", *words[3:]]
    if "=" in words[0]:  # VARIABLE=VALUE gan-train ...
        name, value = words[0].split("=", 1)
        arguments = smaller(words[2:])
        done = subprocess.run(
            [sys.executable, "-m", "gan_cli", *arguments],
            env=environment(**{name: value, "PYTHONPATH": f"{HERE}{os.pathsep}{Path.cwd()}"}),
            capture_output=True,
            text=True,
        )
        assert words[1] == "gan-train" and done.returncode == 0, done.stderr[-2000:]
        return 0
    arguments = smaller(words[1:]) if words[0] == "gan-train" else words[1:]
    if words[0] == "gan-eval" and not {"--num", "--verify"} & set(arguments):
        arguments = [*arguments, "--num", str(EVALUATED)]
    try:
        return PROGRAMS[words[0]].main(arguments)
    except SystemExit as end:  # argparse, for --help and --version
        return int(end.code or 0)


def check_page(page: str, capsys) -> None:
    for block in blocks(page):
        if "file" in block.words:
            path = Path(block.words["file"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)
        if block.language != "sh":
            continue
        for words in commands(block):
            if "needs" in block.words:
                options_exist(words)
            elif words[0] in PROGRAMS or words[:3] == ["python", "-m", "gan_cli"] or "gan-train" in words[1:2]:
                status = run(words)
                out, err = capsys.readouterr()
                assert status == 0, f"{shlex.join(words)}\n{out[-1000:]}\n{err[-2000:]}"
            else:
                outside(words)


def options_exist(words: list[str]) -> None:
    """The options of a gan-train command that cannot run here, which may be wrapped by another program."""
    if "gan-train" in words[:2]:
        words = words[words.index("gan-train") + 1 :]
        if not (SWEEPS | QUESTIONS) & set(words):
            overrides, flags = split(words)
            overrides = [override for override in overrides if not override.startswith("resume=")]
            with compose.session() as hydra:
                config = compose.compose(hydra, [*overrides, *compose.search_path(flags.get("--config-dir"))])
                check.check(compose.ours(config), compose.modules(compose.parse(hydra, overrides), config))


def outside(words: list[str]) -> None:
    """A command that is not this program's: the target or file that it names exists."""
    if words[0] == "make":
        makefile = (ROOT / "Makefile").read_text()
        assert len(words) == 1 or re.search(rf"^{re.escape(words[1])}:", makefile, re.MULTILINE), words
        return
    paths = [word.split("::")[0] for word in words if word.startswith(("scripts/", "tests/", ".ci/"))]
    assert paths or words[0] in {"pip", "git", ".", "cd", "tensorboard", "eval"}, f"not tested: {shlex.join(words)}"
    if paths:  # the others may be folders that the command makes
        assert (ROOT / paths[0]).exists(), paths[0]


@pytest.mark.parametrize(
    "page", [page if page in FAST else pytest.param(page, marks=pytest.mark.slow) for page in PAGES]
)
def test_the_commands_of_a_page(page, folder, capsys):
    check_page(page, capsys)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / page).parent / path) if path else ROOT / page
        assert file.exists(), f"{page}: {target}"
        if anchor:
            headings = re.findall(
                r"^#+ (.*)$", (file / "README.md" if file.is_dir() else file).read_text(), re.MULTILINE
            )
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page}: {target}"


def test_the_first_page_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
