"""The text of ``gan-train --help``: an overview of all groups, or the options of choices that the user names."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence

from gan_cli.config import compose
from gan_cli.config.reference import GROUPS, Option, Reference
from gan_cli.errors import UserError, nearest

_USAGE = """\
gan-train: train a generative adversarial network, composed from YAML files.

Usage: gan-train [GROUP=CHOICE | OPTION=VALUE]...

"""
_FLAGS = """\
Flags
  --help GROUP=CHOICE     every option of a choice: gan-train --help optim=adam
  --cfg job               print the configuration that would run, without running it
  --multirun, -m          train all combinations: gan-train -m optim=sgd,adam seed=1,2
  --config-dir DIR        also read the YAML files of the folder DIR
  --version               print the version
  --hydra-help            all flags of Hydra, such as --info and --shell-completion

Examples
  gan-train model=mlp optim=adam
  gan-train model=dcgan optim.lr=1e-4 optim.discriminator.lr=4e-4
  gan-train resume=outputs/2026-11-24/09-30-00 train.steps=80000

gan-eval, gan-sample and gan-report evaluate, sample and describe runs; each has --help."""
_GAP = 2  # spaces between two columns


def print_help(arguments: Sequence[str], config_dir: str | None) -> None:
    """Print the help for ``arguments``. Without arguments, print an overview of all groups.

    Args:
        arguments: the groups and choices to describe. Each argument has the form ``GROUP``, ``GROUP=CHOICE`` or
            ``GROUP=[A,B]``. An argument ``modules=[A,B]`` names Python modules of the user.
        config_dir: a folder with the user's configuration files, or None.

    Raises:
        UserError: an argument names an unknown group or choice.
    """
    modules = [argument for argument in arguments if argument.startswith("modules=")]
    subjects = [argument for argument in arguments if argument not in modules]
    with compose.session() as hydra:
        reference = Reference(hydra, config_dir, modules)
        parts = [_subject(reference, subject) for subject in subjects] or [_overview(reference)]
        text = "\n\n".join("\n".join(lines).rstrip() for lines in parts)
    print(text)


def _overview(reference: Reference) -> Iterator[str]:
    yield _USAGE + "Groups"
    for group in GROUPS:
        yield from _group(reference, group)
    yield "Options outside the groups"
    yield from _options(reference.root())
    yield ""
    yield _FLAGS


def _group(reference: Reference, group: str) -> Iterator[str]:
    several = f"; several: {group}=[A,B]" if reference.takes_list(group) else ""
    yield f"{group}: {reference.about(group).rstrip('.')} (default: {reference.default(group)}{several})"
    choices = reference.choices(group)
    yield from _table([(name, summary) for name, summary in choices.items()])
    yield ""


def _subject(reference: Reference, subject: str) -> Iterator[str]:
    group, equals, names = subject.partition("=")
    if group not in GROUPS:
        raise UserError(
            f"--help {subject}: there is no group of this name.{nearest(group, GROUPS)}\n"
            f"Groups: {', '.join(GROUPS)}. Example: --help optim=adam"
        )
    if not equals:
        yield from _group(reference, group)
        names = reference.default(group)
        if names in ("[]", "none"):
            return
    for name in names.strip("[]").split(","):
        yield from _choice(reference, group, name.strip())


def _choice(reference: Reference, group: str, name: str) -> Iterator[str]:
    choice = reference.choice(group, name)
    yield f"{group}={name}"
    for paragraph in (choice.summary, *choice.text.split("\n\n")):
        if paragraph:
            yield _wrapped(paragraph, 2)
            yield ""
    yield from _options(choice.options)
    if choice.yaml:
        yield textwrap.indent(choice.yaml, "  ")
    elif not choice.options:
        yield "  This choice has no options."
    if group == "optim":
        yield ""
        yield _wrapped(
            "To set an option for one player, name the player: optim.discriminator.lr=4e-4. "
            "To choose another optimiser for one player, write optim@optim.discriminator=sgd.",
            2,
        )
    yield ""


def _options(options: Sequence[Option]) -> Iterator[str]:
    """The lines that describe options. A line with key, default and type precedes the meaning of an option."""
    key_width = max((len(option.key) for option in options), default=0)
    value_width = max((len(option.default) for option in options), default=0)
    for option in options:
        gap = " " * _GAP
        yield f"  {option.key:{key_width}}{gap}{option.default:{value_width}}{gap}{option.type}".rstrip()
        if option.meaning:
            yield _wrapped(option.meaning, 6)


def _table(rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        lead = f"  {name:{width}}{' ' * _GAP}"
        yield textwrap.fill(text or "-", _width(), initial_indent=lead, subsequent_indent=" " * len(lead))


def _wrapped(text: str, indent: int) -> str:
    margin, width = " " * indent, _width()
    lines = [(line, margin + "  " if line.startswith("- ") else margin) for line in text.splitlines()]
    return "\n".join(
        textwrap.fill(line, width, initial_indent=margin, subsequent_indent=hanging) for line, hanging in lines
    )


def _width() -> int:
    return max(60, min(shutil.get_terminal_size((110, 24)).columns, 120))
