"""Reads the options of a ``_target_`` from the signature and the docstring of the target.

The source code of a target in this package is parsed, because importing the target would also import JAX, which is
slow. Wrong options of these targets are therefore reported within a fraction of a second. Targets in Optax and in
the user's modules are imported. All other targets are refused without importing them.
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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gan_cli import types
from gan_cli.config.docstrings import Docstring, parse
from gan_cli.errors import UserError, nearest

PACKAGE = "gan_cli"
UNKNOWN = object()  # marks a default that is missing or is not a literal
_NAMESPACE = {**vars(builtins), **vars(typing), **vars(types)}


@dataclass(frozen=True)
class Parameter:
    """One option of a configurable function.

    When an option is added to an existing function, the default value of the option must reproduce the previous
    behaviour of the function, because runs that were started before the option existed resume with this default.

    Attributes:
        annotation: the declared type and range of the option, or ``Any`` if they cannot be read without an import.
        required: whether the user must set a value.
        default: the default value, or ``UNKNOWN`` if the option has no default or the default is not a literal.
        meaning: the option's entry in the docstring's ``Args:``.
    """

    annotation: Any
    required: bool
    default: Any = UNKNOWN
    meaning: str = ""


@dataclass(frozen=True)
class Signature:
    """The parameters of a target.

    Attributes:
        positional: tuple of the names of the parameters whose arguments the program passes.
        options: the parameters that the user can set, a dictionary from names to descriptions.
        docstring: the docstring of the target.
    """

    positional: tuple[str, ...]
    options: dict[str, Parameter]
    docstring: Docstring


def options_of(target: str, modules: Sequence[str] = ()) -> Signature:
    """The signature of a target.

    Args:
        target: the dotted Python path of a public function or class in this package, in Optax or in ``modules``.
        modules: the user's Python modules, which the command line lists.

    Raises:
        UserError: the target is in another module, is not public or does not exist.
    """
    module, _, name = target.rpartition(".")
    if module.split(".")[0] == PACKAGE:
        return _from_source(target, module, name)
    if module == "optax" or module in modules:
        return _from_object(target, module, name)
    raise UserError(
        f"_target_={target}: not allowed. A target must be a public function or class of {PACKAGE} or Optax.\n"
        f"To use a module of your own, list it on the command line: modules=[{module or 'my_module'}], or "
        f"--modules {module or 'my_module'} for gan-eval and gan-sample."
    )


def import_user_modules(modules: Sequence[str]) -> list[str]:
    """Make the user's ``modules`` importable from the working directory, and return them as a list.

    The import path of a console script does not include the working directory, so this function adds it.
    """
    if modules and not {"", str(Path.cwd())} & set(sys.path):
        sys.path.append(str(Path.cwd()))
    return list(modules)


@functools.cache
def _from_source(target: str, module: str, name: str) -> Signature:
    path = Path(__file__).parents[1].joinpath(*module.split(".")[1:])
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    parts = [*module.split("."), name]
    definition = None
    definitions: dict[str, ast.FunctionDef | ast.ClassDef] = {}
    if all(part.isidentifier() and not part.startswith("_") for part in parts) and file.is_file():
        body = ast.parse(file.read_text(encoding="utf-8")).body
        definitions = {node.name: node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        definition = definitions.get(name)
    if definition is None:
        near = nearest(name, [other for other in definitions if not other.startswith("_")])
        raise UserError(
            f"_target_={target}: {PACKAGE} defines no public function or class of that name. Correct the path."
            f"{near}"
        )
    if isinstance(definition, ast.FunctionDef):
        return _from_function(definition, definitions, parse(ast.get_docstring(definition)))
    docstring = parse(ast.get_docstring(definition))
    for node in definition.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            meanings = docstring.meanings | parse(ast.get_docstring(node)).meanings
            return _from_function(node, definitions, docstring._replace(meanings=meanings))
    return Signature((), _fields(definition, docstring), docstring)


def _from_function(function: ast.FunctionDef, definitions: dict[str, Any], docstring: Docstring) -> Signature:
    arguments = function.args
    positional = tuple(a.arg for a in arguments.posonlyargs + arguments.args if a.arg != "self")
    options = {
        a.arg: _parameter(a.annotation, default, docstring.meanings.get(a.arg, ""))
        for a, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    if arguments.kwarg and isinstance(arguments.kwarg.annotation, ast.Subscript):  # **options: Unpack[Options]
        shared = definitions[ast.unparse(arguments.kwarg.annotation.slice)]
        fields = _fields(shared, parse(ast.get_docstring(shared)))
        options |= {name: replace(field, required=False) for name, field in fields.items()}
    return Signature(positional, options, docstring)


def _fields(definition: ast.ClassDef, docstring: Docstring) -> dict[str, Parameter]:
    """The annotated fields of a class as options, by name."""
    fields = [node for node in definition.body if isinstance(node, ast.AnnAssign)]
    return {_name(f): _parameter(f.annotation, f.value, docstring.meanings.get(_name(f), "")) for f in fields}


def _parameter(annotation: ast.expr | None, default: ast.expr | None, meaning: str) -> Parameter:
    try:
        value = UNKNOWN if default is None else ast.literal_eval(default)
    except ValueError:  # the default is an expression, not a literal
        value = UNKNOWN
    return Parameter(_evaluate(annotation), default is None, value, meaning)


def _name(field: ast.AnnAssign) -> str:
    return ast.unparse(field.target)


def _evaluate(annotation: ast.expr | None) -> Any:
    """The evaluated annotation, or ``Any`` if it contains a name that would have to be imported."""
    try:
        return Any if annotation is None else eval(ast.unparse(annotation), dict(_NAMESPACE))
    except NameError:
        return Any


def _from_object(target: str, module: str, name: str) -> Signature:
    try:
        thing = getattr(importlib.import_module(module), name, None)
    except (ImportError, SyntaxError) as error:
        raise UserError(
            f"_target_={target}: {module} cannot be imported ({error}). Correct the error, or start the command in "
            "the folder that contains the module."
        ) from error
    home = getattr(thing, "__module__", "").split(".")[0]
    if name.startswith("_") or not callable(thing) or home != module.split(".")[0]:
        raise UserError(
            f"_target_={target}: {module} defines no public function or class of that name. Correct the path."
        )
    ours = module != "optax"
    hints = typing.get_type_hints(thing, include_extras=True) if ours and inspect.isfunction(thing) else {}
    parameters = [p for p in inspect.signature(thing).parameters.values() if p.name != "self"]
    # In this package and in users' modules, options are keyword-only parameters. Optax does not follow this
    # convention.
    is_option = [p.kind is p.KEYWORD_ONLY or (not ours and p.kind is p.POSITIONAL_OR_KEYWORD) for p in parameters]
    docstring = parse(thing.__doc__)
    options = {
        p.name: Parameter(hints.get(p.name, Any), p.default is p.empty, meaning=docstring.meanings.get(p.name, ""))
        for p, option in zip(parameters, is_option, strict=True)
        if option
    }
    positional = tuple(p.name for p, option in zip(parameters, is_option, strict=True) if not option)
    for name in [p.name for p in parameters if p.kind is p.VAR_KEYWORD and p.name in hints]:
        (shared,) = typing.get_args(hints[name])  # **options: Unpack[Options]
        meanings = parse(shared.__doc__).meanings
        options |= {
            key: Parameter(hint, False, meaning=meanings.get(key, ""))
            for key, hint in typing.get_type_hints(shared, include_extras=True).items()
        }
    return Signature(positional, options, docstring)
