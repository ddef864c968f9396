"""What a run of several members does beside a single run: its members' directories, and the table at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gan_cli.training.progress import Reporter
from gan_cli.training.recorder import RunRecorder


def directories(directory: Path, members: int) -> list[Path]:
    """The members' directories, each as complete as a single run's."""
    return [directory / "members" / str(i) for i in range(members)]


def report(
    reporter: Reporter,
    members: Sequence[RunRecorder],
    overrides: Sequence[Mapping[str, Any]],
    results: Sequence[tuple[str, dict[str, float]]],
) -> list[dict[str, Any]]:
    """Print a line for each member, from its ``(status, last metrics)``; returns the table of ``run.json``."""
    table = []
    for member, own, (status, final) in zip(members, overrides, results, strict=True):
        directory = str(member.directory)
        table.append({"directory": directory, "status": status, "overrides": dict(own), "final": final})
        named = " ".join(f"{key}={value}" for key, value in own.items())
        reporter.say(f"{status:9} {directory}  {named}  {_figures(final, member)}")
    return table


def _figures(final: dict[str, float], member: RunRecorder) -> str:
    losses = {player: final.get(f"{player}/loss") for player in member.experiment.game.players}
    shown = [f"{player} {loss:.4g}" for player, loss in losses.items() if loss is not None]
    if "distance" in final:
        shown.append(f"distance {final['distance']:.4g}")
    if member.collapse.facts:
        shown.append("collapse suspected")
    if member.eigenvalues:
        shown.append(member.eigenvalues["verdict"])
    if "modes" in final:
        shown.append(f"modes {final['modes']:.0f} of {final['modes_total']:.0f}, quality {final['quality']:.1%}")
    return "  ".join(shown)
