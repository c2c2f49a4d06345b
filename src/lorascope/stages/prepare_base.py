"""prepare-base: the full-precision base and its description."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from lorascope.adapters.kinds import unmerged
from lorascope.adapters.targets import unadapted_sentences
from lorascope.bases.folder import keep_unknown_token
from lorascope.bases.source_folder import starting_trial
from lorascope.config import Config, ModelKind, Precision
from lorascope.errors import ConfigError, VerificationError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.made_with import KNOWN_CONFIG, base_settings
from lorascope.files.provenance import capture
from lorascope.files.replacing import replaced_folder
from lorascope.files.store import sha256_of_files, write_record
from lorascope.machine.libraries import import_uncollected
from lorascope.machine.progress import StepProgress
from lorascope.records import BaseRecord
from lorascope.stages import prepare_data, quantize_base
from lorascope.study.named_trial import find_named, trained_with


def command(configs: Sequence[Config], layout: Layout, *_: object) -> BaseRecord:
    """Fetch or make the base that config.model names.

    Raises:
        LorascopeError: its source lacks something or cannot be reached; of a trial to start from,
            what it was trained on is gone, or it cannot be merged.
    """
    config = configs[0]
    import_uncollected("lorascope.bases.fetch", "lorascope.bases.tiny.pretraining")
    from lorascope.bases.fetch import describe
    from lorascope.bases.folder import base_label
    from lorascope.machine.devices import cpu_name, use_threads
    from lorascope.machine.memory import keep_freed_memory

    model = config.model
    threads = use_threads(config.runtime.threads)
    keep_freed_memory()
    started = time.perf_counter()
    with replaced_folder(layout.base(model.name)) as folder:
        pretraining, source = _fetch(config, folder, layout)
        description = describe(folder, base_label(model))
        if keep_unknown_token(folder, model.trust_remote_code):
            print(f"base {model.name}: its tokenizer's files now keep the unknown token")
        record = BaseRecord(
            model=model.name,
            source=source,
            **vars(description),
            content_sha256=sha256_of_files(folder),
            seconds=time.perf_counter() - started,
            pretraining=pretraining,
            settings={**base_settings(model), KNOWN_CONFIG: model.known_config},
            provenance=capture(layout, cpu_name(), threads),
        )
        write_record(folder, record)
    for sentence in unadapted_sentences(record.linear_shapes, record.unadapted):
        print(f"warning: {sentence}", file=sys.stderr)
    print(f"base {model.name}: {record.architecture}, {record.parameters:,} parameters")
    return record


def _fetch(config: Config, folder: Path, layout: Layout) -> tuple[dict[str, float] | None, str]:
    """Put the base's files into `folder`. Returns what pre-training reached, and the source."""
    from lorascope.bases.fetch import fetch_base

    model = config.model
    if model.kind is not ModelKind.trial:
        progress = StepProgress(f"base {model.name}")
        return fetch_base(model, folder, layout.root, progress), _source(config)
    with TemporaryDirectory(dir=folder) as merged:
        source = _merge_start(config, Path(merged), layout)
        fetch_base(model, folder, layout.root, merged=Path(merged))
    return None, source


def _merge_start(config: Config, folder: Path, layout: Layout) -> str:
    """Merge the trial that config.model starts from into `folder`, in float32, and say so."""
    from lorascope.scoring.shipped_model import failure, merge_verified

    trial = starting_trial(config.model, layout)
    if (reason := unmerged(trial.key.method)) is not None:
        raise ConfigError(
            "model.start_from", trial.trial, reason, "Start from a trial of LoRA, or of another "
            "method that can be merged.",
        )  # fmt: skip
    _make_again(trained_with(trial, layout), layout)
    former = find_named(trial.trial, [], layout).config
    merging = replace(former.merge, precision=Precision.float32)
    former = replace(former, merge=merging, runtime=config.runtime)
    record = merge_verified(folder, former, layout, trial, "model.start_from", None)
    if not record.passed:
        raise VerificationError(failure(record, former))
    return (
        f"trial: {trial.trial} of model={trial.key.model}, merged in float32; its logits differ "
        f"from adapter on base by {record.largest_logit_difference:.2g} at most"
    )


def _make_again(former: Config, layout: Layout) -> None:
    """Make what lacks of that which a former study's trial was trained from. `dvc exp run` takes
    away what its graph does not name; made again, it has the same bytes, and is held to that."""
    model = former.model.name
    for folder, make in (
        (layout.base(model), command),
        (layout.data(model, former.data.name), prepare_data.command),
        (layout.quantized(model, former.quant.name), quantize_base.command),
    ):
        if not (folder / RECORD).is_file():
            print(f"{folder.relative_to(layout.root)} is gone, and is made again", flush=True)
            make([former], layout)


def _source(config: Config) -> str:
    model = config.model
    if model.kind is ModelKind.hub:
        return f"hub: {model.repository}@{model.revision}"
    if model.kind is ModelKind.local:
        return f"local: {model.path}"
    return f"pre-trained here, seed {model.pretrain_seed}"
