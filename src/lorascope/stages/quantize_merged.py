"""quantize-merged: the shipped model in the form that it is served in, verified as it is loaded
again from disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lorascope.comparing.shipping import NothingShips, choose, choose_form
from lorascope.config import APART, Config
from lorascope.errors import ConfigError, ModelError, RecordError, VerificationError
from lorascope.files.layout import RECORD, Layout
from lorascope.files.replacing import replaced_folder, write_atomically
from lorascope.files.store import read_record, write_record
from lorascope.records import EvaluationRecord, ServedRecord, TrialRecord
from lorascope.study.collect import collect, collect_all
from lorascope.study.declared import declare_trial, evaluation_identity, scores_name, unservable
from lorascope.study.intact import require_adapter
from lorascope.study.intact_scores import require_scores

NOTHING_SERVED = "nothing_served.txt"
"""In place of a served model: why there is none."""


def command(configs: Sequence[Config], layout: Layout, *_: object) -> ServedRecord | None:
    """Store the shipped trial, merged, in its form.

    None where `serve` is apart or the rule recommends an adapter apart, where nothing ships, and
    where the trial is of a method that cannot be merged: the folder then holds the reason alone.

    Raises:
        ConfigError: `ship` names no trial of the declared grid, or several forms are declared.
        VerificationError: what is loaded again is not what was scored.
        DeviceError: merging or storing needs more memory than there is.
    """
    target = layout.served(configs[0].model.name)
    found = _shipped(configs, layout)
    if isinstance(found, str):
        with replaced_folder(target) as folder:
            write_atomically(folder / NOTHING_SERVED, f"{found}\n".encode())
        print(found)
        return None
    config, trial, chosen_by = found
    require_adapter(trial, layout.trials(config.quant.name) / trial.trial)
    scores = layout.evaluations(config.quant.name) / scores_name(config, trial.trial)
    evaluation = _scored(scores, evaluation_identity(config, layout, trial))
    from lorascope.planning.served import require_room
    from lorascope.scoring.shipped_form import failure, serve_verified

    device = require_room(config, layout)

    with replaced_folder(target) as folder:
        try:
            record = serve_verified(
                folder, config, layout, trial, evaluation, scores, chosen_by, device
            )
        except ModelError as error:
            raise ConfigError(
                "serve", config.form, str(error), "Ship another form or another trial."
            ) from error
        if not record.passed:
            raise VerificationError(failure(record, config))
        write_record(folder, record)
    print(_sentence(record))
    return record


def _shipped(configs: Sequence[Config], layout: Layout) -> tuple[Config, TrialRecord, str] | str:
    """The shipped trial, its point of the grid, and how it was chosen; or why nothing is stored."""
    ship = configs[0].ship
    if all(config.serve is None for config in configs):
        return "serve: apart: adapters stay apart on their base."
    try:
        study = (collect if ship == "auto" else collect_all)(list(configs), layout)
        trial, chosen_by, _ = choose(ship, study)
    except NothingShips as found:
        return str(found)
    form = choose_form(ship, trial, study)
    if form == APART:
        return (
            f"{trial.trial} ({chosen_by}) is served apart, as an adapter on its base: so it was "
            f"chosen. To store a merged form all the same, name it in ship: {trial.trial}@<form>."
        )
    config = next(
        c for c in configs
        if c.form == form and declare_trial(c, layout).identity == trial.identity
    )  # fmt: skip
    if reason := unservable(config):
        return f"{trial.trial} ({chosen_by}) is not served as {form}: {reason}."
    return config, trial, chosen_by


def _scored(folder: Path, identity: str) -> EvaluationRecord:
    """The scores of this very form."""
    if (folder / RECORD).is_file():
        record = read_record(folder, EvaluationRecord)
        if record.identity == identity:
            require_scores(record, folder)
            return record
    raise RecordError(
        f"{folder.name}: not scored in this form. Run `lorascope evaluate` with the same settings."
    )


def _sentence(record: ServedRecord) -> str:
    served = record.served
    bits = served.bits_per_quantized_parameter
    weighs = "" if bits is None else f", {bits:.3g} bits a quantized parameter"
    same = "byte for byte what was scored" if record.as_scored else "not the bytes that were scored"
    return (
        f"{record.trial} ({record.chosen_by}) as {served.name}: {served.total_bytes:,} bytes"
        f"{weighs}; {same}; loaded again, loss {record.loss_nats:.4f} nats on {record.items} "
        f"validation items, and {record.scored_loss_nats:.4f} by the scores"
    )
