"""README.md of an exported model: front matter as the hub reads it, and what was compared, decided
and checked, in words.

The same records give the same text: it names no time, no machine and no row of the data.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorascope.adapters.exportable import ADAPTER
from lorascope.adapters.kinds import method_of
from lorascope.comparing.results import CellScore, Measure, SeedTrial
from lorascope.comparing.ruling import Findings
from lorascope.config import APART
from lorascope.records import Study, TrialRecord
from lorascope.reporting import units
from lorascope.reporting.cell_names import CellNames
from lorascope.reporting.pages.recommendation import answer, cost_label

COMMANDS = ("vllm ", "llama-server ")
SHOWN_VERSIONS = ("lorascope", "torch", "transformers", "peft", "bitsandbytes", "torchao")
TOLD_SETTINGS = (
    "objective", "steps", "epochs", "batch_size", "learning_rate", "schedule", "warmup_fraction",
    "weight_decay", "qat",
)  # fmt: skip
"""Of train; the trial's identity covers all."""
LIBRARIES = {"adapter": "peft", "merged": "transformers", "gguf": "gguf"}
"""Form -> the hub's word for what loads it."""


@dataclass(frozen=True)
class Exported:
    """What a card says beside the records of the study."""

    form: str
    """adapter, merged or gguf."""
    base: str
    """The base's name on the hub, or the study's."""
    base_revision: str | None
    dataset: str | None
    """The data's name on the hub; None of own files."""
    license: str | None
    commit: str | None
    """That the trial was trained at."""
    checked: tuple[str, ...]
    """What was found when the files were loaded again."""
    load: tuple[str, ...]
    """Lines of Markdown: how to load it."""
    served: tuple[str, ...]
    """How a server loads it, and what of that was not tried."""
    prompt: str | None
    """As training wrote it, with {question} in place of one; None of what answers none."""


def model_card(trial: TrialRecord, study: Study, findings: Findings, exported: Exported) -> str:
    """The whole text, front matter first."""
    score = _score_of(trial, findings)
    lines = [
        f"# {trial.trial}", "", _what_it_is(trial, study, exported), "",
        *_section("How to load it", exported.load),
        *_section("How to serve it", _as_markdown(exported.served)),
        *_section("The prompt", _prompt(exported.prompt)),
        *_section("What was compared", _compared(study, findings)),
        *_section("The decision", _decision(trial, findings, score, exported)),
        *_section("How it was trained", _trained(trial, study, exported)),
        *_section("What was checked", exported.checked),
    ]  # fmt: skip
    return f"{_front_matter(trial, study, findings, exported)}\n" + "\n".join(lines).rstrip() + "\n"


def _section(title: str, lines: Sequence[str] | Iterator[str]) -> list[str]:
    body = list(lines)
    return [f"## {title}", *body, ""] if body else []


def _front_matter(trial: TrialRecord, study: Study, findings: Findings, exported: Exported) -> str:
    from huggingface_hub import ModelCardData

    classes = study.data.scoring == "classes"
    task = "text-classification" if classes else "text-generation"
    results = _results(trial, study, findings, task, exported)
    data = ModelCardData(
        base_model=exported.base,
        library_name=LIBRARIES[exported.form],
        license=exported.license,
        datasets=exported.dataset,
        pipeline_tag=task,
        tags=["lorascope", method_of(trial.key.method).label.lower().replace(" ", "-")],
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=trial.trial if results else None,
        eval_results=results or None,
        # The hub's word for what stands between a base and this.
        base_model_relation={"adapter": "adapter", "merged": "finetune", "gguf": "quantized"}[
            exported.form
        ],
    )
    return f"---\n{data.to_yaml()}\n---\n"


def _results(
    trial: TrialRecord, study: Study, findings: Findings, task: str, exported: Exported
) -> list[Any]:
    """Scores of this very trial on test items, by itself, which merged weights have none of."""
    from huggingface_hub import EvalResult

    own = study.scores_of(trial).get(APART)
    if exported.form != ADAPTER or own is None or _score_of(trial, findings) is None:
        return []
    dataset = exported.dataset
    test = own.splits["test"]
    found = {"accuracy": test.accuracy, "loss": test.completion_loss_nats}
    predicted = "class" if study.data.scoring == "classes" else "completion token"
    names = {"accuracy": "Accuracy", "loss": f"Loss, nats a {predicted}"}
    return [
        EvalResult(
            task_type=task,
            dataset_type=dataset or study.data.name,
            dataset_name=study.data.name,
            dataset_split="test",
            metric_type=kind,
            metric_name=names[kind],
            metric_value=value,
        )
        for kind, value in found.items()
        if value is not None
    ]


def _score_of(trial: TrialRecord, findings: Findings) -> CellScore | None:
    """The cell of the study that the trial is a seed of, apart on its base where it has several."""
    cells = [c for c in findings.cells if any(t.trial == trial.trial for t in c.trials)]
    return min(cells, key=lambda c: c.cell != c.cell.apart, default=None)


def _what_it_is(trial: TrialRecord, study: Study, exported: Exported) -> str:
    dials = ", ".join(
        method_of(trial.key.method).dial(name).words(value)
        for name, value in trial.key.dials.items()
        if not isinstance(value, bool) or value
    )
    label = method_of(trial.key.method).label
    what = {
        "adapter": f"A {label} adapter",
        "merged": f"A model with a {label} adapter merged into its weights",
        "gguf": f"A model with a {label} adapter merged into its weights, as GGUF",
    }[exported.form]
    base = f"{exported.base} stored as {trial.key.quant}"
    return f"{what} ({dials}; {trial.key.targets}), trained on {study.data.name} beside {base}."


BLANKS = {" ": "a space", "\n": "a line break"}


def _prompt(prompt: str | None) -> Iterator[str]:
    if prompt is not None:
        yield "It was trained and scored with prompts written so, special tokens included:"
        # Longer than any in the prompt, which would close it.
        ticks = max((len(run) for run in re.findall("`+", prompt)), default=0)
        fence = "`" * max(3, ticks + 1)
        yield from ("", fence, prompt, fence)
        if prompt[-1:].isspace():
            yield ""
            yield (
                f"It ends with {BLANKS.get(prompt[-1], 'a blank')}, which counts: without it the "
                "tokenizer may give other tokens than those that were trained, and the model other "
                "answers."
            )


def _compared(study: Study, findings: Findings) -> Iterator[str]:
    adapters = [score for score in findings.cells if not score.cell.base]
    bases = [score.cell.quant for score in findings.cells if score.cell.base]
    splits = study.data.splits
    yield (
        f"{_number(len(adapters), 'configuration')} of adapters{_seeds(adapters)} and "
        f"{_number(len(bases), 'bare base')} ({', '.join(bases)}), on the same items: "
        f"{units.count(splits['validation'].rows)} validation items choose, "
        f"{units.count(splits['test'].rows)} test items only report. Intervals are of 95 %."
    )


def _seeds(adapters: Sequence[CellScore]) -> str:
    """How many of each, in brackets: a search trains more of what is close."""
    counts = sorted({len(score.trials) for score in adapters})
    if len(counts) > 1:
        return f" ({counts[0]} to {counts[-1]} seeds a configuration)"
    each = " each" if len(adapters) > 1 else ""
    return f" ({_number(counts[0], 'seed')}{each})" if counts else ""


def _number(count: int, noun: str) -> str:
    return f"{units.count(count)} {noun}" if count == 1 else f"{units.count(count)} {noun}s"


def _as_markdown(note: Sequence[str]) -> Iterator[str]:
    """Commands as code, sentences as they are."""
    for line in note:
        yield from (("```", line, "```", "") if line.startswith(COMMANDS) else (line,))


def _decision(
    trial: TrialRecord, findings: Findings, score: CellScore | None, exported: Exported
) -> Iterator[str]:
    decision, names = findings.decision, CellNames.of(findings)
    if score is None:
        yield "This trial is none of the study's: nothing was decided about it."
        return
    said = answer(findings)
    if decision.recommended is not None and decision.recommended.apart == score.cell.apart:
        form = decision.recommended.serve
        other = "" if form == APART else f", merged and stored as {form}"
        other += ", which these files are not" if other and exported.form == ADAPTER else ""
        yield f"The declared rule ships this configuration{other}. {said.headline}: {said.state}."
        yield from _other_form(trial, exported, form)
        # What it costs to serve or to store is the adapter's on its base, too.
        cost = cost_label(findings) if exported.form != ADAPTER else None
        yield from _facts([fact for fact in said.facts if fact.label != cost])
    else:
        yield (
            f"This is not what the declared rule answers; it was chosen by name. The answer: "
            f"{said.headline}: {said.state}."
        )
        yield from _other_form(trial, exported, APART)
    yield ""
    shown = [score.cell, decision.reference, *(c.cell for c in findings.cells if c.cell.base)]
    measure = findings.measure
    yield f"| configuration | test {measure.words}, {measure.unit} | 95 % interval | items |"
    yield "|---|---:|---:|---:|"
    for cell in dict.fromkeys(one for one in shown if one is not None):
        estimate = findings.score(cell).test(measure)
        if estimate is not None:
            yield (
                f"| {names.full(cell)} | {measure.score(estimate.value)} | "
                f"{measure.interval(estimate.ends)} | {units.count(estimate.items)} |"
            )
    yield from _own_seed(trial, score, measure)


def _other_form(trial: TrialRecord, exported: Exported, judged: str) -> Iterator[str]:
    """That merged files are not what was scored: the adapter apart on its base, or a form."""
    if exported.form == ADAPTER:
        return
    if judged == APART:
        yield (
            f"What was scored and judged is the adapter on its base stored as {trial.key.quant}. "
            "These files are another form of it, merged, and have no score of their own: what "
            "their rounding changes is below, under what was checked."
        )
    else:
        yield (
            f"What was judged is the merged model as {judged} stores it. These files are merged "
            "as well; in another type they have no score of their own."
        )


def _own_seed(trial: TrialRecord, score: CellScore, measure: Measure) -> Iterator[str]:
    """The trial's own score where the configuration has several seeds."""
    own: SeedTrial = next(t for t in score.trials if t.trial == trial.trial)
    if own.test is not None and len(score.trials) > 1:
        yield ""
        yield (
            f"This is seed {own.seed}, alone {measure.score(own.test)} {measure.unit}; the table "
            f"has the mean over {len(score.trials)} seeds."
        )


def _facts(facts: Sequence[Any]) -> Iterator[str]:
    if facts:
        yield ""
    for fact in facts:
        yield f"- {fact.label}: {fact.value} ({fact.note})"


def _trained(trial: TrialRecord, study: Study, exported: Exported) -> Iterator[str]:
    settings, data = trial.settings, study.data
    train = settings.get("train")
    if isinstance(train, Mapping):
        told = ", ".join(f"{key} {train[key]}" for key in TOLD_SETTINGS if train.get(key))
        yield f"- Training: {told}; seed {trial.key.seed}"
    rows = ", ".join(f"{units.count(card.rows)} {split}" for split, card in data.splits.items())
    same = settings.get("data") == data.content_sha256
    told = f"rows: {rows}; template {data.template}" if same else "prepared otherwise than now"
    yield f"- Data: {data.name}, {told}; SHA-256"
    yield f"  `{settings.get('data')}`"
    revision = f" at commit `{exported.base_revision}`" if exported.base_revision else ""
    yield f"- Base: {exported.base}{revision}, as {trial.key.quant}; SHA-256 of what was stored"
    yield f"  `{settings.get('base')}`"
    made, commit = trial.provenance, exported.commit or "unknown"
    dirty = ", with changes that are in no commit" if made.git_dirty else ""
    yield f"- Code: commit `{commit}`{dirty}; trial identity `{trial.identity}`"
    versions = [f"{n} {made.versions[n]}" for n in SHOWN_VERSIONS if n in made.versions]
    yield f"- Versions: {', '.join(versions)}; Python {made.python}"
