"""Imports point down between rooms, so that no room is in a circle with another."""

from __future__ import annotations

import subprocess
import sys

import lorascope
from tests.imports import MODULES, PACKAGE, imports, ours, room

ROOMS = (
    "errors", "statistics", "config", "records", "machine", "files", "counting", "data",
    "adapters", "bases", "quantizers", "objectives", "scoring", "meters", "tracking", "comparing",
    "reporting", "training", "study", "starting", "planning", "execution", "stages",
    "cli",
)  # fmt: skip
"""From the ground up: a room imports from those before it."""
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "datasets", "lm_eval", "accelerate"}
STANDARD = set(sys.stdlib_module_names) | {"lorascope"}


def foreign(module: str) -> set[str]:
    """Top-level names of the other packages that `module` imports."""
    return {name.split(".")[0] for name in imports(module)} - STANDARD


def modules_of(*rooms: str) -> list[str]:
    return [module for module in MODULES if room(module) in rooms]


def test_imports_point_down() -> None:
    wrong = {
        (module, name)
        for module in MODULES
        # The package itself only says where things stand: nothing is loaded with it.
        if room(module)
        for name in ours(module)
        if room(name) not in {*ROOMS[: ROOMS.index(room(module)) + 1], ""}
    }
    assert not wrong


def test_few_files_lie_outside_the_rooms() -> None:
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 4


def beyond(allowed: set[str], *rooms: str) -> set[tuple[str, str]]:
    """Packages that modules of these rooms import, and that they may not."""
    return {(module, name) for module in modules_of(*rooms) for name in foreign(module) - allowed}


def test_statistics_imports_numpy_and_scipy_at_most() -> None:
    assert not beyond({"numpy", "scipy"}, "statistics")


def test_what_is_declared_found_and_counted_needs_no_package() -> None:
    assert not beyond(set(), "errors", "config", "records", "counting")


def test_reports_are_made_on_a_laptop() -> None:
    found = {name for _, name in beyond(set(), "comparing", "reporting")}
    assert not found & (HEAVY | {"mlflow", "hydra", "omegaconf", "dvc"})


def test_each_of_these_packages_has_one_room() -> None:
    rooms: dict[str, set[str]] = {"mlflow": {"tracking"}, "hydra": {"study", "cli"}}
    for name, own in rooms.items():
        assert {room(module) for module in MODULES if name in foreign(module)} <= own, name


def test_the_packages_table_of_contents_names_what_is_there_and_loads_nothing() -> None:
    code = (
        "import sys, lorascope; shown = set(lorascope.__all__) <= set(dir(lorascope));"
        "print([m for m in sys.modules if m.startswith('lorascope.')], shown)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert answer.stdout.strip() == "[] True"
    # What they load is loaded here already.
    assert all(getattr(lorascope, name) for name in lorascope.__all__)


def test_importing_all_of_reporting_loads_no_torch() -> None:
    names = ", ".join(modules_of("reporting"))
    loaded = f"sorted(({HEAVY!r} | {{'mlflow', 'hydra'}}) & set(sys.modules))"
    code = f"import sys, {names}; print({loaded})"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": str(PACKAGE.parent)},
    )  # fmt: skip
    assert answer.stdout.strip() == "[]"
