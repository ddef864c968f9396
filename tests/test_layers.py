"""Imports point one way: a room (a subpackage or a top-level module) imports only rooms of lower layers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "gan_cli"
# Layers from bottom to top. Rooms of the same layer do not import each other.
LAYERS = [
    {"types", "errors", "transforms", "schedules", "moments", "threefry"},
    {"storage"},
    {"data", "models", "losses", "penalties", "augment", "optim", "loggers"},
    {"engine"},
    {"estimators"},
    {"games", "strategies"},
    {"metrics"},
    {"privacy"},
    {"config"},
    {"trained"},
    {"views"},
    {"training"},
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
# Libraries that only the listed rooms may import, at module level or inside a function.
CONFINED = {
    "hydra": {"config", "cli"},
    "omegaconf": {"config", "cli"},
    "orbax": {"storage"},
    "tensorflow_datasets": {"data"},
    "tensorflow": {"data"},
    "tensorboardX": {"loggers"},
    "dp_accounting": {"privacy"},
}
# Modules that must not import JAX, so that wrong input is reported within a fraction of a second.
WITHOUT_JAX = [
    "errors", "config.schema", "config.check", "config.options", "config.names", "config.identity", "config.stored",
    "config.ensemble", "config.compose", "config.docstrings", "config.reference", "cli.help", "cli.train",
    "cli.resume", "cli.shell", "storage.files", "storage.dotted", "storage.run_directory", "storage.metrics_log",
]  # fmt: skip


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "configs")


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, top_level: bool = False) -> Iterator[str]:
    """The modules that a file imports at run time, without imports under ``TYPE_CHECKING``.

    With ``top_level``, imports inside functions are left out too.
    """
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif not (top_level and isinstance(node, ast.FunctionDef)):
            waiting += ast.iter_child_nodes(node)


def test_layers_list_exactly_the_existing_rooms():
    """An existing room must be listed; a listed room that does not exist would check nothing."""
    existing = {room(path) for path in modules()} - {"__init__"}
    assert existing == set(RANK)
    assert all((PACKAGE / f"{name.replace('.', '/')}.py").is_file() for name in WITHOUT_JAX)


@pytest.mark.parametrize("path", modules(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_point_down(path):
    own = room(path)
    for module in imports(path):
        top, _, rest = module.partition(".")
        assert own in CONFINED.get(top, {own}), f"{own} imports {top}"
        if top == "gan_cli" and own != "__init__" and rest != "__version__":
            other = rest.split(".")[0]
            assert other == own or RANK[other] < RANK[own], f"{own} imports {module}"


def test_wrong_input_is_reported_without_jax():
    """These modules do not import JAX at module level, directly or through other modules."""
    files = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in modules()}
    seen, waiting = set(), list(WITHOUT_JAX)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in files:
            continue
        seen.add(name)
        for module in imports(files[name], top_level=True):
            assert module.split(".")[0] not in ("jax", "flax", "optax", "orbax"), name
            if module.startswith("gan_cli."):
                inner = module.removeprefix("gan_cli.")
                waiting += [inner, inner.rpartition(".")[0]]
