"""Which options a ``_target_`` takes, read from its source without importing it.

Reading the syntax tree instead of importing keeps two promises: a wrong option is answered in a fraction of a
second, since JAX is never loaded; and a target that is not ours is refused before any of its code runs.
"""

from __future__ import annotations

import ast
import builtins
import functools
import importlib
import inspect
import sys
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_cli import types
from gan_cli.errors import UserError

PACKAGE = "gan_cli"
UNKNOWN = object()  # in place of a default that there is not, or that is no literal
_NAMESPACE = {**vars(builtins), **vars(typing), **vars(types)}


@dataclass(frozen=True)
class Parameter:
    """One option: its annotation as an object, whether it must be given, and its default where that is known.

    An option that a later version adds has the default that reproduces what earlier versions did: runs that lack it
    are resumed with it.
    """

    annotation: Any
    required: bool
    default: Any = UNKNOWN


@dataclass(frozen=True)
class Signature:
    """A target's parameters: ``positional`` ones are filled in by the program, ``options`` by the user."""

    positional: tuple[str, ...]
    options: dict[str, Parameter]


def options_of(target: str, modules: Sequence[str] = ()) -> Signature:
    """The signature of ``target``, if it may be named in a configuration.

    Allowed are public functions and classes that are defined in this package, functions of Optax, and those of
    the further ``modules`` that the command line names.

    Raises:
        UserError: the target is none of these.
    """
    module, _, name = target.rpartition(".")
    if module.split(".")[0] == PACKAGE:
        return _from_source(target, module, name)
    if module == "optax" or module in modules:
        return _from_object(target, module, name)
    raise UserError(
        f"_target_={target}: not allowed. A target is a public function or class of {PACKAGE} or of Optax;\n"
        f"a further module is named on the command line, e.g. modules=[{module or 'my_module'}]."
    )


def import_user_modules(modules: Sequence[str]) -> list[str]:
    """These modules of the user's own, looked for in this folder too, as a console script does not by itself."""
    if modules and not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    return list(modules)


@functools.cache
def _from_source(target: str, module: str, name: str) -> Signature:
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    parts = [*module.split("."), name]
    definition = None
    if all(part.isidentifier() and not part.startswith("_") for part in parts) and file.is_file():
        body = ast.parse(file.read_text(encoding="utf-8")).body
        definitions = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        definition = definitions.get(name)
    if definition is None:
        raise UserError(f"_target_={target}: no public function or class of that name is defined in {PACKAGE}.")
    if isinstance(definition, ast.FunctionDef):
        return _from_function(definition, definitions)
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            return _from_function(node, definitions)
    fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return Signature((), {_name(f): _parameter(f.annotation, f.value) for f in fields})


def _from_function(function: ast.FunctionDef, definitions: dict[str, Any]) -> Signature:
    arguments = function.args
    positional = tuple(a.arg for a in arguments.posonlyargs + arguments.args if a.arg != "self")
    options = {
        a.arg: _parameter(a.annotation, default)
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    if arguments.kwarg and isinstance(arguments.kwarg.annotation, ast.Subscript):  # **options: Unpack[Options]
        shared = definitions[ast.unparse(arguments.kwarg.annotation.slice)]
        fields = [node for node in shared.body if isinstance(node, ast.AnnAssign)]
        options |= {_name(f): Parameter(_evaluate(f.annotation), False) for f in fields}
    return Signature(positional, options)


def _parameter(annotation: ast.expr | None, default: ast.expr | None) -> Parameter:
    try:
        value = UNKNOWN if default is None else ast.literal_eval(default)
    except ValueError:  # an expression
        value = UNKNOWN
    return Parameter(_evaluate(annotation), default is None, value)


def _name(field: ast.AnnAssign) -> str:
    return ast.unparse(field.target)


def _evaluate(annotation: ast.expr | None) -> Any:
    """The annotation as an object; what needs JAX or other imports to name is not checked."""
    try:
        return Any if annotation is None else eval(ast.unparse(annotation), dict(_NAMESPACE))
    except NameError:
        return Any


def _from_object(target: str, module: str, name: str) -> Signature:
    try:
        thing = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise UserError(f"_target_={target}: {error}") from error
    home = getattr(thing, "__module__", "").split(".")[0]
    if name.startswith("_") or not callable(thing) or home != module.split(".")[0]:
        raise UserError(f"_target_={target}: no public function or class of that name is defined in {module}.")
    ours = module != "optax"
    hints = typing.get_type_hints(thing, include_extras=True) if ours and inspect.isfunction(thing) else {}
    parameters = [p for p in inspect.signature(thing).parameters.values() if p.name != "self"]
    # In a user's module as in ours, options are keyword-only; Optax makes no such difference.
    is_option = [p.kind is p.KEYWORD_ONLY or (not ours and p.kind is p.POSITIONAL_OR_KEYWORD) for p in parameters]
    options = {
        p.name: Parameter(hints.get(p.name, Any), p.default is p.empty)
        for p, option in zip(parameters, is_option, strict=True)
        if option
    }
    return Signature(tuple(p.name for p, o in zip(parameters, is_option, strict=True) if not o), options)
