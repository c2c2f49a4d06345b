"""A trial scored as it would be served: merged, stored in its form, loaded again from disk."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

from lorascope.config import Config
from lorascope.errors import ModelError
from lorascope.execution.scored_base import import_scoring, items_of_base
from lorascope.files.layout import Layout
from lorascope.files.replacing import replaced_folder
from lorascope.files.store import write_record
from lorascope.records import EvaluationRecord, TrialRecord


class NotServedError(Exception):
    """A trial that cannot be merged and stored in the form that it is asked for in."""


def score_served(
    config: Config, layout: Layout, name: str, identity: str, trial: TrialRecord | None, place: str
) -> EvaluationRecord:
    """Merge `trial`, store it in its form, load that again from disk, and score it.

    Raises:
        NotServedError: it cannot be merged, or stored so.
        DeviceError: merging or scoring needs more memory than there is.
    """
    mode = config.serve
    assert trial is not None
    assert mode is not None
    started = time.perf_counter()
    import_scoring()
    from lorascope.planning.served import require_room
    from lorascope.quantizers.autoround.library import require_library
    from lorascope.scoring.evaluation import LoadedBase, score_subject
    from lorascope.scoring.served_form import store_served

    LoadedBase.let_go()
    require_library(mode)
    device = require_room(config, layout)
    base = layout.base(config.model.name)
    stored = layout.quantized(config.model.name, config.quant.name)
    train = layout.data(config.model.name, config.data.name) / "train.jsonl"
    adapter = layout.trials(config.quant.name) / trial.trial / "adapter"
    with replaced_folder(layout.evaluations(config.quant.name) / name) as scratch:
        # A merged model is large, and made again from the adapter at any time.
        with TemporaryDirectory(dir=scratch) as place_of_model:
            target = Path(place_of_model)
            try:
                form = store_served(
                    stored, config.quant, base, adapter, mode, device, target, train
                )
            except ModelError as error:
                raise NotServedError(str(error)) from error
            with LoadedBase.served(target, mode, config):
                record = score_subject(
                    config, layout, name, identity, trial, scratch, place, started, form,
                    items_of_base(config, layout),
                )  # fmt: skip
        write_record(scratch, record)
    return record
