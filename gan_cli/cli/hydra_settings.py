"""The settings and flags of Hydra that gan-train does not support: each is refused by name, with a remedy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gan_cli.errors import UserError

# Beginnings of the keys of settings, and the reason and the remedy.
_NEVER = {
    "hydra.job.env_copy": "a run and the jobs of a sweep inherit all environment variables. Leave it out.",
    "hydra.job.override_dirname": "Hydra computes this setting. Leave it out.",
    "hydra.job.config_name": "Hydra computes this setting. Leave it out.",
    "hydra.runtime": "Hydra computes this setting. Leave it out.",
    "hydra.overrides": "Hydra computes this setting. Leave it out.",
    "hydra.help": "gan-train --help prints the text of this program. Leave it out.",
    "hydra/help": "gan-train --help prints the text of this program. Leave it out.",
    "hydra.hydra_help": "is not supported. Leave it out.",
    "hydra/hydra_help": "is not supported. Leave it out.",
}
_LONGEST = 255  # bytes of a file name, the limit of the usual file systems
_SWEEPS = "applies to sweeps only. Add --multirun, or leave it out."
_IN_A_RUN = dict.fromkeys(("hydra.sweep", "hydra/sweeper", "hydra.launcher", "hydra/launcher"), _SWEEPS)
_IN_A_SWEEP = {
    "hydra.run.dir": "applies to single runs only. Set the directory of a sweep with name=NAME.",
    "hydra.job.num": "the sweep numbers its jobs. Leave it out.",
    "hydra.job.id": "the sweep numbers its jobs. Leave it out.",
}


def check_flags(flags: Any) -> None:
    """Raise a UserError if a flag on the command line is not supported, or applies with another flag only.

    Args:
        flags: the parsed command line.
    """
    if flags.config_path or flags.config_name:
        raise UserError(
            "--config-path and --config-name: are not supported. Use --config-dir DIR to add your "
            "configuration files."
        )
    if flags.experimental_rerun:
        raise UserError("--experimental-rerun: is not supported. To continue a run, use resume=DIR.")
    if (flags.package or flags.resolve) and not flags.cfg:
        raise UserError("--package and --resolve: apply to --cfg only, e.g. --cfg job --package optim --resolve.")
    if flags.run and (flags.multirun or flags.cfg or flags.info):
        raise UserError("--run: excludes --multirun, --cfg and --info. Choose one of them.")
    if flags.config_dir and any(override.startswith("hydra.searchpath=") for override in flags.overrides):
        raise UserError(
            f"--config-dir {flags.config_dir} and hydra.searchpath: exclude each other. Name all folders in one "
            "setting: 'hydra.searchpath=[file://DIR,file://OTHER]'."
        )


def check_directory(directory: Path) -> None:
    """Raise a UserError if Hydra or the file system cannot use the name of a run's or a sweep's directory."""
    if any(len(os.fsencode(part)) > _LONGEST for part in directory.parts):
        raise UserError(f"{str(directory)[:60]}...: the name is too long. A name has at most {_LONGEST} bytes.")
    if "${" in str(directory.absolute()):
        raise UserError(
            f"{directory.absolute()}: Hydra would read ${{ in the path as an interpolation. Rename the folder, or "
            "choose another name."
        )


def check_settings(parsed: Sequence[Any], composed: Any, *, sweep: bool) -> None:
    """Raise a UserError if a setting of Hydra would have no effect, or is not supported.

    Args:
        parsed: the parsed overrides on the command line.
        composed: the composed configuration, including the ``hydra`` node.
        sweep: whether the command starts a sweep.
    """
    refused = _NEVER | (_IN_A_SWEEP if sweep else _IN_A_RUN)
    for override in parsed:
        for prefix, reason in refused.items():
            if override.key_or_group.startswith(prefix):
                raise UserError(f"{override.input_line}: {reason}")
    if composed.hydra.job.chdir:
        raise UserError(
            f"hydra.job.chdir={composed.hydra.job.chdir}: is not supported, because relative paths such as "
            "dataset.path would change their meaning. Leave it out."
        )
    mode = composed.hydra.mode
    if mode is not None and mode.name != ("MULTIRUN" if sweep else "RUN"):
        raise UserError(
            f"hydra.mode={mode.name}: a flag selects the mode. Use --multirun for a sweep, and no flag for a run."
        )
