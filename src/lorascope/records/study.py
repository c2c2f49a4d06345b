"""Scores of a trial or a bare base, the merged model, and all records of one declared grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorascope.config import APART, DecideConfig, Search
from lorascope.records.inputs import BaseRecord, DataCard, FootprintRecord
from lorascope.records.items import ItemResult
from lorascope.records.served import ServedForm, ServedRecord
from lorascope.records.trial import RECORD_FORMAT, Provenance, TrialKey, TrialRecord


@dataclass(frozen=True)
class SplitScore:
    """Scores on one split."""

    items: int
    accuracy: float | None
    """Share right; None where rows cannot be right or wrong."""
    accuracy_standard_error: float | None
    completion_loss_nats: float
    """Mean loss of all completion tokens of the split."""
    accuracy_norm: float | None = None
    """Share of items whose choice with the highest log-likelihood a character is right (lm-eval's
    `acc_norm`)."""
    items_unlike_stock: int | None = None
    """Number of items that stock lm-eval splits into other tokens; None in older records."""
    likelier_share: float | None = None
    """Share of pairs whose chosen reply is the likelier one, whatever it was before training; None
    without scoring=preference."""
    margin_nats: float | None = None
    """Mean margin of a pair, as `ItemResult` has it; None for a bare base too."""


@dataclass(frozen=True)
class Throughput:
    """Tokens that a model read and wrote while it was scored, padding excluded, and the seconds of
    its forward passes with the making of their batches."""

    read_tokens: int
    """Of prompts and completions whose losses were asked for."""
    read_seconds: float
    written_tokens: int
    """Of answers that were generated, the token that ends each included; 0 where none were."""
    written_seconds: float
    """The reading of their prompts included."""


@dataclass(frozen=True)
class EvaluationRecord:
    """Scores of one trial, or of the bare base (trial_identity=None)."""

    name: str
    """The trial's folder name, with '@' and the mode that it is served in, or 'base'."""
    identity: str
    quant: str
    """The mode of the stored base."""
    trial_identity: str | None
    key: TrialKey | None
    scoring: str
    batch_size: int
    splits: dict[str, SplitScore]
    """Keys validation, test, and forgetting where the study has rows of the base's own domain."""
    lm_eval_metrics: dict[str, float]
    """Further lm-eval tasks: 'task/metric' -> value."""
    items_sha256: dict[str, str]
    seconds: float
    provenance: Provenance
    format: int = RECORD_FORMAT
    distributions_sha256: str | None = None
    """Digest of the file with next-token distributions on the test split."""
    protocol: dict[str, str] = field(default_factory=dict)
    """The rules of scoring in words, for whoever wants the same numbers."""
    served: ServedForm | None = None
    """None for an adapter that was kept apart on its base, and for a bare base."""
    forgetting: str | None = None
    """The dataset of the split forgetting; None without one, and in older records."""
    throughput: Throughput | None = None
    """None in older records."""

    @property
    def form(self) -> str:
        """The name of the form that was scored."""
        return APART if self.served is None else self.served.name


@dataclass(frozen=True)
class Example:
    """What a bare base or a trial writes to one prompt."""

    item: str
    """Hash of the row."""
    prompt: str
    """As the model read it, special tokens included."""
    reference: str
    """The row's completion, without the end-of-text token and outer blanks."""
    text: str
    """What was written, without special tokens and outer blanks."""
    tokens: int
    """Of what was written, the one that ended it included."""
    ended: bool
    """Whether it ended by itself; else it was cut at the longest answer or the context's end."""


@dataclass(frozen=True)
class ExamplesRecord:
    """Which prompts a bare base (trial_identity=None) or a trial has answered, and how."""

    name: str
    """As its scores are called."""
    identity: str
    quant: str
    trial_identity: str | None
    examples: int
    longest_tokens: int
    temperature: float
    examples_sha256: str
    seconds: float
    provenance: Provenance
    format: int = RECORD_FORMAT


@dataclass(frozen=True)
class ArithmeticGap:
    """The adapter on its base as it was trained and scored, in 16 bits, beside the merged model in
    float32: what that arithmetic does to its predictions. No limit holds for it."""

    compute: str
    """Type of the products, such as bfloat16."""
    largest_logit_difference: float
    prediction_agreement: float
    adapter_loss_nats: float


@dataclass(frozen=True)
class MergeRecord:
    """A merged model and its verification."""

    trial: str
    quant: str
    precision: str
    chosen_by: str
    """'auto: ...' with the rule and score, or 'named in ship'."""
    validation_score: float | None
    """Of the form that was chosen."""
    items: int
    largest_logit_difference: float
    prediction_agreement: float
    adapter_loss_nats: float
    merged_loss_nats: float
    untied_head: bool
    total_bytes: int
    content_sha256: str
    passed: bool
    provenance: Provenance
    format: int = RECORD_FORMAT
    stop_token_ids: list[int] = field(default_factory=list)
    """Tokens at which generation stops: the base's own, and the one that completions end with."""
    unrounded_logit_difference: float | None = None
    """For INT8: largest logit difference against the adapter on the dequantized base, without the
    rounding of activations that only INT8 inference has."""
    unrounded_agreement: float | None = None
    foreign_names: list[str] = field(default_factory=list)
    """Tensor names that the base's files do not have: programs that load by name may lack them."""
    arithmetic_gap: ArithmeticGap | None = None
    """For a base that computes in 16 bits; None where it computes in float32, and for INT8, whose
    own arithmetic the main figures have."""


@dataclass(frozen=True)
class Study:
    """All records that one declared grid names: what the reports are made of."""

    data: DataCard
    base: BaseRecord
    footprints: list[FootprintRecord]
    trials: list[TrialRecord]
    evaluations: list[EvaluationRecord]
    merge: MergeRecord | None
    missing: dict[str, TrialKey] = field(default_factory=dict)
    """Declared trials without a record, by name."""
    unneeded: dict[str, TrialKey] = field(default_factory=dict)
    """Declared trials that the answer does not need (search=settle), by name, trained or not."""
    missing_settings: dict[str, dict[str, object]] = field(default_factory=dict)
    """Settings of the missing and the unneeded trials, by name."""
    forms: dict[str, list[str]] = field(default_factory=dict)
    """Names of the forms that each declared trial is scored in, by the trial's name; a trial that
    is not among them is scored apart on its base alone."""
    search: Search = Search.grid
    """Whether all declared trials are trained, or those that the answer needs."""
    adapter_parameters: dict[str, int] = field(default_factory=dict)
    """Parameters in the file of each declared trial, trained or not, by name."""
    items: Mapping[str, Mapping[str, Sequence[ItemResult]]] = field(default_factory=dict)
    """Evaluation identity -> split -> scored items, in the split's order."""
    distributions: dict[str, Path] = field(default_factory=dict)
    """Evaluation identity -> file of next-token distributions on the test split."""
    examples: dict[str, list[Example]] = field(default_factory=dict)
    """Evaluation identity -> answers that are kept of the bare base and the leading trials."""
    forgetting: DataCard | None = None
    """Of the rows of the base's own domain; None where none are asked for."""
    served: ServedRecord | None = None
    """The shipped model as it is served, where it was held against scores of this study."""
    decide: DecideConfig = field(default_factory=DecideConfig)
    """The margins of what is good enough to ship, and the cost that it is judged by."""
    made_of_items: dict[object, Any] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """What was computed of records and `items` already; a copy with others begins anew."""

    def forms_of(self, trial: str) -> list[str]:
        """The forms that a declared trial is scored in."""
        return self.forms.get(trial, [APART])

    @property
    def has_served_forms(self) -> bool:
        """Whether a trial is scored in another form than apart."""
        return any(form != APART for forms in self.forms.values() for form in forms)

    def scores_of(self, trial: TrialRecord) -> dict[str, EvaluationRecord]:
        """The scores of a trial that are there, by form."""
        return {e.form: e for e in self.evaluations if e.trial_identity == trial.identity}
