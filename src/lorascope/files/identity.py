"""What makes two trials the same: a hash over settings, inputs and the code that makes them."""

from __future__ import annotations

import ast
import hashlib
import json
from dataclasses import asdict
from functools import cache
from pathlib import Path

from lorascope.config import Config
from lorascope.records import TrialKey

PACKAGE = Path(__file__).parents[1]
SHORT_HASH_LENGTH = 10
DECLARATIONS = {
    "lorascope",
    "lorascope.config",
    "lorascope.config.choices",
    "lorascope.config.bounds",
    "lorascope.config.rules",
    "lorascope.files.confidential",
    "lorascope.files.disk_faults",
    "lorascope.errors",
    "lorascope.files.layout",
    "lorascope.machine.quiet",
    "lorascope.records",
    "lorascope.files.store",
    "lorascope.files.locks",
}
"""Modules that name and keep things but compute nothing: a new field there makes no new trial."""


def canonical_sha256(value: object) -> str:
    """Digest of plain data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def trial_settings(config: Config, base_sha256: str, data_sha256: str) -> dict[str, object]:
    """Everything that decides a trial's result. Where it runs is not part of it, nor are names:
    the base, the data and the mode count by content."""
    train, quant = asdict(config.train), asdict(config.quant)
    for named in (train, quant):
        del named["name"]
    # Checkpoints and logging change what is kept, not what is computed.
    del train["checkpoint_every_steps"], train["log_every_steps"]
    lora = asdict(config.lora)
    lora["modules"] = sorted(lora["modules"])
    return {
        "base": base_sha256,
        "data": data_sha256,
        "attention": config.model.attention,
        "train_on_prompt": config.data.train_on_prompt,
        "quant": quant,
        "lora": lora,
        "train": train,
        "seed": config.seed,
        "code": code_sha256("lorascope.training.run"),
    }


def trial_key(config: Config) -> TrialKey:
    """What a trial is, for people."""
    lora = config.lora
    modules = "+".join(sorted(lora.modules))
    return TrialKey(
        model=config.model.name,
        data=config.data.name,
        quant=config.quant.name,
        targets=modules or lora.targets.value,
        rank=lora.rank,
        alpha=lora.alpha,
        rslora=lora.rslora,
        dora=lora.dora,
        seed=config.seed,
    )


def trial_name(key: TrialKey, identity: str) -> str:
    """Readable folder name plus short hash, e.g. nf4-r0016-a0032-s0-1f3c9a2b7d."""
    alpha = f"{int(key.alpha):04d}" if float(key.alpha).is_integer() else f"{key.alpha:g}"
    short = identity[:SHORT_HASH_LENGTH]
    return f"{key.quant}-r{key.rank:04d}-a{alpha}-s{key.seed}-{short}"


@cache
def code_sha256(module: str) -> str:
    """Digest of `module` and all of ours that it imports, comments and docstrings aside."""
    digest = hashlib.sha256()
    for name in sorted(computing_modules(module)):
        digest.update(name.encode() + b"\0")
        digest.update(_code_without_words(module_file(name)).encode() + b"\0")
    return digest.hexdigest()


def computing_modules(module: str) -> set[str]:
    """What `imported_modules` gives without `DECLARATIONS` and what lies inside them."""
    named = imported_modules(module) - DECLARATIONS
    return {name for name in named if name.rpartition(".")[0] not in DECLARATIONS - {"lorascope"}}


@cache
def imported_modules(module: str) -> frozenset[str]:
    """`module` and every lorascope module it imports, directly or not, also inside functions."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        found.add(name)
        waiting.extend(_imports_of(module_file(name)) - found)
    return frozenset(found)


def module_file(name: str) -> Path:
    """The file of one of our modules."""
    path = PACKAGE.joinpath(*name.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def _imports_of(path: Path) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    ours = {name for name in names if name.split(".")[0] == "lorascope"}
    return frozenset(name for name in ours if module_file(name).is_file())


@cache
def _code_without_words(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        # A bare string is a docstring, of a module, a class, a function or a field.
        kept = [line for line in body if not _is_bare_string(line)]
        node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.unparse(tree)


def _is_bare_string(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
