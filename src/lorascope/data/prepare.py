"""Prepare a dataset for one model: read, convert, split, render, drop, write, and count."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from lorascope.config import DataConfig, Format, Scoring
from lorascope.data.answers import answer_of, check_settings, unreadable_answers, written_answer
from lorascope.data.card import (
    KeptRow,
    Remarks,
    content_sha256,
    count_sample,
    require_trained,
    summarise_split,
    warnings_of,
)
from lorascope.data.classes import class_row, count_text, rows_by_class, tokenize_texts
from lorascope.data.conversations import Conversation, cluster_of, group_of, shortened
from lorascope.data.files import RawRow
from lorascope.data.formats import to_conversation
from lorascope.data.rows import PreparedRow, Segment, write_rows
from lorascope.data.sources import describe_source, read_source
from lorascope.data.splits import Splits, split_conversations
from lorascope.data.templates import Template, make_template, no_template
from lorascope.data.tokenization import Tokenizer, require_fast, tokenize_row, tokenizer_sha256
from lorascope.data.unfit_rows import RowError, UnfitRows
from lorascope.errors import DataError
from lorascope.records import DataCard, Provenance, SplitCard

OnRow = Callable[[int, int], None]
"""Called with (rows done, rows in all) of the present split."""


@dataclass(frozen=True)
class Source:
    """The sources' rows, converted and split: all that needs no tokenizer."""

    rows_read: int
    cut_questions: int
    splits: Splits
    unfit: UnfitRows
    """Rows that no model could be trained on; they are few enough to leave out."""


def check_source(config: DataConfig, root: Path) -> Source:
    """Read, convert and split without a tokenizer, so that bad rows fail before any training:
    ConfigError for settings that cannot go together, DataError for a missing or damaged file, more
    unfit rows than data.max_dropped_fraction allows, or an empty split."""
    check_settings(config)
    raw = read_source(config, root)
    unfit = UnfitRows(config, {source: len(rows) for source, rows in raw.items()})
    sources: dict[str, list[Conversation]] = {source: [] for source in raw}
    for source, rows in raw.items():
        for row in rows:
            try:
                sources[source].append(_conversation(row, source, config))
            except RowError as error:
                unfit.add(source, error)
    unfit.require_few()
    return Source(
        rows_read=sum(unfit.rows_read.values()),
        cut_questions=sum(c.cut_question for rows in sources.values() for c in rows),
        splits=split_conversations(sources, config),
        unfit=unfit,
    )


def _conversation(row: RawRow, source: str, config: DataConfig) -> Conversation:
    """One row, converted and judged as far as that needs no tokenizer."""
    conversation = replace(
        to_conversation(row, config.format, config),
        cluster=cluster_of(row, config.cluster),
        group=group_of(row, config.group),
        source=source,
    )
    answer_of(conversation, config)
    return conversation


def prepare_row(conversation: Conversation, template: Template, config: DataConfig) -> PreparedRow:
    """Render one conversation for training and evaluation; RowError where it cannot be used."""
    if config.scoring is Scoring.classes:
        return class_row(conversation)
    segments = template.render(conversation)
    answer, choices = None, None
    if config.scoring is Scoring.choices:
        rendered = template.render_choices(conversation)
        choices, answer = list(rendered.values()), rendered[str(conversation.answer)]
        _require_different(choices, conversation.place)
    elif config.scoring is Scoring.answer:
        answer = written_answer(conversation, template, config)
    return PreparedRow(
        item=conversation.item,
        segments=segments,
        prompt="".join(segment.text for segment in segments[:-1]),
        completion=segments[-1].text,
        choices=choices,
        answer=answer,
        cluster=conversation.cluster,
        group=conversation.group,
        rejected=_rejected(conversation, segments, template),
    )


def _rejected(conversation: Conversation, chosen: list[Segment], template: Template) -> str | None:
    """The rejected reply, rendered as the chosen one is."""
    if conversation.rejected is None:
        return None
    *before, last = template.render(conversation.with_rejected)
    if before != chosen[:-1]:
        raise RowError(
            conversation.place, "a template that writes prompts by their replies",
            "the template writes the prompt otherwise before the rejected reply than before the "
            "chosen one. Take another data.template, or remove this row.",
        )  # fmt: skip
    return last.text


def _require_different(choices: list[str], place: str) -> None:
    if len({choice.strip() for choice in choices} - {""}) < len(choices):
        raise RowError(
            place, "choices that the template makes equal",
            f"choices={shortened(choices)}, as the template writes them, are not all different. "
            "Repair or remove this row.",
        )  # fmt: skip


def _template(config: DataConfig, tokenizer: Tokenizer) -> Template:
    if config.scoring is Scoring.classes:
        return no_template(tokenizer)
    return make_template(config.template, config.system, tokenizer, config.date)


TRIED_ROWS = 20
"""Rows of each split that are tried, enough to see whether a template fits the data at all."""


def check_rendering(config: DataConfig, source: Source, tokenizer: Tokenizer) -> None:
    """Render some rows of each split, so that a tokenizer or chat template that fits none of them
    is refused (ConfigError, DataError) before anything is downloaded or stored."""
    require_fast(tokenizer)
    template = _template(config, tokenizer)
    for split, conversations in source.splits.conversations.items():
        tried = conversations[:TRIED_ROWS]
        faults = [fault for c in tried if (fault := _fault_of(c, template, config))]
        if len(faults) == len(tried):
            raise DataError(
                f"data.template={config.template.value}: none of {len(tried)} {split} rows that "
                f"were tried can be used: {faults[0]}"
            )


def _fault_of(
    conversation: Conversation, template: Template, config: DataConfig
) -> RowError | None:
    try:
        prepare_row(conversation, template, config)
    except RowError as error:
        return error
    return None


@dataclass(frozen=True)
class _Preparation:
    """One run of prepare-data: it turns conversations into counted rows."""

    config: DataConfig
    template: Template
    tokenizer: Tokenizer
    max_tokens: int
    unfit: UnfitRows
    remarks: Remarks
    on_row: OnRow | None = None

    def write_split(
        self, split: str, conversations: list[Conversation], folder: Path, dropped: Counter[str]
    ) -> SplitCard:
        """Write one split, count in `dropped` the rows left out, and return the split's card."""
        kept = self._choose(split, conversations, dropped)
        self.unfit.require_few()
        if not kept:
            raise DataError(
                f"The {split} split is empty: all of its {len(conversations)} rows are longer than "
                f"{self.max_tokens} tokens, or unfit to train on. Raise "
                f"data.max_tokens={self.config.max_tokens} if the model's context allows it, or "
                "use shorter rows."
            )
        path, rows = folder / f"{split}.jsonl", [one.row for one in kept]
        write_rows(path, rows)
        if split != "train" and self.config.scoring is Scoring.answer:
            pattern = self.config.answer_pattern
            lost = unreadable_answers(rows, self.tokenizer, pattern)
            self.remarks.scored += len(rows)
            self.remarks.unreadable += [row.answer or "" for row in lost]
        card = summarise_split(kept, path)
        if self.config.scoring is Scoring.classes:
            return replace(card, class_rows=rows_by_class(rows))
        # Of two replies one is right.
        prefers = self.config.scoring is Scoring.preference
        return replace(card, chance_accuracy=0.5) if prefers else card

    def _choose(
        self, split: str, conversations: list[Conversation], dropped: Counter[str]
    ) -> list[KeptRow]:
        """Rows in order up to the split's cap; those too long or unfit are counted as dropped."""
        cap = getattr(self.config, f"max_{split}_rows") or len(conversations)
        kept: list[KeptRow] = []
        for index, conversation in enumerate(conversations):
            if self.on_row:
                self.on_row(index, len(conversations))
            if len(kept) == cap:
                dropped[f"beyond max_{split}_rows={cap}"] += len(conversations) - index
                break
            try:
                prepared = self._prepare(conversation)
            except RowError as error:
                self.unfit.add(conversation.source, error)
                self.unfit.require_few(all_read=False)
                continue
            if prepared is None:
                dropped[f"longer than {self.max_tokens} tokens"] += 1
            else:
                self.remarks.note(conversation, prepared.row, self.template)
                kept.append(prepared)
        return kept

    def _prepare(self, conversation: Conversation) -> KeptRow | None:
        """The row and its token counts; None where it, or its rejected reply, is longer than
        max_tokens."""
        row = prepare_row(conversation, self.template, self.config)
        if self.config.scoring is Scoring.classes:
            (text,) = tokenize_texts([row], self.tokenizer)
            fits = len(text.ids) <= self.max_tokens
            return KeptRow(row, count_text(text, self.tokenizer)) if fits else None
        samples = []
        for own in [row] if row.rejected is None else [row, row.with_rejected]:
            ids, labels = tokenize_row(own, self.tokenizer, self.config.train_on_prompt)
            if len(ids) > self.max_tokens:
                return None
            samples.append(count_sample(ids, labels, self.tokenizer))
            require_trained(samples[-1], conversation.place)
        return KeptRow(row, *samples)


def prepare_data(
    config: DataConfig,
    model_name: str,
    tokenizer: Tokenizer,
    context_tokens: int,
    folder: Path,
    root: Path,
    provenance: Provenance,
    on_row: OnRow | None = None,
) -> DataCard:
    """Write {train,validation,test}.jsonl into `folder` and return their card. Samples longer than
    data.max_tokens or the model's context are dropped, never cut. ConfigError and DataError as in
    `check_source`, and for what only rendering and tokenizing show."""
    require_fast(tokenizer)
    source = check_source(config, root)
    template = _template(config, tokenizer)
    limit = min(config.max_tokens, context_tokens, int(tokenizer.model_max_length))
    remarks = Remarks(source.cut_questions)
    preparation = _Preparation(config, template, tokenizer, limit, source.unfit, remarks, on_row)
    dropped = Counter(source.splits.dropped)
    splits = {
        split: preparation.write_split(split, conversations, folder, dropped)
        for split, conversations in source.splits.conversations.items()
    }
    warnings = [*source.unfit.warnings(), *warnings_of(splits, remarks, template)]
    for warning in warnings:
        print(f"warning: {config.name}: {warning}", file=sys.stderr)
    is_whole = config.format in (Format.rendered, Format.text)
    return DataCard(
        name=config.name,
        model=model_name,
        source=describe_source(config),
        template="as in the source" if is_whole else config.template.value,
        template_sha256=template.sha256,
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        splits=splits,
        rows_read=source.rows_read,
        dropped_rows=dict(sorted((dropped + source.unfit.counts()).items())),
        scoring=config.scoring.value,
        answer_pattern=config.answer_pattern,
        max_tokens=limit,
        content_sha256=content_sha256(splits, config),
        warnings=warnings,
        provenance=provenance,
        max_dropped_fraction=config.max_dropped_fraction,
        unfit_rows=source.unfit.places(),
        special_tokens_in_text=dict(sorted(remarks.special_tokens.items())),
        template_date=template.chat.date if template.chat else None,
    )
