"""Descriptions of all groups, choices and options, for ``gan-train --help`` and ``configs/README.md``.

Names and default values come from the YAML files, types and ranges from signatures, and meanings from docstrings.
This module does not import JAX.
"""

from __future__ import annotations

import functools
import types as pytypes
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from omegaconf import OmegaConf

from gan_cli.config import compose
from gan_cli.config.docstrings import Docstring, first_sentence, parse, reflowed
from gan_cli.config.options import UNKNOWN, options_of
from gan_cli.config.schema import Card, Schema, Train
from gan_cli.errors import UserError, nearest
from gan_cli.types import Range

# Groups whose files set values in other groups. The composed configuration has no node for these groups.
OVERLAYS = {
    "experiment": "complete set-ups. Options and choices on the command line take precedence.",
    "hparams_search": "searches over options with Optuna, for --multirun.",
}
GROUPS = (
    *(
        "model",
        "loss",
        "penalty",
        "augment",
        "optim",
        "strategy",
        "estimator",
        "game",
        "dataset",
        "sampler",
        "metric",
    ),
    *("features", "train", "card", "logger", *OVERLAYS),
)
_SECTIONS = {"train": Train, "card": Card}  # groups whose options a class declares, without a `_target_`
ROOT = ("seed", "name", "init_from", "init_parts", "resume", "dry_run", "modules")


@dataclass(frozen=True)
class Option:
    """The description of one option.

    Attributes:
        key: the dotted key.
        type: the type and range, in words.
        default: the default value as written in YAML, ``required``, or empty if the default is unknown.
        meaning: the entry of the option in the docstring's ``Args:``.
    """

    key: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True)
class Choice:
    """The description of one choice, a YAML file of a group.

    Attributes:
        name: the file's name without ``.yaml``.
        summary: the first line of the description.
        text: the rest of the description, from the file's leading comment and the target's docstring.
        options: the options that the choice adds to the configuration.
        yaml: the content of the file without comments if the choice sets values in other groups, otherwise empty.
    """

    name: str
    summary: str
    text: str
    options: tuple[Option, ...]
    yaml: str = ""


class Reference:
    """Describes the groups and choices of the shipped configurations and of the user's ``--config-dir``.

    Args:
        hydra: Hydra, initialised with the shipped configurations.
        config_dir: folder of the user's configurations, or None.
        overrides: command-line overrides for the composition, for example ``modules=[my_module]``.
    """

    def __init__(self, hydra: Any, config_dir: str | None = None, overrides: Sequence[str] = ()) -> None:
        self._hydra = hydra
        self._overrides = [*overrides, *compose.search_path(config_dir)]
        shipped: Traversable = resources.files("gan_cli.configs")
        self._folders = [shipped, *([Path(config_dir)] if config_dir else [])]
        defaults = yaml.safe_load(shipped.joinpath("config.yaml").read_text(encoding="utf-8"))["defaults"]
        chosen = [entry for entry in defaults if isinstance(entry, dict)]
        self._defaults = {group: value for entry in chosen for group, value in entry.items()}
        self._about = parse(Schema.__doc__).meanings | OVERLAYS

    def about(self, group: str) -> str:
        """One sentence that describes a group."""
        return self._about[group]

    def default(self, group: str) -> str:
        """The default choice of a group, as written on the command line."""
        value = self._defaults[group]
        return f"[{','.join(value)}]" if isinstance(value, list) else "none" if value is None else str(value)

    def takes_list(self, group: str) -> bool:
        """Whether several choices of a group can be combined, as in ``penalty=[r1,r2]``."""
        return isinstance(self._defaults[group], list)

    def choices(self, group: str) -> dict[str, str]:
        """A dictionary from the names of a group's choices to their summaries."""
        return {name: self._description(file)[0] for name, file in self._files(group).items()}

    def choice(self, group: str, name: str) -> Choice:
        """The description of one choice.

        Raises:
            UserError: the group has no such choice.
        """
        files = self._files(group)
        if name not in files:
            raise UserError(f"{group}={name}: no such choice.{nearest(name, files)}\nChoices: {', '.join(files)}.")
        summary, text = self._description(files[name])
        if group in OVERLAYS:
            return Choice(name, summary, text, (), _without_comments(files[name]))
        if group in _SECTIONS:
            node: Any = self._composed(f"{group}={name}")[group]
            return Choice(name, summary, text, tuple(_fields(_SECTIONS[group], f"{group}.", node)))
        listed = self.takes_list(group)
        node = self._composed(f"{group}=[{name}]" if listed else f"{group}={name}")[group]
        key = f"{group}.{name}" if listed else group
        node = node.get(name) if listed and isinstance(node, Mapping) else node
        options = self._options(node, key) if isinstance(node, Mapping) and "_target_" in node else ()
        return Choice(name, summary, text, tuple(options))

    def root(self) -> tuple[Option, ...]:
        """The options that belong to no group."""
        composed = self._composed()
        return tuple(option for option in _fields(Schema, "", composed) if option.key in ROOT)

    def _files(self, group: str) -> dict[str, Traversable]:
        found = {}
        for folder in self._folders:
            entries = folder.joinpath(group)
            for entry in entries.iterdir() if entries.is_dir() else ():
                name = entry.name.removesuffix(".yaml")
                if name != entry.name and not name.startswith("_"):
                    found[name] = entry
        default = self._defaults[group]
        return dict(sorted(found.items(), key=lambda item: (item[0] != default, item[0] == "none", item[0])))

    def _description(self, file: Traversable) -> tuple[str, str]:
        """The summary and the text of a choice.

        They come from the docstring of the choice's target. If the YAML file has a leading comment, the summary is
        the first sentence of the comment, and the rest of the comment precedes the text of the docstring.
        """
        content = file.read_text(encoding="utf-8")
        comment = _leading_comment(content)
        target = (yaml.safe_load(content) or {}).get("_target_")
        docstring = self._docstring(str(target)) if target else Docstring("", "", {})
        if not comment:
            return docstring.summary, docstring.text
        summary = first_sentence(comment)
        rest = comment.removeprefix(summary).strip()
        return summary, "\n\n".join(part for part in (rest, docstring.text) if part)

    def _docstring(self, target: str) -> Docstring:
        return options_of(target, self._modules).docstring

    @functools.cached_property
    def _modules(self) -> list[str]:
        composed = compose.compose(self._hydra, self._overrides)
        return compose.modules(compose.parse(self._hydra, self._overrides), composed)

    def _composed(self, *overrides: str) -> Any:
        composed = compose.compose(self._hydra, [*self._overrides, *overrides])
        return OmegaConf.to_container(compose.ours(composed), resolve=False)

    def _options(self, node: Mapping[str, Any], prefix: str) -> Iterator[Option]:
        parameters = options_of(str(node["_target_"]), self._modules).options
        for name in [*(key for key in node if key in parameters), *(key for key in parameters if key not in node)]:
            parameter = parameters[name]
            value = node.get(name, parameter.default)
            if isinstance(value, Mapping) and "_target_" in value:
                yield from self._options(value, f"{prefix}.{name}")
            else:
                yield Option(f"{prefix}.{name}", type_text(parameter.annotation), _shown(value), parameter.meaning)


def type_text(annotation: Any) -> str:
    """A type annotation in words.

    Examples are ``whole number >= 1``, ``number in [0, 1)``, ``relu | tanh`` and ``text or null``.
    """
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        ranges = [constraint for constraint in args[1:] if isinstance(constraint, Range)]
        return " ".join([type_text(args[0]), *map(_range_text, ranges)])
    if origin in (typing.Union, pytypes.UnionType):
        return " or ".join("null" if arg is type(None) else type_text(arg) for arg in args)
    if origin is Literal:
        return " | ".join(map(str, args))
    if origin is tuple and Ellipsis not in args:
        return f"[{', '.join(map(type_text, args))}]"
    if origin in (list, tuple, Sequence):
        return f"list of {type_text(args[0])}"
    words = {int: "whole number", float: "number", str: "text", bool: "true | false", dict: "options by name"}
    return words.get(origin or annotation, "")


def _range_text(bounds: Range) -> str:
    low = bounds.gt if bounds.ge is None else bounds.ge
    high = bounds.lt if bounds.le is None else bounds.le
    if low is not None and high is not None:
        return f"in {'[' if bounds.gt is None else '('}{low}, {high}{']' if bounds.lt is None else ')'}"
    if low is not None:
        return f"{'>=' if bounds.gt is None else '>'} {low}"
    return f"{'<=' if bounds.lt is None else '<'} {high}"


def _fields(schema: type, prefix: str, node: Mapping[str, Any]) -> Iterator[Option]:
    """Yields the options that a schema class declares. The values in ``node`` are the default values."""
    meanings = parse(schema.__doc__).meanings
    for name, annotation in typing.get_type_hints(schema, include_extras=True).items():
        yield Option(f"{prefix}{name}", type_text(annotation), _shown(node.get(name)), meanings[name])


def _shown(value: Any) -> str:
    if value is UNKNOWN:
        return ""
    if value == "???":
        return "required"
    if isinstance(value, float):
        return f"{value:g}"
    return str(yaml.safe_dump(value, default_flow_style=True)).removesuffix("\n").removesuffix("\n...")


def _leading_comment(content: str) -> str:
    """The comment at the beginning of a YAML file, without Hydra's line ``# @package``."""
    lines = []
    for line in content.splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line.removeprefix("#").removeprefix(" ").rstrip())
    return reflowed(lines)


def _without_comments(file: Traversable) -> str:
    lines = file.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join([*(line for line in lines if line.startswith("# @package")), *kept])
