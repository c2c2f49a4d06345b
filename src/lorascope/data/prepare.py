"""Prepare a dataset for one model: read, convert, split, render, drop, write, and count."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lorascope.config import DataConfig, Format, Scoring
from lorascope.data.card import (
    SampleCount,
    content_sha256,
    count_sample,
    summarise_split,
    warnings_of,
)
from lorascope.data.conversations import Conversation, cluster_of
from lorascope.data.formats import to_conversation
from lorascope.data.rows import PreparedRow, write_rows
from lorascope.data.scoring import answer_of, check_settings
from lorascope.data.sources import describe_source, read_source
from lorascope.data.splits import Splits, split_conversations
from lorascope.data.templates import Template, make_template
from lorascope.data.tokenization import require_fast, tokenize_row, tokenizer_sha256
from lorascope.errors import DataError
from lorascope.records import DataCard, Provenance, SplitCard

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


OnRow = Callable[[int, int], None]
"""Called with (rows done, rows in all) of the split at hand."""


@dataclass(frozen=True)
class Source:
    """What the sources hold, converted and split: all that needs no tokenizer."""

    rows_read: int
    cut_questions: int
    splits: Splits


def check_source(config: DataConfig, root: Path) -> Source:
    """Read, convert and split without a tokenizer, so that bad rows fail before any training.

    Raises:
        ConfigError: settings that cannot go together.
        DataError: a missing or malformed file, a row that does not fit, an empty split.
    """
    check_settings(config)
    sources: dict[str, list[Conversation]] = {}
    for split, rows in read_source(config, root).items():
        sources[split] = [
            replace(to_conversation(row, config.format), cluster=cluster_of(row, config.cluster))
            for row in rows
        ]
    conversations = [conversation for rows in sources.values() for conversation in rows]
    for conversation in conversations:
        answer_of(conversation, config)
    return Source(
        rows_read=len(conversations),
        cut_questions=sum(c.cut_question for c in conversations),
        splits=split_conversations(sources, config),
    )


def prepare_row(conversation: Conversation, template: Template, config: DataConfig) -> PreparedRow:
    """Render one conversation for training and evaluation."""
    segments = template.render(conversation)
    answer, choices = answer_of(conversation, config), None
    if config.scoring is Scoring.choices:
        rendered = template.render_choices(conversation)
        choices, answer = list(rendered.values()), rendered[str(answer)]
    return PreparedRow(
        item=conversation.item,
        segments=segments,
        prompt="".join(segment.text for segment in segments[:-1]),
        completion=segments[-1].text,
        choices=choices,
        answer=answer,
        cluster=conversation.cluster,
    )


@dataclass(frozen=True)
class _Preparation:
    """What turns conversations into counted rows."""

    config: DataConfig
    template: Template
    tokenizer: PreTrainedTokenizerBase
    max_tokens: int
    on_row: OnRow | None = None

    def write_split(
        self, split: str, conversations: list[Conversation], folder: Path, dropped: Counter[str]
    ) -> SplitCard:
        """Write one split, add to `dropped` what it leaves out, and return its card."""
        kept = self._choose(split, conversations, dropped)
        if not kept:
            raise DataError(
                f"The {split} split is empty: all of its {len(conversations)} rows are longer than "
                f"{self.max_tokens} tokens. Raise data.max_tokens={self.config.max_tokens} if the "
                "model's context allows it, or use shorter rows."
            )
        path = folder / f"{split}.jsonl"
        write_rows(path, [row for row, _ in kept])
        return summarise_split(split, [sample for _, sample in kept], path)

    def _choose(
        self, split: str, conversations: list[Conversation], dropped: Counter[str]
    ) -> list[tuple[PreparedRow, SampleCount]]:
        """Rows in order until the split's cap is reached, those too long dropped and counted."""
        cap = getattr(self.config, f"max_{split}_rows") or len(conversations)
        kept: list[tuple[PreparedRow, SampleCount]] = []
        for index, conversation in enumerate(conversations):
            if self.on_row:
                self.on_row(index, len(conversations))
            if len(kept) == cap:
                dropped[f"beyond max_{split}_rows={cap}"] += len(conversations) - index
                break
            row = prepare_row(conversation, self.template, self.config)
            ids, labels = tokenize_row(row, self.tokenizer, self.config.train_on_prompt)
            if len(ids) > self.max_tokens:
                dropped[f"longer than {self.max_tokens} tokens"] += 1
            else:
                kept.append((row, count_sample(ids, labels, self.tokenizer)))
        return kept


def prepare_data(
    config: DataConfig,
    model_name: str,
    tokenizer: PreTrainedTokenizerBase,
    context_tokens: int,
    folder: Path,
    root: Path,
    provenance: Provenance,
    on_row: OnRow | None = None,
) -> DataCard:
    """Write {train,validation,test}.jsonl into `folder` and return their card.

    Samples longer than data.max_tokens or the model's context are dropped, never cut.

    Raises:
        ConfigError, DataError: as `check_source`, and where nothing usable would be left.
    """
    require_fast(tokenizer)
    source = check_source(config, root)
    template = make_template(config.template, config.system, tokenizer)
    limit = min(config.max_tokens, context_tokens, int(tokenizer.model_max_length))
    preparation = _Preparation(config, template, tokenizer, limit, on_row)
    dropped = Counter(source.splits.dropped)
    splits = {
        split: preparation.write_split(split, conversations, folder, dropped)
        for split, conversations in source.splits.conversations.items()
    }
    warnings = warnings_of(splits, source.cut_questions)
    for warning in warnings:
        print(f"warning: {config.name}: {warning}", file=sys.stderr)
    rendered = config.format is Format.rendered
    return DataCard(
        name=config.name,
        model=model_name,
        source=describe_source(config),
        template="as in the source" if rendered else config.template.value,
        template_sha256=template.sha256,
        tokenizer_sha256=tokenizer_sha256(tokenizer),
        splits=splits,
        rows_read=source.rows_read,
        dropped_rows=dict(sorted(dropped.items())),
        scoring=config.scoring.value,
        answer_pattern=config.answer_pattern,
        max_tokens=limit,
        content_sha256=content_sha256(splits, config),
        warnings=warnings,
        provenance=provenance,
    )
