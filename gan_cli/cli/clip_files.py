"""Files of clips for ``gan-sample``: film strips, animations and MP4 files, and grids of contents and motions."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from gan_cli.cli.outputs import origin_of
from gan_cli.errors import UserError
from gan_cli.storage import marks

if TYPE_CHECKING:
    import numpy as np

    from gan_cli.trained.restore import RestoredRun
    from gan_cli.trained.sampling import TaskRunner
    from gan_cli.views.drawings import InputRequest


def check(options: argparse.Namespace, runner: TaskRunner) -> None:
    """Raise a UserError if an option for clips does not fit the task, or the task's clips do not fit an option."""
    from gan_cli.data.video.feature import Video
    from gan_cli.data.video.files import need_av

    if not isinstance(runner.feature, Video):
        noun = f"the {runner.main} of this run are {runner.feature.noun}, not clips"
        if options.out.suffix == ".mp4":
            raise UserError(
                f"--out {options.out}: {noun}. Use --out FILE.png for a picture, or FILE.npz for arrays."
            )
        if options.draw == "codes":
            raise UserError(f"--draw codes: {noun}. Leave out --draw, or choose another drawing.")
        return
    if options.draw not in (None, "grid", "codes"):
        raise UserError(
            f"--draw {options.draw}: needs images, and the {runner.main} of this run are clips. Use --draw codes, "
            "or leave out --draw."
        )
    if options.out.suffix == "":
        raise UserError(
            f"--out {options.out}: the {runner.main} of this run are clips. Use --out FILE.gif or FILE.mp4 for an "
            "animation, FILE.png for a film strip, or FILE.npz for an array."
        )
    if options.out.suffix == ".mp4":
        need_av(f"--out {options.out}")


def write(options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest) -> str:
    """Write clips as a film strip (PNG) or as an animation of a grid of clips (GIF, MP4).

    Returns:
        A text that describes what was written, e.g. "16 clips".
    """
    from gan_cli.data.video.files import mp4
    from gan_cli.views import clips, pictures

    made, columns = _clips(options, run, runner, request)
    # A task that draws latents and receives frames, i.e. a prediction, keeps these frames in its clips.
    origin = origin_of(options, run, mixed=bool(runner.given) and "latents" in runner.drawn)
    if options.out.suffix == ".png":
        pictures.write(options.out, clips.strip(made), origin)
    elif options.out.suffix == ".gif":
        marks.write(options.out, clips.animation(made, columns), origin)
    else:
        marks.write(options.out, mp4([frame.convert("RGB") for frame in clips.grid_frames(made, columns)]), origin)
    return f"{len(made):,} clip{'s' if len(made) > 1 else ''}"


def _clips(
    options: argparse.Namespace, run: RestoredRun, runner: TaskRunner, request: InputRequest
) -> tuple[np.ndarray, int | None]:
    """A pair: stored clips ``[n, frames, h, w, c]``, and the number of columns of their grid, or None."""
    from gan_cli.views import clips, drawings

    if options.draw == "codes":
        return drawings.codes(run, runner, request)
    n = request.number(clips.COUNT)
    return drawings.images(run, runner, request.draw(runner, n), request.seed), None
