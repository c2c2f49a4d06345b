"""check: everything that can be judged in seconds, before anything that takes minutes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from lorascope.adapters.targets import select, unadapted_sentences
from lorascope.config import Config, DataKind, ModelKind, Precision, QuantConfig, one_form
from lorascope.config.rules import require_one_population, require_one_task
from lorascope.config.shard_rules import idle_devices
from lorascope.errors import ConfigError, LorascopeError
from lorascope.files.layout import SPLITS, Layout
from lorascope.files.replacing import write_atomically
from lorascope.study.adoption import noted_predecessors
from lorascope.study.command_result import CommandResult
from lorascope.study.declared import declare_trial, trial_key, trial_name
from lorascope.study.foregone import (
    judged_at_once,
    needless_ranks,
    too_few_items,
    too_few_to_settle,
)
from lorascope.study.intact import unprepared
from lorascope.study.needed import require_settleable
from lorascope.study.overrides import choices

if TYPE_CHECKING:
    from lorascope.data.prepare import Source

NEEDED_FREE_BYTES = 512 * 1024**2
LARGE_BASE_WEIGHTS = 50_000_000
"""Of linear layers, from where on a step's time is mostly products (docs/speed.md)."""
VERDICT = b'{"valid": true}\n'
"""The same for every valid study, so that a changed study runs again only what it changes."""


def command(configs: Sequence[Config], layout: Layout, *_: object) -> CommandResult:
    """Judge the declared grid; `expand` has judged each value alone. Of what is doubtful it warns.

    Raises:
        LorascopeError: a source is missing or malformed, a local model's tokenizer or chat template
            fits no row, a device cannot run a mode, targets match nothing, `ship` can name no
            trial, or the disk is nearly full.
    """
    _require_space(layout)
    _require_device(configs)
    first = configs[0]
    require_one_population(first)
    _require_known_reference(first, layout)
    warnings = [*_of_data(configs, layout), *_of_model(configs, layout)]
    _require_possible_ship(configs)
    require_settleable(configs)
    warnings += _unwatched(first, layout)
    warnings += filter(None, dict.fromkeys(map(idle_devices, configs)))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    # What the next training does about trials of another identity; before base and data are
    # prepared, nothing is known of it.
    if not unprepared(configs, layout, []):
        noted_predecessors(declare_trial(config, layout) for config in configs)
    write_atomically(layout.root / "experiments" / "check.json", VERDICT)
    trials, trained = len(one_form(configs)), list(dict.fromkeys(c.quant.name for c in configs))
    print(f"valid: trials {trials}, modes {len(trained)}")
    content = {"valid": True, "trials": trials, "modes": trained, "warnings": warnings}
    return CommandResult(content=content)


def _require_device(configs: Sequence[Config]) -> None:
    """That the device here, and the libraries, can run each point's mode, method and task."""
    from lorascope.adapters.kinds import require_roundable
    from lorascope.machine.devices import choose_device, require_attention
    from lorascope.quantizers.autoround.library import require_library
    from lorascope.quantizers.kinds import require_readable
    from lorascope.quantizers.loading import compute_precision

    for config in configs:
        device = choose_device(config.runtime.device, config.runtime.place)
        for quant in _modes(config):
            compute_precision(quant, device)
            require_library(quant)
        require_attention(config.model.attention, device)
        require_readable(config.adapter, config.quant)
        require_roundable(config.adapter, config.train)
        require_one_task(config)


def _of_data(configs: Sequence[Config], layout: Layout) -> Iterator[str]:
    """What is doubtful about the rows, which must be readable and renderable."""
    from lorascope.data.prepare import check_source

    config = configs[0]
    source = check_source(config.data, layout.root)
    for warning in source.unfit.warnings():
        yield f"{config.data.name}: {warning}"
    clusters = [row.cluster for row in source.splits.conversations["validation"]]
    margin, candidates = config.decide.margin_accuracy, judged_at_once(configs)
    yield from too_few_items(config.data, margin, clusters, candidates)
    yield from too_few_to_settle(configs, len(clusters))
    _judge_rendering(config, source, layout)


def _of_model(configs: Sequence[Config], layout: Layout) -> Iterator[str]:
    """What is doubtful about the model, whose layers must take each method and mode."""
    from lorascope.bases.fetch import expected_shapes
    from lorascope.bases.source_folder import source_folder
    from lorascope.machine.devices import multiplies_bfloat16
    from lorascope.quantizers.loading import require_quantizable

    model = configs[0].model
    expected = expected_shapes(model, layout.root)
    if expected is not None:
        parts, unadapted = expected
        for config in configs:
            select(parts, config.adapter)
        yield from unadapted_sentences(parts.linear, unadapted)
        yield from needless_ranks(configs, parts)
        weights = sum(one.in_features * one.out_features for one in parts.linear)
        yield from slow_compute(configs, weights, multiplies_bfloat16())
    folder = source_folder(model, layout)
    if folder is not None:
        modes = {quant.name: quant for config in configs for quant in _modes(config)}
        for quant in modes.values():
            require_quantizable(folder, quant, model)


def slow_compute(configs: Sequence[Config], weights: int, has_bfloat16: bool) -> Iterator[str]:
    """A sentence where a large base computes in float32 on a processor that has bfloat16. It is not
    chosen for the user: equal settings would train other adapters on another processor."""
    from lorascope.machine.devices import choose_device

    if not has_bfloat16 or weights < LARGE_BASE_WEIGHTS:
        return
    modes = dict.fromkeys(
        config.quant.name
        for config in configs
        if config.quant.compute is Precision.auto
        and choose_device(config.runtime.device, config.runtime.place).kind == "cpu"
    )
    if modes:
        yield (
            f"{', '.join(modes)}: quant.compute=auto is float32 on a CPU, and this one multiplies "
            "bfloat16 faster: quant.compute=bfloat16 took 0.6 of a training step's time at 135 "
            "million parameters (NF4, FP16). Losses then have bfloat16's rounding, as on a GPU."
        )


def _modes(config: Config) -> list[QuantConfig]:
    """The mode that is trained on, and that which is served."""
    return [config.quant, *([] if config.serve is None else [config.serve])]


def _judge_rendering(config: Config, source: Source, layout: Layout) -> None:
    """With the tokenizer that prepare-data will use; a hub's is at hand after prepare-base."""
    from lorascope.bases.source_folder import source_folder
    from lorascope.bases.tiny.pretraining import build_tiny_tokenizer
    from lorascope.data.prepare import check_rendering
    from lorascope.data.tokenization import load_tokenizer

    model, base = config.model, layout.base(config.model.name)
    if model.kind is ModelKind.tiny:
        check_rendering(config.data, source, build_tiny_tokenizer())
        return
    folder = source_folder(model, layout) or base
    if (folder / "tokenizer_config.json").is_file():
        tokenizer = load_tokenizer(folder, model.trust_remote_code)
        check_rendering(config.data, source, tokenizer)


def _require_known_reference(config: Config, layout: Layout) -> None:
    """A misspelt mode would be taken for one that the study lacks, and another would stand in."""
    name = config.decide.reference_quant
    there = choices("quant", layout)
    if name not in there:
        raise ConfigError(
            "decide.reference_quant", name, "there is no such mode",
            f"conf/quant has: {', '.join(there)}.",
        )  # fmt: skip


def _require_space(layout: Layout) -> None:
    free = shutil.disk_usage(layout.root).free
    if free < NEEDED_FREE_BYTES:
        raise LorascopeError(
            f"only {free / 1024**2:.0f} MiB are free on the project's disk, and a study needs "
            f"{NEEDED_FREE_BYTES / 1024**2:.0f} MiB or more. Make room, or run `dvc gc -w`."
        )


def _unwatched(config: Config, layout: Layout) -> Iterator[str]:
    """DVC watches data/raw and models/raw: a source elsewhere may change without a new run."""
    named = {"model.path": config.model.path}
    if config.data.kind is DataKind.local:
        named |= {f"data.{split}": getattr(config.data, split) for split in SPLITS}
    for key, name in named.items():
        watched = [layout.root / "data/raw", layout.root / "models/raw"]
        if name and not any((layout.root / name).resolve().is_relative_to(w) for w in watched):
            yield (
                f"{key}={name!r} lies outside data/raw and models/raw: `dvc repro` will not notice "
                "when it changes. Move it there, or run `dvc repro -f` after a change."
            )


def _require_possible_ship(configs: Sequence[Config]) -> None:
    """`ship` must begin like a declared trial; its hash is known only after preparation."""
    ship = configs[0].ship
    names = [trial_name(trial_key(config), "") for config in configs]
    fits = any(ship.startswith(name.rstrip("-")) for name in names)
    if ship != "auto" and not fits:
        raise ConfigError(
            "ship", ship, "names no trial of the declared grid",
            f"Use auto, or a name that begins with one of: {', '.join(names[:8])}.",
        )  # fmt: skip
