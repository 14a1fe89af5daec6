"""The structure of the program: which packages may import which, and that no modules import each other in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from demo.utils.paths import ROOT

# From top to bottom: a package imports from those below it only. Everything in a line stands on the same level and
# may not import its neighbours.
LEVELS = (
    ("app",),
    ("demo.page", "demo.bench"),
    ("demo.evaluation",),
    ("demo.extraction", "demo.conversation"),
    ("demo.engine", "demo.plots"),
    ("demo.axis",),
    ("demo.models", "demo.capping"),
    ("demo.space",),
    ("demo.utils",),
)
# Third-party packages that only one part of the program may know.
KEPT_OUT = {
    "gradio": tuple(f"demo.{name}" for name in
                    ("engine", "conversation", "extraction", "evaluation", "plots", "axis", "models", "capping", "utils")),
    "torch": ("demo.page",),
    "transformers": ("demo.page", "demo.conversation", "demo.plots"),
    "vllm": ("demo.engine.vllm.recorder", "demo.engine.forward", "demo.conversation", "demo.page"),
}  # fmt: skip


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_of(path): path for path in [ROOT / "app.py", *(ROOT / "demo").rglob("*.py")]
}  # fmt: skip


def imported(path: Path) -> Iterator[str]:
    """Every module that a file names in an import, wherever the statement stands."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} uses a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def ancestors(module: str) -> Iterator[str]:
    """The packages that Python runs before this module, without `demo` itself, which is the public face of all."""
    parts = module.split(".")
    for end in range(2, len(parts)):
        yield ".".join(parts[:end])


GRAPH = {
    module: {name for name in [*imported(path), *ancestors(module)] if name in MODULES and name != module}
    for module, path in MODULES.items()
}


def level_of(module: str) -> int:
    matches = [
        (len(package), level)
        for level, packages in enumerate(LEVELS)
        for package in packages
        if module == package or module.startswith(f"{package}.")
    ]
    return max(matches)[1]


def test_no_modules_import_each_other_in_a_circle():
    try:
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(f"an import cycle: {' -> '.join(error.args[1])}")


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name != "demo"))
def test_imports_point_down(module: str):
    for other in GRAPH[module] - {"demo"}:
        inside = package_of(module) == package_of(other)
        assert inside or level_of(module) < level_of(other), f"{module} must not import {other}"


@pytest.mark.parametrize("library", KEPT_OUT)
def test_libraries_stay_where_they_belong(library: str):
    for module, path in MODULES.items():
        if module.startswith(KEPT_OUT[library]):
            names = {name.split(".")[0] for name in imported(path)}
            assert library not in names, f"{module} must not import {library}"
