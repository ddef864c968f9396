"""``gan-sample``: what a trained generator makes, as pictures, arrays or a program of its own."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_cli.cli.shell import check_target, exit_code, prepare_jax, show_warnings
from gan_cli.config.options import import_user_modules
from gan_cli.errors import UserError
from gan_cli.storage import files
from gan_cli.views import DRAWINGS

if TYPE_CHECKING:
    from gan_cli.trained.restore import RestoredRun
    from gan_cli.trained.sampling import Sampler
    from gan_cli.views.drawings import LatentRequest


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    return exit_code("gan-sample", lambda: _main(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gan-sample",
        description="Sample the generator of a run, by its averaged weights. Sample i of a seed is the "
        "same however many are asked for.",
    )
    add = parser.add_argument
    add("run", type=Path, metavar="RUN", help="the directory of a run, or of a member of an ensemble")
    add("--num", type=int, metavar="N", help="how many samples, or rows of a drawing (default: a picture full)")
    add("--seed", type=int, default=0, metavar="S", help="of the latents (default: 0)")
    add("--class", type=int, dest="label", metavar="K", help="the class to draw, of a conditional run")
    add("--out", type=Path, default=Path("samples.png"), metavar="FILE|DIR",
        help=".png: one picture; .npz: the array `samples`; .gif: a walk; else a folder of PNG files "
        "(default: samples.png)")  # fmt: skip
    add("--draw", choices=DRAWINGS, metavar="WHAT",
        help=f"what the picture shows: {', '.join(DRAWINGS)} (default: grid, of a .gif walk)")  # fmt: skip
    add("--latents", type=Path, metavar="FILE", help="an .npy, or an .npz with `latents`, [n, latent_dim]")
    add(
        "--truncation",
        type=float,
        metavar="T",
        help="draw latents anew whose values are not all within T of 0",
    )
    add("--raw", action="store_true", help="the generator as trained, not its moving average")
    add("--best", action="store_true", help="the checkpoint with the best figure, not the newest")
    add("--step", type=int, metavar="N", help="the checkpoint of this step")
    add("--export", type=Path, metavar="DIR", help="write the generator as StableHLO and safetensors instead")
    add("--modules", default="", metavar="A,B,...", help="modules of your own that a run's configuration names")
    return parser


def _main(options: argparse.Namespace) -> int:
    _check(options)
    show_warnings("gan-sample")
    prepare_jax()
    from gan_cli.trained import restore
    from gan_cli.trained.sampling import Sampler

    modules = import_user_modules([name for name in options.modules.split(",") if name])
    data = options.draw == "activations"
    run = restore.restore_run(
        options.run, data=data, best=options.best, step=options.step, raw=options.raw, modules=modules
    )
    if options.export:
        from gan_cli.trained import export

        for path in export.write(run, options.export):
            print(path)
        return 0
    sampler = Sampler(run.experiment.game)
    asked = _asked(options, sampler)
    suffix = options.out.suffix
    if suffix == ".npz" or suffix == "":
        told = _arrays(options, run, sampler, asked)
    else:
        told = _picture(options, run, sampler, asked)
    print(f"{told} of step {run.step}: {options.out}")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what no run could make right, before one is loaded."""
    if options.num is not None and options.num < 1:
        raise UserError(f"--num {options.num}: must be at least 1.")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"--seed {options.seed}: must be from 0 to 2^32 - 1.")
    if options.truncation is not None and not options.truncation > 0:
        raise UserError(f"--truncation {options.truncation}: must be greater than 0.")
    if options.truncation is not None and options.latents is not None:
        raise UserError("--truncation: is of latents that are drawn here; leave out --latents.")
    if options.best and options.step is not None:
        raise UserError("--best and --step: choose one.")
    if options.export:
        drawn = {
            "--draw": options.draw,
            "--num": options.num,
            "--class": options.label,
            "--latents": options.latents,
        }
        for name, value in (drawn | {"--truncation": options.truncation}).items():
            if value is not None:
                raise UserError(f"--export {options.export}: draws nothing; leave out {name}.")
        check_target(options.export / "generator.json")
        return
    if options.draw == "classes" and options.label is not None:
        raise UserError(f"--draw classes: draws them all; leave out --class {options.label}.")
    suffix = options.out.suffix
    if suffix not in (".png", ".npz", ".gif", ""):
        raise UserError(f"--out {options.out}: must end in .png, .npz or .gif, or name a folder.")
    if options.draw not in (None, "grid") and suffix in (".npz", ""):
        raise UserError(f"--draw {options.draw}: is drawn into a {'.gif' if options.draw == 'walk' else '.png'}.")
    if (options.draw == "walk") != (suffix == ".gif") and (options.draw, suffix) != (None, ".gif"):
        raise UserError(f"--out {options.out}: a walk is a .gif, everything else that is drawn a .png.")
    if suffix == "" and options.out.exists() and not options.out.is_dir():
        raise UserError(f"--out {options.out}: is a file, not a folder.")
    check_target(options.out if suffix else options.out / "0.png")


def _asked(options: argparse.Namespace, sampler: Sampler) -> LatentRequest:
    from gan_cli.views.drawings import LatentRequest

    classes = sampler.game.classes
    if options.label is not None and classes is None:
        raise UserError(f"--class {options.label}: this run knows no classes; model.conditional=projection does.")
    if options.label is not None and classes is not None and not 0 <= options.label < classes:
        raise UserError(f"--class {options.label}: there are classes 0 to {classes - 1}.")
    latents = None if options.latents is None else _latents(options.latents, sampler.game.latent_dim)
    return LatentRequest(options.seed, options.num, options.label, options.truncation, latents)


def _latents(path: Path, dim: int) -> Any:
    import numpy as np

    try:
        arrays = files.read_arrays(path)
        latents = np.asarray(arrays["latents" if "latents" in arrays else ""], np.float32)
    except KeyError as error:
        raise UserError(f"--latents {path}: holds no array `latents`.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"--latents {path}: cannot be read ({error}).") from error
    if latents.ndim != 2 or latents.shape[1] != dim or not len(latents) or not np.isfinite(latents).all():
        raise UserError(f"--latents {path}: is {latents.shape}, and finite numbers [n, {dim}] are needed.")
    return latents


def _arrays(options: argparse.Namespace, run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> str:
    """Write samples as one array, or as a folder of pictures; says what."""
    import numpy as np

    from gan_cli.views import pictures

    n = asked.number(pictures.SIDE**2)
    latents, labels = asked.draw(sampler, n)
    if options.out.suffix == ".npz":
        samples = np.concatenate([np.asarray(part) for part in sampler.stored(run.state, latents, labels)])
        arrays = {"samples": samples, "latents": latents} | ({} if labels is None else {"labels": labels})
        files.write(options.out, lambda file: np.savez(file, allow_pickle=False, **arrays))
        return f"{n:,} samples {samples.shape[1:]} {samples.dtype}"
    if not sampler.spec.is_image:
        raise UserError(f"--out {options.out}: points are no pictures: --out FILE.npz, or FILE.png.")
    from PIL import Image

    number, digits = 0, max(len(str(n - 1)), 5)
    for part in sampler.stored(run.state, latents, labels):
        for image in np.asarray(part):
            picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
            pictures.write(options.out / f"{number:0{digits}}.png", picture)
            number += 1
    return f"{n:,} pictures"


def _picture(options: argparse.Namespace, run: RestoredRun, sampler: Sampler, asked: LatentRequest) -> str:
    """Draw what was asked for; says what."""
    from gan_cli.views import drawings, pictures

    what = options.draw or ("walk" if options.out.suffix == ".gif" else "grid")
    if not sampler.spec.is_image:
        if what != "grid":
            raise UserError(f"--draw {what}: is of images, and this run makes points.")
        import numpy as np

        latents, labels = asked.draw(sampler, asked.number(pictures.POINTS))
        points = np.concatenate([np.asarray(part) for part in sampler.stored(run.state, latents, labels)])
        pictures.write(options.out, pictures.scatter(points, points))
        return "points"
    drawn = drawings.draw(what, run, sampler, asked)
    if isinstance(drawn, list):
        files.write_bytes(options.out, pictures.animate(drawn))
        return what
    pictures.write(options.out, drawn)
    return what


if __name__ == "__main__":
    raise SystemExit(main())
