"""The structure of the program: which packages may import which.

No module imports from a package above its own, and no modules import each other in a cycle.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from demo.utils.paths import ROOT

# From top to bottom: a package imports only from packages below it, and not from others on its own level.
LEVELS = (
    ("app",),
    ("demo.page", "demo.bench"),
    ("demo.evaluation", "demo.library"),
    ("demo.extraction", "demo.conversation"),
    ("demo.engine", "demo.plots"),
    ("demo.axis",),
    ("demo.models",),
    ("demo.capping",),
    ("demo.space",),
    ("demo.utils",),
)
# Libraries, each with the packages and modules that must not import it.
FORBIDDEN = {
    "gradio": (
        "demo.engine",
        "demo.conversation",
        "demo.extraction",
        "demo.evaluation",
        "demo.plots",
        "demo.axis",
        "demo.models",
        "demo.capping",
        "demo.utils",
    ),
    "torch": ("demo.page",),
    "transformers": ("demo.page", "demo.conversation", "demo.plots"),
    "vllm": ("demo.engine.vllm.recorder", "demo.engine.forward", "demo.conversation", "demo.page"),
}


# Imported where they are installed, and not required otherwise.
OPTIONAL = {"llama_cpp", "spaces", "triton", "vllm"}
# Packages whose name is not that of the import.
PACKAGES = {"markdown_it": "markdown-it-py"}


def name_of(path: Path) -> str:
    """The module's name, as in an import."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in [ROOT / "app.py", *(ROOT / "demo").rglob("*.py")]}


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path} uses a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in MODULES else node.module


def parents_of(module: str) -> Iterator[str]:
    """The packages that Python imports before this module.

    `demo` is left out, because it is the public interface to all packages.
    """
    parts = module.split(".")
    for end in range(2, len(parts)):
        yield ".".join(parts[:end])


# Each module with the modules of the program that it imports.
GRAPH = {
    module: {name for name in [*imports_of(path), *parents_of(module)] if name in MODULES and name != module}
    for module, path in MODULES.items()
}


def is_within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


def package_of(module: str) -> str:
    return ".".join(module.split(".")[:2])


def level_of(module: str) -> int:
    """The level of the innermost package in LEVELS that holds the module, from the top."""
    levels = {package: level for level, packages in enumerate(LEVELS) for package in packages}
    around = [package for package in levels if is_within(module, package)]
    assert around, f"{module} has no level; add its package to LEVELS"
    return levels[max(around, key=len)]


def test_no_modules_import_each_other_in_a_cycle():
    try:
        list(TopologicalSorter(GRAPH).static_order())
    except CycleError as error:
        pytest.fail(f"an import cycle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name != "demo"))
def test_packages_import_only_from_lower_levels(module: str):
    for other in GRAPH[module] - {"demo"}:
        same_package = package_of(module) == package_of(other)
        assert same_package or level_of(module) < level_of(other), f"{module} must not import {other}"


@pytest.mark.parametrize("library", FORBIDDEN)
def test_packages_do_not_import_forbidden_libraries(library: str):
    for module, path in MODULES.items():
        if any(is_within(module, package) for package in FORBIDDEN[library]):
            libraries = {name.split(".")[0] for name in imports_of(path)}
            assert library not in libraries, f"{module} must not import {library}"


def test_every_imported_package_is_declared():
    tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {re.split(r"[<>=\[]", entry)[0].lower().replace("_", "-") for entry in project["dependencies"]}
    names = {name.split(".")[0] for path in MODULES.values() for name in imports_of(path)}
    outside = names - set(sys.stdlib_module_names) - {"demo", "app"} - OPTIONAL
    missing = {PACKAGES.get(name, name).lower().replace("_", "-") for name in outside} - declared
    assert not missing, f"declare in pyproject.toml: {sorted(missing)}"
