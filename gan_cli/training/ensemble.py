"""Functions of the training loop for ensembles: the members' directories, and a summary at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_cli.training.progress import Reporter
from gan_cli.training.recorder import RunRecorder


def directories(directory: Path, members: int) -> list[Path]:
    """A list with the directory of each member, which contains the same files as the directory of a run.

    Args:
        directory: the directory of the ensemble.
        members: the number of members.
    """
    return [directory / "members" / str(i) for i in range(members)]


def report(
    reporter: Reporter,
    members: Sequence[RunRecorder],
    overrides: Sequence[Mapping[str, Any]],
    results: Sequence[tuple[str, dict[str, float]]],
) -> list[dict[str, Any]]:
    """Print one line for each member, and return the list of members for the ensemble's ``run.json``.

    Args:
        reporter: prints the lines.
        members: the recorders of the members.
        overrides: for each member, a mapping from the dotted keys of the varied options to their values.
        results: for each member, a pair of its status and a mapping from the names of its last metrics to values.
    """
    table = []
    for member, options, (status, final) in zip(members, overrides, results, strict=True):
        directory = str(member.directory)
        table.append({"directory": directory, "status": status, "overrides": dict(options), "final": final})
        varied = " ".join(f"{key}={value}" for key, value in options.items())
        reporter.say(f"{status:9} {directory}  {varied}  {_figures(final, member)}")
    return table


def _figures(final: dict[str, float], member: RunRecorder) -> str:
    losses = {player: final.get(f"{player}/loss") for player in member.experiment.game.players}
    figures = [f"{player} {loss:.4g}" for player, loss in losses.items() if loss is not None]
    if "distance" in final:
        figures.append(f"distance {final['distance']:.4g}")
    figures += [f"{m.name} suspected" for m in member.collapses.values() if m.suspected_at is not None]
    if member.eigenvalues:
        figures.append(member.eigenvalues["verdict"])
    if "modes" in final:
        figures.append(f"modes {final['modes']:.0f} of {final['modes_total']:.0f}, quality {final['quality']:.1%}")
    return "  ".join(figures)
