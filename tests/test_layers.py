"""Imports point down. Read statically, so that imports inside functions count too."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import lorascope

PACKAGE = Path(lorascope.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

BOTTOM, SCHEMA, DOMAIN, EDGES, REPORTING, TOP = range(6)
LAYER_OF = {
    "errors": BOTTOM,
    "maths": BOTTOM,
    "confidential": BOTTOM,
    "disk_faults": BOTTOM,
    "config": SCHEMA,
    "config_choices": SCHEMA,
    "records": SCHEMA,
    "store": EDGES,
    "trial_locks": EDGES,
    "tracking": EDGES,
    "provenance": EDGES,
    "isolation": EDGES,
    "stop_request": EDGES,
    "layout": EDGES,
    "identity": EDGES,
    "reporting": REPORTING,
    "stages": TOP,
    "cli": TOP,
}
"""First part of a module's name -> layer. What is not named here is domain, the strictest guess."""
FILES = {"lorascope.store", "lorascope.layout"}
"""Edges that the domain may use, because reading and hashing files needs no more than files; they
import nothing above the schema themselves."""

HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "datasets", "lm_eval", "accelerate"}
STANDARD = set(sys.stdlib_module_names) | {"lorascope"}


def layer(module: str) -> int:
    """Of a lorascope module; the package itself holds a version only."""
    parts = module.split(".")
    return BOTTOM if len(parts) == 1 else LAYER_OF.get(parts[1], DOMAIN)


@cache
def imports(module: str) -> frozenset[str]:
    """Full names of all modules that `module` imports anywhere in its file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute here"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in whole}
    return frozenset(found)


def ours(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "lorascope"}


def foreign(module: str) -> set[str]:
    """Top-level names of the other packages that `module` imports."""
    return {name.split(".")[0] for name in imports(module)} - STANDARD


def modules_in(*layers: int) -> list[str]:
    return [module for module in MODULES if layer(module) in layers]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    allowed = FILES if layer(module) == DOMAIN else set()
    upwards = {name for name in ours(module) if layer(name) > layer(module)} - allowed
    assert not upwards, f"{module} imports from a layer above its own"


@pytest.mark.parametrize("module", sorted(FILES))
def test_file_modules_stand_on_the_schema_alone(module: str) -> None:
    assert {name for name in ours(module) if layer(name) > SCHEMA} <= FILES


@pytest.mark.parametrize("module", [m for m in MODULES if m.startswith("lorascope.maths")])
def test_maths_imports_numpy_and_scipy_at_most(module: str) -> None:
    assert foreign(module) <= {"numpy", "scipy"}
    assert all(layer(name) == BOTTOM for name in ours(module))


@pytest.mark.parametrize("module", modules_in(SCHEMA))
def test_schema_imports_no_package(module: str) -> None:
    assert not foreign(module)


@pytest.mark.parametrize("module", modules_in(DOMAIN))
def test_domain_knows_neither_hydra_nor_dvc_nor_mlflow(module: str) -> None:
    assert not foreign(module) & {"hydra", "omegaconf", "dvc", "mlflow"}


@pytest.mark.parametrize("module", modules_in(REPORTING))
def test_reporting_rebuilds_on_a_laptop(module: str) -> None:
    assert not foreign(module) & (HEAVY | {"mlflow", "hydra", "omegaconf", "dvc"})


@pytest.mark.parametrize("module", MODULES)
def test_only_tracking_imports_mlflow(module: str) -> None:
    in_tracking = module.startswith("lorascope.tracking")
    assert in_tracking or "mlflow" not in foreign(module)


@pytest.mark.parametrize("module", modules_in(BOTTOM, SCHEMA, DOMAIN, EDGES, REPORTING))
def test_only_stages_and_cli_import_hydra(module: str) -> None:
    assert "hydra" not in foreign(module)


def test_importing_all_of_reporting_loads_no_torch() -> None:
    names = ", ".join(m for m in MODULES if layer(m) == REPORTING)
    loaded = f"sorted(({HEAVY!r} | {{'mlflow', 'hydra'}}) & set(sys.modules))"
    code = f"import sys, {names}; print({loaded})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert answer.stdout.strip() == "[]"
