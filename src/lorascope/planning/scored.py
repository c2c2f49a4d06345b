"""Memory of scoring before it starts: the passes that scoring makes, on fake tensors.

Log-likelihoods and distributions are traced as they run. Of a generation the first pass is traced,
as if its last token were in the prompt: no later pass holds more keys and values, nor reads more.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from peft import PeftModel

from lorascope.adapters.lora.kind import LoraConfig
from lorascope.bases.folder import read_json
from lorascope.bases.heads import gives_classes
from lorascope.bases.transformers_config import context_tokens, text_config
from lorascope.config import Config, QuantConfig, Scoring, TrainConfig
from lorascope.counting.scored_batches import SCORED_SPLITS, BatchRule, LargestRows, Sample
from lorascope.data.rows import read_rows
from lorascope.data.tokenization import load_tokenizer
from lorascope.files.layout import FORGETTING, Layout
from lorascope.files.store import read_record
from lorascope.machine.memory import MemoryLimit
from lorascope.meters.batches import Batch
from lorascope.objectives.evaluation import samples_at_once
from lorascope.objectives.kinds import Places
from lorascope.objectives.logits import forward_at
from lorascope.planning.arithmetic import GIGABYTE
from lorascope.planning.depth import inference_bytes
from lorascope.planning.fake_mode import attention_masks
from lorascope.planning.fake_model import DEVICE, FakeModelSpec
from lorascope.planning.fits import failed_prediction_passed_over, generous_need
from lorascope.planning.placed import each_device
from lorascope.planning.plan import workspace_bytes
from lorascope.planning.subject import PlanSubject, sample_lengths, spec_of
from lorascope.records import DataCard
from lorascope.scoring.distributions import MAX_TOKENS, group_scores
from lorascope.scoring.lm_eval_model import largest_rows
from lorascope.scoring.log_likelihoods import token_scores
from lorascope.study.intact import read_forgetting


@dataclass(frozen=True)
class ScoredSubject:
    """A model with an adapter on it, and the rows that it is scored on."""

    spec: FakeModelSpec
    device: str
    """cpu or cuda."""
    batch_size: int
    rows: LargestRows
    places: int = 1
    """Devices over which the base's layers are placed."""

    @property
    def rule(self) -> BatchRule:
        """The batches of its rows."""
        vocabulary = text_config(self.spec.config).get_text_config().vocab_size
        return BatchRule(self.batch_size, int(vocabulary))

    def traced(self, *batches: Batch) -> PlanSubject:
        """The model as traces take it, whatever it is trained with."""
        return PlanSubject(self.spec, self.device, TrainConfig(), batches[0], batches)


def scored_subject(
    config: Config, model_config: Mapping[str, object], kind: str, rows: LargestRows
) -> ScoredSubject:
    """A trial as it is declared."""
    spec = spec_of(config.quant, config.adapter, config.model.attention, model_config, kind)
    places = config.runtime.place
    return ScoredSubject(spec, kind, config.evaluate.batch_size, rows, places)


def all_declared_rows(
    config: Config,
    model_config: Mapping[str, object],
    card: DataCard | None,
    forgetting: DataCard | None,
) -> LargestRows:
    """`declared_rows` of the data, and of what may be forgotten."""
    rows = declared_rows(config, model_config, card)
    if config.forgetting is None:
        return rows
    if forgetting is not None:
        return rows.or_larger(_read_by_loss(forgetting, config.forgetting.kept_splits))
    return rows.or_larger(
        declared_rows(replace(config, data=config.forgetting), model_config, None)
    )


def declared_rows(
    config: Config, model_config: Mapping[str, object], card: DataCard | None
) -> LargestRows:
    """The largest rows that a data card admits or, before data are prepared, the config: choices
    are taken to be no longer than the completions that are trained."""
    context = context_tokens(text_config(model_config))
    longest, trained, scoring = min(config.data.max_tokens, context), None, config.data.scoring
    if card is not None:
        lengths = sample_lengths(card, SCORED_SPLITS)
        longest, trained, scoring = lengths.longest, lengths.trained, Scoring(card.scoring)
    read = longest - 1
    generated = min(read + config.evaluate.max_new_tokens, context)
    return LargestRows(
        Sample(read, read if trained is None else min(trained, read)),
        generated if scoring is Scoring.answer else 0,
    )


def score_bytes(subject: ScoredSubject) -> int:
    """The peak of scoring, base and adapter included; of several devices that of the fullest.

    Raises:
        ModelError: the model cannot be traced.
    """
    if subject.places > 1:
        found = each_device(
            subject.spec,
            subject.places,
            lambda spec: score_bytes(replace(subject, spec=spec, places=1)),
        )
        return max(peak for _, peak in found)
    peak = partial(inference_bytes, subject.traced(Batch(1, 1, padded=False)))
    if gives_classes(text_config(subject.spec.config)):
        classified = peak(partial(_classify, subject), layers_keep=False)
        return classified + workspace_bytes(subject.device)
    peaks = [peak(partial(_read, subject), layers_keep=False)]
    if subject.rows.generated_tokens:
        peaks.append(peak(partial(_begin_generation, subject), layers_keep=True))
    return max(peaks) + workspace_bytes(subject.device)


def _read(subject: ScoredSubject, model: PeftModel) -> None:
    """The largest batches of log-likelihoods, and of distributions, which read the last token of a
    row too."""
    read = subject.rows.read
    for samples, tokens, positions in subject.rule.fullest(read):
        places = torch.zeros(positions, dtype=torch.long, device=DEVICE)
        with attention_masks(False, subject.device):
            token_scores(model, _ids(samples, tokens), places, places, places)
    for samples, tokens, positions in subject.rule.fullest(replace(read, tokens=read.tokens + 1)):
        most = min(positions, max(MAX_TOKENS, read.positions))
        places, ids = torch.zeros(most, dtype=torch.long, device=DEVICE), _ids(samples, tokens)
        with attention_masks(samples > 1, subject.device):
            group_scores(model, ids, places, torch.ones_like(ids))


def _classify(subject: ScoredSubject, model: PeftModel) -> None:
    """The largest batch of rows with classes."""
    tokens = subject.rows.read.tokens + 1
    samples = samples_at_once(subject.batch_size, tokens)
    places = Places(torch.arange(samples, device=DEVICE) * tokens, [samples])
    ids = _ids(samples, tokens)
    with attention_masks(samples > 1, subject.device):
        base, mask = model.get_base_model(), torch.ones_like(ids)
        logits = forward_at(base, ids, mask, places).all().float()
        torch.nn.functional.log_softmax(logits, dim=-1)


def _begin_generation(subject: ScoredSubject, model: PeftModel) -> None:
    """The first pass of the largest batches, which fills the cache of keys and values."""
    last = {"logits_to_keep": 1} if model.get_base_model()._supports_logits_to_keep() else {}
    forward = partial(model, use_cache=True, **last)
    for samples, tokens, _ in subject.rule.fullest(Sample(subject.rows.generated_tokens, 1)):
        ids = _ids(samples, tokens)
        # No batch finds the cache of one before it.
        forward(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, -1].float()


def _ids(samples: int, tokens: int) -> torch.Tensor:
    return torch.zeros((samples, tokens), dtype=torch.long, device=DEVICE)


def scoring_refusal(config: Config, layout: Layout, kind: str, limit: MemoryLimit) -> str | None:
    """Why a trial cannot be scored here, in the form that it is served in; None where it can, and
    where that cannot be known.

    Args:
        kind: cpu or cuda.
    """
    with failed_prediction_passed_over("scoring"):
        declared = _declared_subject(config, layout, kind)
        if _generous_need(declared) <= limit.bytes:
            return None
        subject = _prepared_subject(declared, config, layout)
        needed = score_bytes(subject)
        return None if needed <= limit.bytes else _reason(subject, limit, needed)
    return None


def prepared_score_bytes(config: Config, layout: Layout, kind: str) -> int:
    """`score_bytes` of a trial in the form that it is served in, on the rows that are prepared."""
    declared = _declared_subject(config, layout, kind)
    return score_bytes(_prepared_subject(declared, config, layout))


def _scored_base(config: Config, layout: Layout) -> tuple[Path, Config]:
    """The folder of what is scored, and its settings."""
    if config.serve is not None:
        return layout.base(config.model.name), _as_served(config, config.serve)
    return layout.quantized(config.model.name, config.quant.name), config


def _declared_subject(config: Config, layout: Layout, kind: str) -> ScoredSubject:
    folder, config = _scored_base(config, layout)
    model_config = read_json(folder / "config.json")
    card = read_record(layout.data(config.model.name, config.data.name), DataCard)
    rows = all_declared_rows(config, model_config, card, read_forgetting(config, layout))
    return scored_subject(config, model_config, kind, rows)


def _prepared_subject(declared: ScoredSubject, config: Config, layout: Layout) -> ScoredSubject:
    """The same with the rows that there are."""
    folder, config = _scored_base(config, layout)
    card = read_record(layout.data(config.model.name, config.data.name), DataCard)
    rows = _prepared_rows(config, layout, folder, Scoring(card.scoring))
    # What is longer than the context is refused row by row, with the setting that is too large.
    context = context_tokens(text_config(declared.spec.config))
    generated = min(rows.generated_tokens, context)
    return replace(declared, rows=replace(rows, generated_tokens=generated))


def _as_served(config: Config, mode: QuantConfig) -> Config:
    """The served mode's base; of adapters, which a merged model has none of, the smallest."""
    return replace(config, quant=mode, adapter=LoraConfig(rank=1))


def _prepared_rows(config: Config, layout: Layout, folder: Path, scoring: Scoring) -> LargestRows:
    """The largest rows that there are, by the tokenizer in `folder`: a card tells no lengths of
    prompts and choices."""
    data = layout.data(config.model.name, config.data.name)
    tokenizer, new_tokens = load_tokenizer(folder), config.evaluate.max_new_tokens
    rows = [row for split in SCORED_SPLITS for row in read_rows(data / f"{split}.jsonl")]
    largest = largest_rows(tokenizer, rows, scoring, new_tokens)
    if config.forgetting is None:
        return largest
    kept = config.forgetting.kept_splits
    rows = [row for split in kept for row in read_rows(data / FORGETTING / f"{split}.jsonl")]
    return largest.or_larger(largest_rows(tokenizer, rows, Scoring.loss, new_tokens))


def _read_by_loss(card: DataCard, splits: Sequence[str]) -> LargestRows:
    """The largest rows of these splits, which are scored by loss alone."""
    lengths = sample_lengths(card, splits)
    read = lengths.longest - 1
    trained = read if lengths.trained is None else min(lengths.trained, read)
    return LargestRows(Sample(read, trained), 0)


def _reason(subject: ScoredSubject, limit: MemoryLimit, needed: int) -> str:
    return (
        f"evaluate.batch_size={subject.batch_size}: needs {needed / GIGABYTE:.3g} GB to score, and "
        f"there are {limit.bytes / GIGABYTE:.3g} GB ({limit.source}). {_remedy(subject, limit)}"
    )


def _remedy(subject: ScoredSubject, limit: MemoryLimit) -> str:
    size = subject.batch_size
    while size > 1:
        size //= 2
        needed = score_bytes(replace(subject, batch_size=size))
        if needed <= limit.bytes:
            return (
                f"Set evaluate.batch_size={size}, which needs {needed / GIGABYTE:.3g} GB, for all "
                "that is compared."
            )
    return (
        "A batch of one row does not fit either: choose a mode with fewer bits, or set "
        "runtime.memory_limit_gb if there is more."
    )


def _generous_need(subject: ScoredSubject) -> int:
    """More bytes than scoring can need, from shapes alone."""
    rows, rule = subject.rows, subject.rule
    longest = max(rows.read.tokens + 1, rows.generated_tokens)
    batches = [
        Batch(samples, tokens, padded=True)
        for samples, tokens, _ in rule.fullest(Sample(longest, rows.read.positions))
    ]
    return generous_need(subject.traced(*batches))
