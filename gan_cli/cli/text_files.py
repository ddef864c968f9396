"""Texts of ``gan-sample``: the prompt and the temperature of samples, and their text files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from gan_cli.errors import UserError
from gan_cli.storage import marks

if TYPE_CHECKING:
    import numpy as np

    from gan_cli.trained.restore import RestoredRun
    from gan_cli.trained.sampling import TaskRunner
    from gan_cli.views.drawings import InputRequest

NUMBER = 20  # number of texts by default
OPTIONS = {"temperature": "--temperature", "prompt": "--input"}  # the options that provide inputs of the task


def check(options: argparse.Namespace, runner: TaskRunner) -> None:
    """Raise a UserError if an option for texts, or the file of texts, does not fit the task."""
    from gan_cli.data.text.feature import Tokens

    noun, suffix = f"the {runner.main} of this run are {runner.feature.noun}", options.out.suffix
    texts = isinstance(runner.feature, Tokens)
    if texts and suffix not in (".txt", ".npz", ".png"):
        raise UserError(
            f"--out {options.out}: {noun}. Use --out FILE.txt, FILE.npz for arrays or FILE.png for a page, or "
            "leave out --out to print them."
        )
    if texts and options.draw not in (None, "grid"):
        raise UserError(f"--draw {options.draw}: needs images, and {noun}. Leave out --draw.")
    if texts and options.truncation is not None:
        raise UserError(f"--truncation {options.truncation:g}: {noun}, which have no latents. Use --temperature.")
    if suffix == ".txt" and not texts:
        raise UserError(f"--out {options.out}: {noun}, not texts. Use --out FILE.npz for arrays, or FILE.png.")
    if options.temperature is not None and "temperature" not in runner.drawn:
        raise UserError(
            f"--temperature {options.temperature:g}: the task {runner.name} of this run has no temperature. Leave "
            "out --temperature."
        )


def takes_prompt(options: argparse.Namespace, runner: TaskRunner) -> bool:
    """Whether ``--input`` is a text file with the beginning of all samples."""
    return options.input is not None and "prompt" in runner.drawn


def given(options: argparse.Namespace, runner: TaskRunner, rows: int) -> dict[str, np.ndarray]:
    """The temperature and the prompt that the options choose, by name, the same for each of ``rows`` rows.

    Raises:
        UserError: the prompt cannot be read, is longer than a sample, or has tokens that the vocabulary lacks.
    """
    import numpy as np

    from gan_cli.data.text.feature import Tokens
    from gan_cli.data.text.files import prompt_of, read

    found: dict[str, np.ndarray] = {}
    if options.temperature is not None:
        found["temperature"] = np.full(rows, options.temperature, np.float32)
    if takes_prompt(options, runner):
        feature, option = runner.task.inputs["prompt"], f"--input {options.input}"
        assert isinstance(feature, Tokens)
        text = read(options.input, option)
        if "\n" not in feature.vocabulary:  # the end of the line with which editors end a file
            text = text.removesuffix("\n")
        found["prompt"] = np.repeat(prompt_of(text, feature, option)[None], rows, axis=0)
    return found


def write(
    options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest, out: Path | None
) -> str | None:
    """Write texts to the file ``out``, or print them.

    Returns:
        A text that describes what was written, e.g. "20 samples". None if the texts are printed.
    """
    import numpy as np

    from gan_cli.data.text.feature import Tokens
    from gan_cli.views import texts

    feature = runner.feature
    assert isinstance(feature, Tokens)
    n = request.number(NUMBER)
    parts = runner.stored(run.state, request.draw(runner, n), request.seed)
    made = feature.texts(np.concatenate([np.asarray(part[runner.main]) for part in parts]))
    content = texts.content(made, texts.has_lines(feature.vocabulary))
    if out is None:
        print(texts.printable(content), end="")
        return None
    marks.write(out, content.encode(), run.origin(options.seed) if options.provenance else None)
    return f"{n:,} {feature.noun}"
