"""The shipped model in the form that it is served in, held against the scores of that form."""

from __future__ import annotations

from pathlib import Path

from lorascope.config import Config
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import Layout
from lorascope.files.provenance import capture
from lorascope.machine.devices import Device, use_threads
from lorascope.machine.environment import use_determinism
from lorascope.objectives.evaluation import summed_loss
from lorascope.objectives.kinds import objective_of
from lorascope.quantizers.loading import load_base
from lorascope.records import EvaluationRecord, ServedRecord, TrialRecord
from lorascope.scoring.items import read_items
from lorascope.scoring.served_form import store_served


def serve_verified(
    folder: Path,
    config: Config,
    layout: Layout,
    trial: TrialRecord,
    evaluation: EvaluationRecord,
    scores: Path,
    chosen_by: str,
    device: Device,
) -> ServedRecord:
    """Store `trial`, merged, in its form in `folder`, load it again from there, and hold its loss
    against `evaluation`, whose items lie in `scores`.

    Raises:
        ModelError: it cannot be merged, or stored so.
    """
    assert config.serve is not None
    use_determinism(config.runtime.deterministic)
    threads = use_threads(config.runtime.threads)
    print(f"merging {trial.trial} and storing it as {config.form}", flush=True)
    stored = layout.quantized(config.model.name, config.quant.name)
    data = layout.data(config.model.name, config.data.name)
    adapter = layout.trials(config.quant.name) / trial.trial / "adapter"
    base = layout.base(config.model.name)
    form = store_served(
        stored, config.quant, base, adapter, config.serve, device, folder, data / "train.jsonl"
    )
    count = config.merge.verify_items
    rows, items = (
        read_rows(data / "validation.jsonl")[:count],
        read_items(scores / "validation.jsonl")[:count],
    )
    model = load_base(folder, config.serve, device, config.model.attention)
    objective = objective_of([config.train]).as_served()
    samples = objective.validation_samples(rows, load_tokenizer(folder))
    summed, weight = summed_loss(objective, model, samples, config.evaluate.batch_size)
    loss = summed / weight
    scored = sum(item.loss_nats for item in items) / sum(item.tokens for item in items)
    validation = evaluation.splits["validation"]
    accurate = validation.accuracy is not None
    return ServedRecord(
        trial=trial.trial,
        quant=config.quant.name,
        served=form,
        chosen_by=chosen_by,
        evaluation=evaluation.identity,
        validation_score=validation.accuracy if accurate else validation.completion_loss_nats,
        as_scored=evaluation.served is not None
        and evaluation.served.content_sha256 == form.content_sha256,
        items=len(rows),
        loss_nats=loss,
        scored_loss_nats=scored,
        passed=abs(loss - scored) <= config.merge.max_loss_gap_nats,
        provenance=capture(layout, device.name, threads, config.runtime.deterministic),
    )


def failure(record: ServedRecord, config: Config) -> str:
    """Why a served form does not pass, in numbers."""
    return (
        f"{record.trial} as {record.served.name}: loaded again from disk, its loss is "
        f"{record.loss_nats:.4f} nats on {record.items} validation items, and its scores say "
        f"{record.scored_loss_nats:.4f} (merge.max_loss_gap_nats="
        f"{config.merge.max_loss_gap_nats}). Delete the scores and run `lorascope evaluate` again, "
        "on this machine."
    )
