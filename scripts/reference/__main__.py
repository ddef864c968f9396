"""Writes configs/README.md, the reference of all options: ``python scripts/reference``.

With ``--check``, the script writes no file. It then returns exit status 1 if the file is out of date.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from gan_cli.config import compose
from gan_cli.config.reference import GROUPS, Choice, Option, Reference

PAGE = Path(__file__).parents[2] / "configs" / "README.md"
INTRODUCTION = """\
# All options

This page is generated from the YAML files, signatures and docstrings by `make reference`. The program prints the
same text: `gan-train --help`, `gan-train --help optim=adam`.

A command line chooses one file of a group, sets options, or both:

```sh
gan-train model=dcgan optim=sgd optim.lr=0.01
gan-train penalty=[r1,r2] penalty.r1.gamma=0.1             # several choices of one group
gan-train optim.discriminator.lr=4e-4                      # an option of one player
gan-train optim@optim.discriminator=sgd                    # another optimiser for one player
gan-train experiment=ring optim=sgd optim.lr=0.05          # an experiment, with another optimiser
gan-train --cfg job experiment=ring optim=sgd              # print what would run
```

- The groups `penalty`, `augment`, `metric` and `logger` take a list of choices. The other groups take one choice.
- Every option of `optim` can be set for one player: `optim.generator.lr`, `optim.discriminator.clip_norm`.
- An experiment sets choices and options in several groups. Choices and options on the command line take precedence.
  If the command line replaces a choice of the experiment, the options that the experiment sets in that group do not
  apply.
- An unknown option, a value of the wrong type or out of range, and a combination that cannot run end the program
  with exit status 2 and a message that names the key, the value and the choices. Nothing has been compiled or
  written then.
- `${oc.env:NAME}` reads an environment variable. It is allowed in `logger`, `dataset.path`, `dataset.data_dir` and
  `features.weights`.
- A folder given by `--config-dir` adds YAML files of your own to the groups; see [how to extend the
  program](../gan_cli/README.md).

Types: `[0, 1)` is a range that includes 0 and excludes 1. `null` means that the option is not set. Choices of an
option are separated by `|`.
"""


def page(reference: Reference) -> str:
    """The reference of all options as a Markdown page."""
    return "\n".join(_lines(reference)).rstrip() + "\n"


def _lines(reference: Reference) -> Iterator[str]:
    yield INTRODUCTION
    yield "## Options outside the groups\n"
    yield from _options(reference.root())
    for group in GROUPS:
        yield from _group(reference, group)


def _group(reference: Reference, group: str) -> Iterator[str]:
    yield f"## {group}\n"
    several = f" Several choices can be combined: `{group}=[A,B]`." if reference.takes_list(group) else ""
    yield f"{_sentence(reference.about(group))} Default: `{group}={reference.default(group)}`.{several}\n"
    choices = [reference.choice(group, name) for name in reference.choices(group)]
    yield from _table(("choice", "description"), [(f"`{c.name}`", c.summary) for c in choices])
    common = _common(choices)
    if common:
        yield "Options of every choice:\n"
        yield from _options(common)
    for choice in choices:
        own = [option for option in choice.options if option not in common]
        if own or choice.text or choice.yaml:
            yield f"### {group}={choice.name}\n"
            yield f"{choice.summary}\n"
        if choice.text:
            yield f"{choice.text}\n"
        if choice.yaml:
            yield f"```yaml\n{choice.yaml}\n```\n"
        if own:
            yield from _options(own)


def _common(choices: Sequence[Choice]) -> list[Option]:
    """The options that all choices with options share, with equal defaults and meanings.

    If fewer than three choices have options, the list is empty.
    """
    sets = [choice.options for choice in choices if choice.options]
    return [option for option in sets[0] if all(option in other for other in sets)] if len(sets) > 2 else []


def _options(options: Sequence[Option]) -> Iterator[str]:
    rows = [(f"`{o.key}`", o.type, f"`{o.default}`" if o.default else "", o.meaning) for o in options]
    yield from _table(("option", "type", "default", "meaning"), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "| " + " | ".join("---" for _ in head) + " |"
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
    yield ""


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def main() -> int:
    """Write or check the page, as the command line says, and return the exit status."""
    parser = argparse.ArgumentParser(prog="scripts/reference", description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail if the page is out of date, and write nothing")
    check = parser.parse_args().check
    with compose.session() as hydra:
        text = page(Reference(hydra))
    if not check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE}: out of date. Run `make reference`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
