"""What our modules import, read from their files, so that imports inside functions count too."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import lorascope

PACKAGE = Path(lorascope.__file__).parent
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def room(module: str) -> str:
    """The folder, or the file in the package's root, that a module lies in."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


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
    """The modules of ours that `module` imports."""
    return {name for name in imports(module) if name in MODULES}


@cache
def reached(module: str) -> frozenset[str]:
    """`module` and every module of ours that it imports, directly or not."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting.extend(ours(name))
    return frozenset(found)
