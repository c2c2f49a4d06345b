"""Digests of the code that decides values, one a room; `python -m tests.code_digests` records them.

Comments, docstrings, annotations and imports do not count, nor do names of modules and the order of
what stands in them: a digest is over the sorted statements of all modules of a room.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.imports import MODULES, ours, reached, room

RECORDED = Path(__file__).with_name("code_digests.txt")
WHOLE = ("adapters", "objectives", "quantizers", "training")
"""Rooms that count with all their modules: some are imported by name only."""
REACHED = ("bases", "data")
"""Rooms that count with what `WHOLE` imports: the rest makes inputs, which count by content."""
COMPUTE_TYPES = "lorascope.machine.devices"
"""Chooses what a mode computes in: counted with the quantizers."""
BATCHES = "lorascope.counting.scored_batches"
"""Decides what is scored at once: counted with scoring."""
BESIDE = {
    "bits", "fake_layers", "footprint", "kernels", "merged_folder", "merging", "progress",
    "shipped_model",
}  # fmt: skip
"""Modules on which no value depends: they count bytes, plan, show progress, or merge."""


def digests() -> dict[str, str]:
    """Room -> digest of its code."""
    return {name: digest_of(MODULES[m] for m in modules) for name, modules in counted().items()}


def counted() -> dict[str, set[str]]:
    """Room -> its modules that decide values; scoring has what only scores depend on."""
    whole = {m for m in MODULES if room(m) in WHOLE and not _is_beside(m)}
    scoring = {m for m in MODULES if room(m) == "scoring" and not _is_beside(m)}
    trained = whole | {m for m in _reached_from(whole) if room(m) in REACHED}
    # What these import in turn checks rows before they are prepared.
    scored = scoring | {n for m in scoring for n in ours(m) if room(n) in REACHED}
    rooms = {name: {m for m in trained if room(m) == name} for name in (*WHOLE, *REACHED)}
    rooms["quantizers"].add(COMPUTE_TYPES)
    return dict(sorted({**rooms, "scoring": {BATCHES, *scored} - trained}.items()))


def _is_beside(module: str) -> bool:
    return module.rpartition(".")[2] in BESIDE


def _reached_from(modules: Iterable[str]) -> set[str]:
    return {name for module in modules for name in reached(module)}


def digest_of(paths: Iterable[Path]) -> str:
    """Digest of the statements in all `paths`."""
    statements = sorted(text for path in paths for text in _statements(path))
    return hashlib.sha256("\n\0".join(statements).encode()).hexdigest()


def _statements(path: Path) -> list[str]:
    tree: ast.Module = _Bare().visit(ast.parse(path.read_text(encoding="utf-8")))
    return [ast.unparse(ast.fix_missing_locations(statement)) for statement in tree.body]


class _Bare(ast.NodeTransformer):
    """The code without what computes nothing."""

    def visit_Import(self, node: ast.stmt) -> None:
        return None

    visit_ImportFrom = visit_Import  # noqa: N815 (ast calls it)

    def visit_Expr(self, node: ast.Expr) -> ast.stmt | None:
        value = node.value
        words = isinstance(value, ast.Constant) and isinstance(value.value, str)
        return None if words else node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.stmt:
        if node.value is None:
            # A field without a default: its name and its place count.
            return ast.Expr(node.target)
        return ast.Assign([node.target], self.visit(node.value))

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(node.arg)

    def generic_visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.returns = None
        super().generic_visit(node)
        if getattr(node, "body", None) == [] and isinstance(node, ast.stmt):
            if isinstance(node, ast.If) and not node.orelse:
                return None
            node.body = [ast.Pass()]  # type: ignore[attr-defined]
        return node


def recorded() -> dict[str, str]:
    """Room -> digest, as last recorded."""
    lines = [line.strip() for line in RECORDED.read_text().splitlines()]
    words = [line for line in lines if line and not line.startswith("#")]
    return dict(zip(words[::2], words[1::2], strict=True))


def record() -> None:
    """Write the present digests. A room's stands alone, so that two changes merge."""
    head = "# Code that decides values: see src/lorascope/files/revisions.py.\n"
    head += "# After a change that keeps the bits: python -m tests.code_digests\n"
    lines = [f"\n{name}\n  {digest}\n" for name, digest in digests().items()]
    RECORDED.write_text(head + "".join(lines))


if __name__ == "__main__":
    record()
