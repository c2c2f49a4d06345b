"""merge: the shipped trial as one plain model, verified against what was trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lorascope.adapters.kinds import kind_of
from lorascope.comparing.shipping import NothingShips, choose
from lorascope.config import Config
from lorascope.errors import VerificationError
from lorascope.files.layout import Layout
from lorascope.files.replacing import replaced_folder, write_atomically
from lorascope.files.store import write_record
from lorascope.records import MergeRecord
from lorascope.study.collect import collect, collect_all
from lorascope.study.declared import declare_trial
from lorascope.study.intact import require_adapter, require_data, require_stored

NOTHING_SHIPPED = "nothing_shipped.txt"
"""In place of a merged model: why there is none."""


def command(configs: Sequence[Config], layout: Layout, *_: object) -> MergeRecord | None:
    """Merge the trial that `ship` names, and verify the result.

    None where `ship` is auto and the rule lets nothing ship, and where the trial is of a method
    that cannot be merged: the folder then holds the reason alone, so that no older model stays
    there and the report, which comes after, says the same.

    Raises:
        ConfigError: `ship` names no trial of the declared grid.
        VerificationError: the merged model is further off than conf/merge allows.
    """
    target = layout.merged(configs[0].model.name)
    try:
        # A trial that is named may be one that the answer did not need.
        gathered = collect if configs[0].ship == "auto" else collect_all
        trial, chosen_by, score = choose(configs[0].ship, gathered(list(configs), layout))
    except NothingShips as found:
        _explain(target, str(found))
        return None
    config = next(c for c in configs if declare_trial(c, layout).identity == trial.identity)
    reason = kind_of(config.adapter).unmergeable
    if reason is not None:
        _explain(
            target,
            f"{trial.trial} ({chosen_by}) is not merged: {reason}. Serve it as an adapter on its "
            "base, with PEFT's PeftModel.from_pretrained.",
        )
        return None
    require_stored(config, layout)
    require_data(config, layout)
    require_adapter(trial, layout.trials(config.quant.name) / trial.trial)
    from lorascope.scoring.shipped_model import failure, merge_verified

    with replaced_folder(target) as folder:
        record = merge_verified(folder, config, layout, trial, chosen_by, score)
        if not record.passed:
            raise VerificationError(failure(record, config))
        write_record(folder, record)
    print(_sentence(record))
    return record


def _explain(target: Path, reason: str) -> None:
    with replaced_folder(target) as folder:
        write_atomically(folder / NOTHING_SHIPPED, f"{reason}\n".encode())
    print(reason)


def _sentence(record: MergeRecord) -> str:
    """With what 16 bits do to the adapter on its base, for information."""
    gap = record.arithmetic_gap
    sentence = (
        f"merged {record.trial}: agreement "
        f"{record.prediction_agreement:.4f}, largest logit difference "
        f"{record.largest_logit_difference:.2g}, loss {record.merged_loss_nats:.4f} against "
        f"{record.adapter_loss_nats:.4f} nats"
    )
    if gap is not None:
        sentence += (
            f"; computed in {gap.compute}, as it was trained, adapter on base agrees on "
            f"{gap.prediction_agreement:.4f}, logits differ by at most "
            f"{gap.largest_logit_difference:.2g}, and its loss is {gap.adapter_loss_nats:.4f} nats"
        )
    return sentence
