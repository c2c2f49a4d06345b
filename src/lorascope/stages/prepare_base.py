"""prepare-base: the full-precision base and its description."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from lorascope.adapters.targets import unadapted_sentences
from lorascope.bases.folder import keep_unknown_token
from lorascope.config import Config, ModelKind
from lorascope.files.layout import Layout
from lorascope.files.made_with import KNOWN_CONFIG, base_settings
from lorascope.files.provenance import capture
from lorascope.files.store import replaced_folder, sha256_of_files, write_record
from lorascope.machine.libraries import import_uncollected
from lorascope.machine.progress import StepProgress
from lorascope.records import BaseRecord


def command(configs: Sequence[Config], layout: Layout, *_: object) -> BaseRecord:
    """Fetch or make the base that config.model names."""
    config = configs[0]
    import_uncollected("lorascope.bases.fetch", "lorascope.bases.tiny.pretraining")
    from lorascope.bases.fetch import describe, fetch_base
    from lorascope.bases.folder import base_label
    from lorascope.machine.devices import cpu_name, use_threads
    from lorascope.machine.memory import keep_freed_memory

    model = config.model
    threads = use_threads(config.runtime.threads)
    keep_freed_memory()
    started = time.perf_counter()
    with replaced_folder(layout.base(model.name)) as folder:
        pretraining = fetch_base(model, folder, layout.root, StepProgress(f"base {model.name}"))
        description = describe(folder, base_label(model))
        if keep_unknown_token(folder, model.trust_remote_code):
            print(f"base {model.name}: its tokenizer's files now keep the unknown token")
        record = BaseRecord(
            model=model.name,
            source=_source(config),
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


def _source(config: Config) -> str:
    model = config.model
    if model.kind is ModelKind.hub:
        return f"hub: {model.repository}@{model.revision}"
    if model.kind is ModelKind.local:
        return f"local: {model.path}"
    return f"pre-trained here, seed {model.pretrain_seed}"
